"""Finds the outputs of other days, where ``output.path`` has ``{date}``: the one to go on with, and the last one.

A run of the day before that was cut short is gone on with, past midnight too: if its output is the newest there is,
is not complete, and job and input are what they were. Otherwise tonight's output begins, and that one stays as it is.
"""

import shutil
from collections.abc import Iterator
from glob import escape, glob
from pathlib import Path
from typing import Any

from batchrank.errors import BatchrankError, OutputError
from batchrank.io.address import Address, located
from batchrank.job.config import Job
from batchrank.job.paths import Dated
from batchrank.write.folder import ACCEPTED, BASELINE, LOCK, OutputFolder

_ANY_DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"


def nights(job: Job) -> Iterator[Job]:
    """The job with each day's output that it has written to from this machine, today's too, the newest first."""
    out = job.output
    if out is None or out.dated is None:
        return
    today = out.dated.day_of(located(out.path)) or ""
    for day in sorted(_days(job, out.dated), reverse=True):
        if day <= today:
            yield job.at_day(day)


def _days(job: Job, dated: Dated) -> set[str]:
    """The days whose folder here has a lock; of an address it is found beside the ledger, and says whose it is."""
    if isinstance(job.destination, Address) and job.ledger is not None:
        locks = Path(job.ledger).parent.glob(f"*/{LOCK}")
        records = (OutputFolder(lock.parent).owner() or {} for lock in locks)
        found = [located(str(record.get("output", ""))) for record in records]
    else:
        found = [Path(lock).parent for lock in glob(f"{_ANY_DAY.join(map(escape, dated.parts))}/{LOCK}")]
    return {day for place in found if (day := dated.day_of(place)) is not None}


def latest(job: Job, *, ranked: bool = False) -> Job:
    """The job with its newest output, to be looked at; as it is where there is none.

    Args:
        job: the job.
        ranked: whether an output without any ranking doesn't count.
    """
    for one in nights(job):
        if not ranked or OutputFolder(one.destination or Path()).parts():
            return one
    return job


def going_on(job: Job) -> tuple[Job, str | None]:
    """The job with the output that a run writes to, and what to say of it."""
    last = next(nights(job), job)
    if last.output == job.output or last.destination is None or _complete(last):
        return job, None
    record = OutputFolder(last.output_folder or Path()).owner() or {}
    if record.get("ledger_file") != _ledger_file(job):
        return job, None
    from batchrank.pipeline.assemble import sharder
    from batchrank.read.layout import facts

    try:
        now = asked(job, sharder(job).counter.name, facts(job.input) if job.input else None)
        alike = now["files"] is not None and record.get("asked") == now
    except (BatchrankError, OSError):
        return job, None  # which the run itself tells, before it writes anything
    if alike:
        return last, f"goes on with the output of another day, {last.destination}, which isn't complete yet"
    return job, (
        f"{last.destination} isn't complete and stays as it is, because the job or its input has changed since; this "
        f"run writes to {job.destination}"
    )


def _complete(job: Job) -> bool:
    folder = OutputFolder(job.destination or Path())
    return folder.complete() is not None and not folder.next.parts()


def _ledger_file(job: Job) -> str | None:
    return None if job.ledger_path is None else str(job.ledger_path.absolute())


def asked(job: Job, tokenizer: str, files: list[list[Any]] | None) -> dict[str, Any]:
    """What tells one night's run from another's: kept in its folder, as its ledger may be in use, or large.

    Files that were written again since may hold another night's input, so their times count.

    Args:
        job: the job.
        tokenizer: what counts tokens.
        files: the input files' names, sizes and times; None for standard input.
    """
    from batchrank.pipeline.earlier import PROGRAM, fingerprint, identity, input_fingerprint

    settings = identity(job, tokenizer)
    settings.pop(PROGRAM)
    found = None if files is None else input_fingerprint(files)
    return {"settings": fingerprint(settings), "files": found}


def reference(job: Job) -> Job | None:
    """The job with the last output before this one that its gate can go by; None where there is none."""
    for one in nights(job):
        kept = one.output_folder
        if one.output == job.output or kept is None:
            continue
        if OutputFolder(one.destination or kept).complete() is not None or (kept / BASELINE).exists():
            return one
    return None


def take_over_reference(job: Job, kept: Path, depth: int) -> None:
    """Take from the output of another day what a gate goes by, as it would stand in the folder itself.

    1. That output was accepted: its rankings, and what was accepted although it had not passed.
    2. It was not: what it was compared with itself.

    Args:
        job: the job.
        kept: where it is kept from now on.
        depth: documents of each query.

    Raises:
        InputError: the rankings can't be read.
        OutputError: it can't be written.
    """
    from batchrank.quality.gate import keep

    last = reference(job)
    if last is None or last.output_folder is None or (kept / BASELINE).exists():
        return
    if OutputFolder(last.destination or kept).accepted():
        keep(kept, last.destination, depth=depth)
        names = [ACCEPTED]
    else:
        names = [ACCEPTED, BASELINE]
    try:
        for name in names:
            if (last.output_folder / name).exists():
                shutil.copyfile(last.output_folder / name, kept / name)
    except OSError as error:
        raise OutputError(f"{kept / name} can't be written: {error.strerror or error}") from None
