"""Checks that a job can run before anything is sent or written, by the same steps for ``run`` and ``check``.

Both go through the steps of ``Preconditions``, in one order, so that they can't disagree on what a job ends with.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio

from batchrank.errors import JobError, LedgerError, MissingExtraError, OutputError, install_line
from batchrank.io import storage
from batchrank.io.address import Address, Where, located
from batchrank.io.objects import Store
from batchrank.job.config import Job
from batchrank.pipeline.assemble import opened_ledger, refuse_unknown_cost, sharder
from batchrank.pipeline.endpoint import endpoint
from batchrank.pipeline.nights import latest
from batchrank.pipeline.parts import refuse_undivided
from batchrank.pipeline.prepare import Preparer
from batchrank.quality.gate import judged
from batchrank.read.layout import facts, notes
from batchrank.shard.chunks import Sharder
from batchrank.write.folder import DECIDED, NEXT, STATUS, SUMMARY, WRITTEN, OutputFolder, is_part, is_written
from batchrank.write.switch import refuse_claimed, refuse_unwritable

_KEYS = ("path", "corpus", "queries")
_MAGIC = re.compile(r"[*?\[]")


class Preconditions:
    """All that must hold before a job's first request. It only looks: nothing is made, changed or asked of the API.

    Whether a store lets this job write is seen only by writing: an object is put there, and removed.

    Args:
        job: the job.
        fresh: whether the run starts over, so that a lost ledger is no stop.

    Attributes:
        files: the input files' names, sizes and times; None where they can't be told (standard input).
        notes: what the input's paths name and isn't read.
    """

    def __init__(self, job: Job, *, fresh: bool = False) -> None:
        self.job = job
        self.files: list[list[Any]] | None = None
        self.notes: list[str] = []
        self._fresh = fresh

    @cached_property
    def sharder(self) -> Sharder:
        """What shards the job's queries."""
        return sharder(self.job)

    @cached_property
    def preparer(self) -> Preparer:
        """What prepares them."""
        return Preparer(self.job, self.sharder)

    def require(self) -> None:
        """See that all of it holds.

        Raises:
            BatchrankError: the first thing that doesn't; the message says what to do.
        """
        for step in self.steps().values():
            step()

    def steps(self) -> dict[str, Callable[[], object]]:
        """What is looked at, in this order, by the name that ``check`` gives it; each raises what a run ends with."""
        return {
            "key": self.job.api_keys,
            "engine": self._engine,
            "tokens": lambda: self.sharder,
            "prepare": lambda: self.preparer,
            "request": lambda: [endpoint(self.job, url, None) for url in self.job.urls],
            "budget": lambda: refuse_unknown_cost(self.job),
            "input": self._files,
            "gate": lambda: None if self.job.gate is None else judged(self.job.gate),
            "output": self._output,
            "ledger": lambda: None if self._fresh else refuse_lost_ledger(self.job),
        }

    def _engine(self) -> None:
        if self.job.engine.ray is not None and find_spec("ray") is None:
            raise MissingExtraError(f"engine.ray needs Ray: {install_line('ray')}")

    def _files(self) -> None:
        assert self.job.input is not None
        self.files = facts(self.job.input)
        self.notes = notes(self.job.input)
        refuse_own_input(self.job, self.files)

    def _output(self) -> None:
        refuse_undivided(self.job)
        folder, target = self.job.output_folder, self.job.destination
        if folder is not None:
            refuse_unwritable(folder, OutputError)
            refuse_claimed(folder)
        if isinstance(target, Address):
            Store(target).probe()


def look_into_ledger(job: Job) -> None:
    """See beforehand what a run sees of the ledger, also once it has opened it.

    Raises:
        LedgerError: it can't be made, opened or written, or holds nothing of a run that paid.
        OutputError: another ledger's run left its output unfinished.
    """
    refuse_lost_ledger(job)
    path = job.ledger_path
    runs: int | None = None
    identity: str | None = None
    if path is not None and path.exists():
        if not os.access(path, os.W_OK):
            raise LedgerError(f"{path} can't be written by this user")
        if path.stat().st_size:  # an empty file would be made a ledger by opening it
            runs, identity = anyio.run(_known, path)
        refuse_empty_ledger(job, runs)
    elif path is not None:
        refuse_unwritable(path.parent, LedgerError)
    folder = job.destination
    if folder is None or (folder / NEXT / DECIDED).exists():
        return
    there = OutputFolder(folder)
    refuse_unfinished(there.next.path if there.spared() else folder, there.owner(), identity)


async def _known(path: Path) -> tuple[int | None, str | None]:
    """How many runs a ledger knows of, and what tells it from others."""
    async with opened_ledger(path) as ledger:
        return await ledger.load("runs"), await ledger.load("id")


def refuse_own_input(job: Job, files: Sequence[Sequence[Any]] | None) -> None:
    """Refuse an output folder that the job reads from.

    1. The folder itself is an input, or a pattern would match what is written: the next run would rank the output.
    2. An input file has a name that the run writes to, as when another job's output is reranked: it would be replaced.

    Args:
        job: the job.
        files: the input files as ``read.facts`` gives them.

    Raises:
        JobError: it does; the message says which key to change.
    """
    folder = job.destination
    if folder is None or job.input is None:
        return
    advice = "set output.path to another folder"
    for key in _KEYS:
        for path in getattr(job.input, key) or ():
            if path != "-" and _reads(located(path), folder):
                raise JobError(
                    f"output.path: {folder} is where input.{key} ({storage.shown(path)}) reads from, so the next run "
                    f"would read its own rankings and dead letters as input; {advice}"
                )
    for name, *_ in files or ():
        file = located(name)
        if is_written(file.name) and _same(file.parent, folder):
            raise JobError(
                f"output.path: the run would overwrite {file}, which is a part of its own input; {advice}, or move the "
                "input elsewhere"
            )


def _reads(path: Where, folder: Where) -> bool:
    """Whether a path of the input names the output folder, or what will be written to it."""
    if _same(path, folder):  # a file is no output folder, and told as such
        return isinstance(folder, Address) or not folder.is_file()
    if not _MAGIC.search(path.name) or _MAGIC.search(str(path.parent)) or not _same(path.parent, folder):
        return False
    return any(fnmatchcase(name, path.name) for name in WRITTEN)


def _same(one: Where, other: Where) -> bool:
    if isinstance(one, Address) or isinstance(other, Address):
        return one == other
    return one.resolve() == other.resolve()


def refuse_lost_ledger(job: Job) -> None:
    """Refuse to pay again because the ledger is gone; it looks at files, so call it in a worker thread.

    Raises:
        LedgerError: it is gone; the message says what tells of it, and what to do.
    """
    path = job.ledger_path
    if path is not None and not path.exists():
        _refuse_paid(job, f"{path}: the ledger is gone")


def refuse_empty_ledger(job: Job, runs: int | None) -> None:
    """Refuse likewise where a ledger that knows of no run has taken its place.

    Args:
        job: the job.
        runs: the ledger's number of runs, which is noted before a run writes or sends anything; None for none.

    Raises:
        LedgerError: it holds nothing, although there was a run that paid.
    """
    if runs is None and job.ledger_path is not None:
        _refuse_paid(job, f"{job.ledger_path}: the ledger holds nothing")


def refuse_unfinished(written: Where, record: dict[str, Any] | None, identity: str | None) -> None:
    """Refuse to write over what another ledger's run left unfinished.

    Args:
        written: where this run writes.
        record: what the last job that had the folder noted.
        identity: what tells this job's ledger.

    Raises:
        OutputError: another job's parts or dead letters are there.
    """
    if record is None or record.get("ledger_id") == identity:
        return
    found = OutputFolder(written).unfinished()
    if (written / SUMMARY).exists():  # that of a run that stopped; its dead letters alone are nothing to keep
        found = [name for name in found if is_part(name)]
    if found:
        raise OutputError(
            f"{written}: {', '.join(found)} there belong to another job, {record.get('job')}, which isn't complete and "
            f"keeps its answers in {record.get('ledger')}. Run that one to its end, or choose another output.path; to "
            "replace them all the same, run with --fresh"
        )


def _refuse_paid(job: Job, what: str) -> None:
    """Refuse to go on without a ledger's answers where anything tells that there were some."""
    last = latest(job)  # tonight's folder, where each night has one, isn't there yet
    places = dict.fromkeys((job.output_folder, job.destination, last.output_folder, last.destination))
    found = next((told for place in places if place is not None for told in _traces(job, place)), None)
    if found is not None:
        raise LedgerError(
            f"{what}, but {found}: all of that would be paid for again, and no cap would count it. Put the ledger and "
            "its -wal back, or name it with ledger:; to start without it all the same, run with --fresh"
        )


def _traces(job: Job, folder: Where) -> Iterator[str]:
    there = OutputFolder(folder)
    record = there.owner()
    ours = record is None or _used(record.get("ledger"), str(job.ledger_path), folder)
    for place in (there, there.next):
        try:
            told = _paid(place.summary(links=False), job, folder)
        except OSError:
            if ours and (found := place.unfinished()):
                yield f"{', '.join(found)} in {place.path} show that a run was under way"
        except (ValueError, KeyError, TypeError) as error:
            yield f"{SUMMARY} in {place.path}, which can't be read ({error}), shows that there was a run"
        else:
            if told is not None:
                yield told
    if ours and not (folder / SUMMARY).exists() and (spent := _spent(there)):
        yield f"{STATUS} beside the output shows that a run spent {spent:,} tokens"


def _paid(summary: dict[str, Any], job: Job, folder: Where) -> str | None:
    """What a summary tells of answers that were paid for and kept in the ledger that the job has now."""
    totals, spend = summary["totals"], summary["spend"]
    if not (totals["requests"] or spend["tokens"]) or not summary["job"]["output"]:
        return None
    if not _used(summary["job"].get("ledger"), job.ledger, folder):
        return None
    price = f", {spend['cost']:,.4f} {spend['currency']}" if spend.get("cost") else ""
    return (
        f"{SUMMARY} beside the output shows that a run used it ({totals['queries']:,} queries, "
        f"{totals['tokens']:,} tokens{price})"
    )


def _used(before: str | None, now: str | None, folder: Where) -> bool:
    """Whether two names are one ledger's; what is beside an output at an address may come from another machine."""
    if before is None or now is None:
        return before == now
    if isinstance(folder, Address):
        return Path(before).name == Path(now).name
    return before == now or Path(before).resolve() == Path(now).resolve()


def _spent(folder: OutputFolder) -> int:
    try:
        return int(folder.status(links=False)["progress"]["tokens"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
