"""Finds what would keep a job from running, and spends nothing (``batchrank check``).

What a run would refuse is asked of the run's own preconditions, and the input is read by the survey that prepares it as
a run does; so ``check --all`` ends with the code that ``run`` ends with, wherever that doesn't hang on the API.
"""

import re
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import anyio

from batchrank.data import Answer, Rejection, Request
from batchrank.errors import BatchrankError, ExitCode
from batchrank.job.config import Job
from batchrank.job.sections import Gate
from batchrank.pipeline.endpoint import api_keys, endpoint, places
from batchrank.pipeline.preconditions import Preconditions, look_into_ledger
from batchrank.planning.space import Sized, free_bytes, needs, shortage
from batchrank.planning.survey import Watch, survey, unwatched
from batchrank.send.connections import tls_context
from batchrank.send.retry import Action, advice, classify, slows
from batchrank.tokens import exact_counts
from batchrank.write.folder import OutputFolder

_CONNECT = 10.0
"""Seconds to connect: longer than any healthy network takes, and short enough to wait for."""
_IN_THE_END = (ExitCode.GATE, ExitCode.FAILED_QUERIES)
"""What a run comes to only where nothing stopped it: first the gate's judgement, then queries that failed."""


State: TypeAlias = Literal["ok", "note", "fault"]
"""A note is about what a run would do all the same."""
Said: TypeAlias = tuple[State, str]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        name: what was looked at.
        state: whether it is well.
        text: what was found, and what to do about it.
        exit_code: what a run would end with because of it.
    """

    name: str
    state: State
    text: str
    exit_code: ExitCode = ExitCode.COMPLETE


def ending(findings: Iterable[Finding]) -> ExitCode:
    """What a run would end with: the first fault that stops it, else what it comes to in the end."""
    codes = [finding.exit_code for finding in findings if finding.exit_code]
    stopped = [code for code in codes if code not in _IN_THE_END]
    return next(iter([*stopped, *(code for code in _IN_THE_END if code in codes)]), ExitCode.COMPLETE)


def check_job(job: Job, *, limit: int | None, ask: bool, watch: Watch = unwatched) -> Iterator[Finding]:
    """Look at all that a run of the job needs, one thing after the other.

    Args:
        job: the job, already validated.
        limit: records of the input to look at, None for all.
        ask: also send a request without documents, rejected and not billed, to see whether the key is accepted.
        watch: shows how far reading the input has come.
    """
    ground = Preconditions(job)
    steps = ground.steps() | {"ledger": lambda: look_into_ledger(job)}
    told: set[str] = set()
    yield Finding("job", "ok", f"{job.card.name} over the {job.wire} format, merge method {job.merge.method}")
    for name, step in steps.items():
        yield from _guarded(name, partial(_stepped, name, step, ground), told)
    yield _rate(job)
    yield from _guarded("input", partial(_input, ground, limit, watch), told)
    yield from _guarded("endpoint", partial(_endpoint, job, ask), told)
    if job.gate is not None:
        yield _compared(job, job.gate)


def _guarded(name: str, look: Callable[[], Iterable[Finding]], told: set[str]) -> Iterator[Finding]:
    """What a look finds, or the fault that ends it, unless it was told before: looks need things of one another."""
    try:
        yield from look()
    except BatchrankError as error:
        if str(error) not in told:
            yield Finding(name, "fault", str(error), error.exit_code)
        told.add(str(error))


def _stepped(name: str, step: Callable[[], object], ground: Preconditions) -> Iterator[Finding]:
    """Take a step of the preconditions, and say what is so if nothing stands against it."""
    step()
    state, text = _WELL[name](ground) if name in _WELL else ("ok", "")
    if text:
        yield Finding(name, state, text)


def _key(ground: Preconditions) -> Said:
    job = ground.job
    if job.emulated:
        return "ok", "the emulator needs none"
    there = [*job.api_keys()]
    if len(there) > 1:
        return "ok", f"there are {len(there)}, in {', '.join(there)}; each is used up to the whole quota"
    return "ok", f"there is one in {there[0]}" if there else "the server needs none"


def _tokens(ground: Preconditions) -> Said:
    counter = ground.sharder.counter
    if counter.exact and not counter.estimate:
        return "ok", f"counted exactly ({counter.name})"
    told = "counted as bytes, an upper bound: requests will be less than full"
    if counter.estimate:
        told = f"estimated by the vocabulary of Qwen, as that of {ground.job.card.name} isn't here"
    return "note", f"{told}; {exact_counts(ground.job.card.tokenizer)}"


def _request(ground: Preconditions) -> Said:
    """What the job makes of every request besides the wire format's own."""
    job, said = ground.job, []
    if job.template is not None:
        instruct = f" (instruct: {job.said_instruct})" if job.template.instructs else ""
        said.append(f"the model's own prompt goes around the query and each document{instruct}")
    if job.endpoint.body:
        said.append(f"{', '.join(job.endpoint.body)} added to every request")
    return "ok", "; ".join(said)


def _budget(ground: Preconditions) -> Said:
    budget, price = ground.job.budget, ground.job.price
    span = {"run": " a run", "day": " a day (UTC)", "total": " in all"}[budget.per]
    if budget.max_cost is not None and price is not None:
        return "ok", f"at most {budget.max_cost:g} {price.currency}{span}"
    for most, what in ((budget.max_tokens, "tokens"), (budget.max_requests, "requests")):
        if most is not None:
            return "ok", f"at most {most:,} {what}{span}"
    if ground.job.emulated:
        return "ok", "none is needed on the emulator"
    return "note", "there is no cap; set budget.max_cost, or look at: batchrank plan"


def _output(ground: Preconditions) -> Said:
    folder, target = ground.job.output_folder, ground.job.destination
    if folder is None:
        return "ok", "JSON lines on standard output"
    if target != folder:
        return (
            "ok",
            f"{target} can be written (an object was put there, and removed); what stays here: {folder}",
        )
    return "ok", f"{folder} can be written, {free_bytes(folder) / 2**30:,.1f} GiB free"


def _ledger(ground: Preconditions) -> Said:
    path = ground.job.ledger_path
    if path is not None and path.exists():
        return "ok", f"{path}: its answers will be reused"
    return "ok", f"{path} will be made" if path else "there will be none"


_WELL: dict[str, Callable[[Preconditions], Said]] = {
    "key": _key, "tokens": _tokens, "request": _request, "budget": _budget, "output": _output, "ledger": _ledger,
}  # fmt: skip


def _rate(job: Job) -> Finding:
    (each, fixed), wanted = places(job), job.rate.concurrency
    most = fixed or sum(one.most for one in each)
    if isinstance(wanted, int) and wanted > most:
        text = f"this process may have {most:,} connections open, fewer than rate.concurrency: {wanted:,}"
        return Finding("rate", "note", f"{text}; raise the limit of open files (ulimit -n)")
    shared = f"; jobs that say rate.account: {job.rate.account} share the quota" if job.rate.account else ""
    return Finding("rate", "ok", f"at most {most:,} requests in flight{shared}")


def _compared(job: Job, gate: Gate) -> Finding:
    output = gate.against or job.destination or Path()
    if OutputFolder(output).accepted():
        return Finding("gate", "ok", f"compares with {output}")
    if gate.against:
        text = f"gate.against: {output} holds no complete run that passed its gate"
        return Finding("gate", "fault", text, ExitCode.GATE)
    return Finding("gate", "note", "there is no earlier run to compare with; the first one passes")


def _input(ground: Preconditions, limit: int | None, watch: Watch) -> Iterator[Finding]:
    yield from (Finding("input", "note", note) for note in ground.notes)
    if ground.job.input is not None and "-" in ground.job.input.path:
        yield Finding("input", "note", "standard input can be read only once, so it was not looked at")
        yield from _space(ground.job, Sized())
        return
    job = ground.job
    found = survey(ground, Sized(top_n=job.output.top_n if job.output else None), limit=limit, watch=watch)
    text = f"{found.queries:,} queries, {found.documents:,} documents, {found.chunks:,} requests"
    text += f", {found.blank:,} blank documents will not be sent" if found.blank else ""
    text += (
        f", {found.truncated:,} texts are longer than the API reads and will be cut"
        if found.truncated
        else ""
    )
    scope = "all of it was read" if found.whole else f"the first {limit:,} records were read; --all reads all"
    yield Finding("input", "ok" if found.queries else "fault", f"{text}; {scope}")
    yield from _space(job, found)
    if (reason := found.stop(job)) is not None:
        yield Finding("input", "fault", str(reason), reason.exit_code)
    for cause in sorted(found.failed.values(), key=lambda cause: -cause.count):
        yield Finding("input", "fault", f"{cause.count:,} would fail: {cause}", ExitCode.FAILED_QUERIES)
    for cause in sorted(found.refused.values(), key=lambda cause: -cause.count):
        yield Finding("input", "note", f"{cause.count:,} documents would be ranked last or left out: {cause}")


def _space(job: Job, found: Sized) -> Iterator[Finding]:
    """Whether the disk has room for what a run will write, as far as the input was read."""
    short = shortage(job, needs(job, found))
    if short is not None:
        certain, text = short
        code = ExitCode.FAILED if certain else ExitCode.COMPLETE
        yield Finding("space", "fault" if certain else "note", text, code)


def _endpoint(job: Job, ask: bool) -> Iterator[Finding]:
    """What each server says to each key; a run goes on without those that fail as long as one works."""
    if job.emulated:
        yield Finding("endpoint", "ok", "the emulator, inside the process")
        return
    found = [finding for url in job.urls for finding in anyio.run(_connected, job, url, ask)]
    some = any(finding.state != "fault" for finding in found)
    several = "replicas" * (len(job.urls) > 1), "keys" * (len(job.key_sources) > 1)
    for one in found:
        text = f"{one.text}; the run will go on with the other {' and '.join(filter(None, several))}"
        yield Finding("endpoint", "note", text) if one.state == "fault" and some else one


async def _connected(job: Job, url: str, ask: bool) -> list[Finding]:
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
        return [Finding("endpoint", "fault", text, ExitCode.STOPPED)]
    except ssl.SSLCertVerificationError as error:
        text = f"{where}: its certificate can't be verified: {error.verify_message}; {_TRUST}"
        return [Finding("endpoint", "fault", text, ExitCode.STOPPED)]
    except OSError as error:
        text = f"{where} can't be reached: {error}; {_REACH}"
        return [Finding("endpoint", "fault", text, ExitCode.STOPPED)]
    reached = f"{where} can be reached{' over TLS' if tls else ''}"
    if proxy and len(job.urls) > 1:
        reached = f"{urlsplit(url).netloc}: {reached}"
    if ask:
        return await _asked(job, url, reached)
    behind = f", {urlsplit(url).hostname} behind it was not tried (--ask does)" if proxy else ""
    return [Finding("endpoint", "ok", f"{reached}{behind}; nothing was asked")]


_TRUST = "correct endpoint.url, or name its authority's certificate in endpoint.ca_file"
_REACH = "see that the network is up, and that endpoint.url, endpoint.region and endpoint.proxy are right"


async def _asked(job: Job, url: str, reached: str) -> list[Finding]:
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


def _told(job: Job, reached: str, outcome: Answer | Rejection) -> Finding:
    """What an empty request's fate tells: the same words that would stop a run are told before it."""
    if not isinstance(outcome, Rejection):
        return Finding("endpoint", "ok", f"{reached}; the key is accepted")
    action = classify(outcome, job.wire)
    if slows(action):
        text = f"{reached}; the key is accepted, but is at its limit now: {outcome}"
        return Finding("endpoint", "note", text)
    if action in (Action.SPLIT, Action.REFUSE) or (action is Action.REJECT and _only_empty(outcome.message)):
        return Finding("endpoint", "ok", f"{reached}; the key is accepted")
    text = f"{reached}, but an empty request gets {outcome}"
    if action is Action.RETRY and outcome.code != "malformed":
        return Finding("endpoint", "fault", f"{text}; try again later", ExitCode.STOPPED)
    exit_code = ExitCode.STOPPED if action is Action.WAIT else ExitCode.FAILED
    return Finding("endpoint", "fault", f"{text}. {advice(outcome, job.wire)}", exit_code)


def _only_empty(message: str) -> bool:
    return bool(_ABOUT_DOCUMENTS.search(message)) and not _ABOUT_ELSE.search(message)
