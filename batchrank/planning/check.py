"""Finds what would keep a job from running, and spends nothing (``batchrank check``).

What a run would refuse is asked of the run's own preconditions, and the input is read by the survey that prepares it as
a run does; so ``check --all`` ends with the code that ``run`` ends with, wherever that doesn't hang on the API.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from batchrank.errors import BatchrankError, ExitCode
from batchrank.job.config import Job
from batchrank.job.sections import Gate
from batchrank.pipeline.endpoint import places
from batchrank.pipeline.nights import reference
from batchrank.pipeline.preconditions import Preconditions, look_into_ledger
from batchrank.planning.reach import State, reached_servers
from batchrank.planning.space import Sized, free_bytes, needs, part_bytes, shortage
from batchrank.planning.survey import Watch, survey, unwatched
from batchrank.tokens import exact_counts
from batchrank.write.folder import OutputFolder

_IN_THE_END = (ExitCode.GATE, ExitCode.FAILED_QUERIES)
"""What a run comes to only where nothing stopped it: first the gate's judgement, then queries that failed."""


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
    sized = Sized(top_n=job.output.top_n if job.output else None)
    yield from _guarded("input", partial(_input, ground, sized, limit, watch), told)
    yield from _guarded(
        "endpoint", lambda: (Finding("endpoint", *found) for found in reached_servers(job, ask=ask)), told
    )
    if job.engine.ray is not None:
        yield from _guarded("cluster", partial(_cluster, job, sized), told)
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
    here = gate.against or OutputFolder(output).accepted()
    if not here and (last := reference(job)) is not None:
        output = last.destination or output
    if OutputFolder(output).accepted():
        return Finding("gate", "ok", f"compares with {output}")
    if gate.against:
        text = f"gate.against: {output} holds no complete run that passed its gate"
        return Finding("gate", "fault", text, ExitCode.GATE)
    return Finding("gate", "note", "there is no earlier run to compare with; the first one passes")


def _cluster(job: Job, sized: Sized) -> Iterator[Finding]:
    from batchrank.planning.nodes import cluster

    states: dict[bool | None, State] = {True: "ok", None: "note", False: "fault"}
    for well, text, code in cluster(job, part_bytes(job, sized)):
        yield Finding("cluster", states[well], text, code)


def _input(ground: Preconditions, sized: Sized, limit: int | None, watch: Watch) -> Iterator[Finding]:
    yield from (Finding("input", "note", note) for note in ground.notes)
    if ground.job.input is not None and "-" in ground.job.input.path:
        yield Finding("input", "note", "standard input can be read only once, so it was not looked at")
        yield from _space(ground.job, sized)
        return
    job = ground.job
    found = survey(ground, sized, limit=limit, watch=watch)
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
