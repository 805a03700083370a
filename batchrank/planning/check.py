"""Finds what would keep a job from running, and spends nothing (``batchrank check``)."""

import os
import re
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from batchrank.data import Answer, Rejection, Request
from batchrank.errors import BatchrankError, InputError, JobError, install_line
from batchrank.job.config import Job
from batchrank.ledger.ledger import Ledger
from batchrank.pipeline.assemble import concurrency_limit, endpoint, sharder
from batchrank.pipeline.preconditions import refuse_lost_ledger, refuse_own_input
from batchrank.planning.findings import Finding, check_input
from batchrank.quality.gate import accepted
from batchrank.quality.measures import Measures
from batchrank.quality.qrels import load
from batchrank.read import detect
from batchrank.read.layout import facts
from batchrank.send.connections import tls_context
from batchrank.send.retry import Action, advice, classify, slows

_CONNECT = 10.0
"""Seconds to connect: longer than any healthy network takes, and short enough to wait for."""
_TIGHT = 2**30
"""1 GiB free: a night's ledger and output may need as much."""


def check_job(job: Job, *, limit: int | None, ask: bool) -> Iterator[Finding]:
    """Look at all that a run of the job needs, one thing after the other.

    Args:
        job: the job, already validated.
        limit: queries of the input to look at, None for all.
        ask: also send a request without documents, rejected and not billed, to see whether the key is accepted.
    """
    yield Finding("job", "ok", f"{job.card.name} over the {job.wire} format, merge method {job.merge.method}")
    yield from _guarded("key", _key, job)
    yield from _guarded("tokens", _tokens, job)
    if job.template is not None or job.endpoint.body:
        yield from _guarded("request", _request, job)
    yield from _guarded("rate", _rate, job)
    yield from _guarded("budget", _budget, job)
    yield from _guarded("output", _output, job)
    if job.gate is not None:
        yield from _guarded("gate", _gate, job)
    yield from _guarded("ledger", _ledger, job)
    yield from _guarded("endpoint", lambda job: anyio.run(_endpoint, job, ask), job)
    try:
        yield from check_input(job, limit)
    except BatchrankError as error:
        yield Finding("input", "fault", str(error), error.exit_code)


def _guarded(name: str, check: Callable[[Job], Finding], job: Job) -> Iterator[Finding]:
    try:
        yield check(job)
    except BatchrankError as error:
        yield Finding(name, "fault", str(error), error.exit_code)


def _key(job: Job) -> Finding:
    if job.emulated:
        return Finding("key", "ok", "the emulator needs none")
    if job.api_key() is None:
        return Finding("key", "ok", "the server needs none")
    source = job.endpoint.api_key_file or job.api_key_env
    return Finding("key", "ok", f"there is one in {source}")


def _tokens(job: Job) -> Finding:
    counter = sharder(job).counter
    if counter.exact:
        return Finding("tokens", "ok", f"counted exactly ({counter.name})")
    text = "counted as bytes, an upper bound: requests will be less than full"
    return Finding("tokens", "note", f"{text}; to count exactly: {install_line('qwen')}")


def _request(job: Job) -> Finding:
    """What the job makes of every request besides the wire format's own."""
    endpoint(job, job.url, None)
    said = []
    if job.template is not None:
        instruct = f" (instruct: {job.said_instruct})" if job.template.instructs else ""
        said.append(f"the model's own prompt goes around the query and each document{instruct}")
    if job.endpoint.body:
        said.append(f"{', '.join(job.endpoint.body)} added to every request")
    return Finding("request", "ok", "; ".join(said))


def _rate(job: Job) -> Finding:
    most, wanted = concurrency_limit(job).most, job.rate.concurrency
    if isinstance(wanted, int) and wanted > most:
        text = f"this process may have {most:,} connections open, fewer than rate.concurrency: {wanted:,}"
        return Finding("rate", "note", f"{text}; raise the limit of open files (ulimit -n)")
    return Finding("rate", "ok", f"at most {most:,} requests in flight")


def _budget(job: Job) -> Finding:
    budget, price = job.budget, job.price
    span = {"run": " a run", "day": " a day (UTC)", "total": " in all"}[budget.per]
    if budget.max_cost is not None:
        if price is None:
            raise JobError(
                f"no price is known for {job.card.name}: set model.price, or budget.max_tokens instead"
            )
        return Finding("budget", "ok", f"at most {budget.max_cost:g} {price.currency}{span}")
    if budget.max_tokens is not None:
        return Finding("budget", "ok", f"at most {budget.max_tokens:,} tokens{span}")
    if budget.max_requests is not None:
        return Finding("budget", "ok", f"at most {budget.max_requests:,} requests{span}")
    if job.emulated:
        return Finding("budget", "ok", "none is needed on the emulator")
    return Finding("budget", "note", "there is no cap; set budget.max_cost, or look at: batchrank plan")


def _output(job: Job) -> Finding:
    path = job.output.path if job.output else "-"
    if path == "-":
        return Finding("output", "ok", "JSON lines on standard output")
    files = None
    with suppress(InputError):  # told where the input is looked at
        files = facts(job.input) if job.input else None
    refuse_own_input(job, files)
    folder = Path(path).expanduser()
    there = next(parent for parent in [folder, *folder.absolute().parents] if parent.exists())
    if not there.is_dir():
        return Finding("output", "fault", f"{there} is not a folder; choose another output.path", 1)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding("output", "fault", f"nothing can be written to {there}: {error.strerror}", 1)
    free = shutil.disk_usage(there).free
    if free < _TIGHT:
        return Finding("output", "note", f"{folder}: only {free / 2**20:,.0f} MiB are free on that disk")
    return Finding("output", "ok", f"{folder} can be written, {free / 2**30:,.0f} GiB free")


def _gate(job: Job) -> Finding:
    gate = job.gate
    assert gate is not None
    if gate.qrels:
        judgements = load([detect.source(path) for path in gate.qrels])
        Measures([f"nDCG@{gate.depth}"], judgements)
    output = Path(gate.against or (job.output.path if job.output else ""))
    if accepted(output):
        return Finding("gate", "ok", f"compares with {output}")
    if gate.against:
        return Finding(
            "gate", "fault", f"gate.against: {output} holds no complete run that passed its gate", 5
        )
    return Finding("gate", "note", "there is no earlier run to compare with; the first one passes")


def _ledger(job: Job) -> Finding:
    path = job.ledger_path
    refuse_lost_ledger(job)
    if path is None or not path.exists():
        return Finding("ledger", "ok", f"{path} will be made" if path else "there will be none")
    if not os.access(path, os.W_OK):
        return Finding("ledger", "fault", f"{path} can't be written by this user", 1)
    Ledger(path).close()
    return Finding("ledger", "ok", f"{path}: its answers will be reused")


async def _endpoint(job: Job, ask: bool) -> Finding:
    if job.emulated:
        return Finding("endpoint", "ok", "the emulator, inside the process")
    proxy, own = job.proxy(), job.endpoint
    parts = urlsplit(proxy or job.url)
    host, tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    where = f"the proxy {host}:{port}" if proxy else f"{host}:{port}"
    context: ssl.SSLContext | None = None
    if tls or job.url.startswith("https:") or own.ca_file or own.client_cert:
        context = tls_context(ca_file=own.ca_file, client_cert=own.client_cert, client_key=own.client_key)
    try:
        with anyio.fail_after(_CONNECT):
            if tls and context is not None:
                secured = anyio.connect_tcp(host, port, ssl_context=context, tls_standard_compatible=False)
                await (await secured).aclose()
            else:
                await (await anyio.connect_tcp(host, port)).aclose()
    except TimeoutError:
        return Finding("endpoint", "fault", f"{where} did not answer within {_CONNECT:g} s; {_REACH}", 75)
    except ssl.SSLCertVerificationError as error:
        text = f"{where}: its certificate can't be verified: {error.verify_message}; {_TRUST}"
        return Finding("endpoint", "fault", text, 75)
    except OSError as error:
        return Finding("endpoint", "fault", f"{where} can't be reached: {error}; {_REACH}", 75)
    reached = f"{where} can be reached{' over TLS' if tls else ''}"
    if ask:
        return await _asked(job, reached)
    behind = f", {urlsplit(job.url).hostname} behind it was not tried (--ask does)" if proxy else ""
    return Finding("endpoint", "ok", f"{reached}{behind}; nothing was asked")


_TRUST = "correct endpoint.url, or name its authority's certificate in endpoint.ca_file"
_REACH = "see that the network is up, and that endpoint.url, endpoint.region and endpoint.proxy are right"


async def _asked(job: Job, reached: str) -> Finding:
    """Send a request without documents: every API rejects it unbilled, but only once it has accepted the key."""
    session, codec = endpoint(job, job.url, job.api_key())
    body = codec.body(Request(job.card.name, "check", [], job.said_instruct))
    async with session as http:
        outcome = await http.post(body, 0)
    if http.notice is not None:
        reached = f"{reached}; {http.notice}"
    return _told(job, reached, outcome)


_ABOUT_DOCUMENTS = re.compile(
    r"\b(?:documents?|texts?|passages?|inputs?|items?|list|empty|at least)\b", re.IGNORECASE
)
"""How APIs complain about a request without documents."""
_ABOUT_ELSE = re.compile(
    r"\bmodel\b|missing field|field required|unknown|unexpected|unrecognized|not (?:found|exist|allowed)",
    re.IGNORECASE,
)
"""How they complain about a model, an address or a wire format that is not theirs."""


def _told(job: Job, reached: str, outcome: Answer | Rejection) -> Finding:
    """What an empty request's fate tells: the same words that would stop a run are told before it."""
    if not isinstance(outcome, Rejection):
        return Finding("endpoint", "ok", f"{reached}; the key is accepted")
    action = classify(outcome, job.wire)
    if slows(action):
        return Finding(
            "endpoint", "note", f"{reached}; the key is accepted, but is at its limit now: {outcome}"
        )
    if action in (Action.SPLIT, Action.REFUSE) or (action is Action.REJECT and _only_empty(outcome.message)):
        return Finding("endpoint", "ok", f"{reached}; the key is accepted")
    text = f"{reached}, but an empty request gets {outcome}"
    if action is Action.RETRY and outcome.code != "malformed":
        return Finding("endpoint", "fault", f"{text}; try again later", 75)
    exit_code = 75 if action is Action.WAIT else 1
    return Finding("endpoint", "fault", f"{text}. {advice(outcome, job.wire)}", exit_code)


def _only_empty(message: str) -> bool:
    return bool(_ABOUT_DOCUMENTS.search(message)) and not _ABOUT_ELSE.search(message)
