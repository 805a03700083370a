"""Sees whether a job's servers can be reached, and what they say to its keys, at no cost."""

import re
import ssl
from collections.abc import Iterator
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import anyio

from batchrank.data import Answer, Rejection, Request
from batchrank.errors import ExitCode
from batchrank.job.config import Job
from batchrank.pipeline.endpoint import api_keys, endpoint
from batchrank.send.connections import tls_context
from batchrank.send.retry import Action, advice, classify, slows

_CONNECT = 10.0
"""Seconds to connect: longer than any healthy network takes, and short enough to wait for."""
State: TypeAlias = Literal["ok", "note", "fault"]
"""A note is about what a run would do all the same."""
Told: TypeAlias = tuple[State, str, ExitCode]
"""How it is, what was found and what to do about it, and what a run would end with because of it."""


def reached_servers(job: Job, *, ask: bool) -> Iterator[Told]:
    """What each server says to each key; a run goes on without those that fail as long as one works.

    Args:
        job: the job.
        ask: also send a request without documents, rejected and not billed, to see whether the key is accepted.
    """
    if job.emulated:
        yield "ok", "the emulator, inside the process", ExitCode.COMPLETE
        return
    found = [told for url in job.urls for told in anyio.run(_connected, job, url, ask)]
    some = any(state != "fault" for state, *_ in found)
    several = "replicas" * (len(job.urls) > 1), "keys" * (len(job.key_sources) > 1)
    others = f"the run will go on with the other {' and '.join(filter(None, several))}"
    for state, text, code in found:
        fault = state == "fault" and some
        yield ("note", f"{text}; {others}", ExitCode.COMPLETE) if fault else (state, text, code)


async def _connected(job: Job, url: str, ask: bool) -> list[Told]:
    proxy, own = job.proxy(url=url), job.endpoint
    parts = urlsplit(proxy or url)
    host, tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    where = f"the proxy {host}:{port}" if proxy else f"{host}:{port}"
    context: ssl.SSLContext | None = None
    if tls or url.startswith("https:") or own.ca_file or own.client_cert:
        context = tls_context(ca_file=own.ca_file, client_cert=own.client_cert, client_key=own.client_key)
    try:
        with anyio.fail_after(_CONNECT):
            if tls and context is not None:
                secured = anyio.connect_tcp(host, port, ssl_context=context, tls_standard_compatible=False)
                await (await secured).aclose()
            else:
                await (await anyio.connect_tcp(host, port)).aclose()
    except TimeoutError:
        text = f"{where} did not answer within {_CONNECT:g} s; {_REACH}"
        return [("fault", text, ExitCode.STOPPED)]
    except ssl.SSLCertVerificationError as error:
        text = f"{where}: its certificate can't be verified: {error.verify_message}; {_TRUST}"
        return [("fault", text, ExitCode.STOPPED)]
    except OSError as error:
        text = f"{where} can't be reached: {error}; {_REACH}"
        return [("fault", text, ExitCode.STOPPED)]
    reached = f"{where} can be reached{' over TLS' if tls else ''}"
    if proxy and len(job.urls) > 1:
        reached = f"{urlsplit(url).netloc}: {reached}"
    if ask:
        return await _asked(job, url, reached)
    behind = f", {urlsplit(url).hostname} behind it was not tried (--ask does)" if proxy else ""
    return [("ok", f"{reached}{behind}; nothing was asked", ExitCode.COMPLETE)]


_TRUST = "correct endpoint.url, or name its authority's certificate in endpoint.ca_file"
_REACH = "see that the network is up, and that endpoint.url, endpoint.region and endpoint.proxy are right"


async def _asked(job: Job, url: str, reached: str) -> list[Told]:
    """Send a request without documents by each key: every API rejects it unbilled, once it has accepted the key."""
    every_key = api_keys(job)
    session, codec = endpoint(job, url, every_key[0])
    body = codec.body(Request(job.card.name, "check", [], job.said_instruct))
    async with session as http:
        outcomes = [(key, await http.post(body, 0, key)) for key in every_key]
    if http.notice is not None:
        reached = f"{reached}; {http.notice}"
    named = [f"{reached} (the key in {key.name})" if len(every_key) > 1 else reached for key, _ in outcomes]
    return [_told(job, told, outcome) for told, (_, outcome) in zip(named, outcomes, strict=True)]


_ABOUT_DOCUMENTS = re.compile(
    r"\b(?:documents?|texts?|passages?|inputs?|items?|list|empty|at least)\b", re.IGNORECASE
)
"""How APIs complain about a request without documents."""
_ABOUT_ELSE = re.compile(
    r"\bmodel\b|missing field|field required|unknown|unexpected|unrecognized|not (?:found|exist|allowed)",
    re.IGNORECASE,
)
"""How they complain about a model, an address or a wire format that is not theirs."""


def _told(job: Job, reached: str, outcome: Answer | Rejection) -> Told:
    """What an empty request's fate tells: the same words that would stop a run are told before it."""
    if not isinstance(outcome, Rejection):
        return "ok", f"{reached}; the key is accepted", ExitCode.COMPLETE
    action = classify(outcome, job.wire)
    if slows(action):
        text = f"{reached}; the key is accepted, but is at its limit now: {outcome}"
        return "note", text, ExitCode.COMPLETE
    if action in (Action.SPLIT, Action.REFUSE) or (action is Action.REJECT and _only_empty(outcome.message)):
        return "ok", f"{reached}; the key is accepted", ExitCode.COMPLETE
    text = f"{reached}, but an empty request gets {outcome}"
    if action is Action.RETRY and outcome.code != "malformed":
        return "fault", f"{text}; try again later", ExitCode.STOPPED
    exit_code = ExitCode.STOPPED if action is Action.WAIT else ExitCode.FAILED
    return "fault", f"{text}. {advice(outcome, job.wire)}", exit_code


def _only_empty(message: str) -> bool:
    return bool(_ABOUT_DOCUMENTS.search(message)) and not _ABOUT_ELSE.search(message)
