"""Refuses runs that would spoil their input or pay anew for a lost ledger; tells what ``--only-failed`` may ask."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

import orjson

from batchrank.data import Query
from batchrank.errors import JobError, LedgerError, OutputError
from batchrank.io import storage
from batchrank.job.config import Job
from batchrank.ledger.ledger import Ledger
from batchrank.outcomes import Failure
from batchrank.pipeline.output import folder_of
from batchrank.write import switch
from batchrank.write.reports import partial
from batchrank.write.switch import LETTERS, SUMMARY, newest, owner
from batchrank.write.writer import is_part

_KEYS = ("path", "corpus", "queries")
_WRITTEN = ("ranking-00000", "queries-00000", "failed")
_SUFFIXES = (".jsonl", ".parquet", ".trec", ".tsv", ".json")
_OURS = re.compile(
    r"(ranking|queries)-\d{5,}\..*|failed(\.partial)?\.jsonl|summary\.json|status\.json|metrics\.prom|"
    r"gate-failed\.json|baseline\.sqlite|ledger\.sqlite.*"
)
_MAGIC = re.compile(r"[*?\[]")


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
    folder = folder_of(job)
    if folder is None or job.input is None:
        return
    advice = "set output.path to another folder"
    for key in _KEYS:
        for path in getattr(job.input, key) or ():
            if not storage.is_remote(path) and path != "-" and _reads(Path(path).expanduser(), folder):
                raise JobError(
                    f"output.path: {folder} is where input.{key} ({path}) reads from, so the next run would "
                    f"read its own rankings and dead letters as input; {advice}"
                )
    for name, *_ in files or ():
        file = Path(name)
        if not storage.is_remote(name) and _OURS.fullmatch(file.name) and _same(file.parent, folder):
            raise JobError(
                f"output.path: the run would overwrite {file}, which is a part of its own input; {advice}, or move the "
                "input elsewhere"
            )


def _reads(path: Path, folder: Path) -> bool:
    """Whether a path of the input names the output folder, or what will be written to it."""
    if _same(path, folder):
        return not folder.is_file()  # which is no output folder, and told as such
    if not _MAGIC.search(path.name) or _MAGIC.search(str(path.parent)) or not _same(path.parent, folder):
        return False
    return any(fnmatchcase(stem + suffix, path.name) for stem in _WRITTEN for suffix in _SUFFIXES)


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


_STATUS = "status.json"


def refuse_lost_ledger(job: Job) -> None:
    """Refuse to pay again because the ledger is gone; it looks at files, so call it in a worker thread.

    Raises:
        LedgerError: it is gone; the message says what tells of it, and what to do.
    """
    path = job.ledger_path
    if path is None or path.exists():
        return
    if (found := _evidence(job)) is not None:
        raise _lost(found, f"{path}: the ledger is gone")


async def refuse_empty_ledger(job: Job, ledger: Ledger) -> None:
    """Refuse likewise where a ledger that knows of no run has taken its place.

    Raises:
        LedgerError: it holds nothing, although there was a run that paid.
    """
    if ledger.path is None or (found := _evidence(job)) is None:
        return
    if await ledger.load("runs") is None:  # noted before a run writes or sends anything
        raise _lost(found, f"{ledger.path}: the ledger holds nothing")


def refuse_unfinished(written: Path, record: dict[str, Any] | None, identity: str) -> None:
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
    found = _unfinished(written)
    if (
        written / switch.SUMMARY
    ).exists():  # that of a run that stopped; its dead letters alone are nothing to keep
        found = [name for name in found if is_part(name)]
    if found:
        raise OutputError(
            f"{written}: {', '.join(found)} there belong to another job, {record.get('job')}, which isn't complete and "
            f"keeps its answers in {record.get('ledger')}. Run that one to its end, or choose another output.path; to "
            "replace them all the same, run with --fresh"
        )


def _evidence(job: Job) -> str | None:
    """What tells that there was a ledger; None when nothing does."""
    folder = None if job.output is None else folder_of(job)
    return None if folder is None else next(_traces(job, folder), None)


def _traces(job: Job, folder: Path) -> Iterator[str]:
    record = owner(folder)
    ours = record is None or _used(record.get("ledger"), str(job.ledger_path))
    for place in (folder, folder / switch.NEXT):
        try:
            summary = orjson.loads(_read(place / switch.SUMMARY))
            told = _paid(summary, job)
        except OSError:
            if ours and (found := _unfinished(place)):
                yield f"{', '.join(found)} in {place} show that a run was under way"
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            yield f"{switch.SUMMARY} in {place}, which can't be read ({error}), shows that there was a run"
        else:
            if told is not None:
                yield told
    if ours and not (folder / switch.SUMMARY).exists() and (spent := _spent(folder)):
        yield f"{_STATUS} beside the output shows that a run spent {spent:,} tokens"


def _read(path: Path) -> bytes:
    """A file that a run wrote: never a link, which writing will refuse."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        return file.read()


def _unfinished(place: Path) -> list[str]:
    """A few names of files that only a run that is not complete leaves."""
    found = place.iterdir() if place.is_dir() else ()
    names = sorted(path.name for path in found if not path.is_symlink())
    letters = partial(Path(switch.LETTERS)).name
    return [name for name in names if name == letters or (is_part(name) and name[0] != ".")][:3]


def _paid(summary: dict[str, Any], job: Job) -> str | None:
    """What a summary tells of answers that were paid for and kept in the ledger that the job has now."""
    totals, spend = summary["totals"], summary["spend"]
    if not (totals["requests"] or spend["tokens"]) or not summary["job"]["output"]:
        return None
    if not _used(summary["job"].get("ledger"), job.ledger):
        return None
    price = f", {spend['cost']:,.4f} {spend['currency']}" if spend.get("cost") else ""
    return (
        f"{switch.SUMMARY} beside the output shows that a run used it ({totals['queries']:,} queries, "
        f"{totals['tokens']:,} tokens{price})"
    )


def _used(before: str | None, now: str | None) -> bool:
    if before is None or now is None:
        return before == now
    return before == now or Path(before).resolve() == Path(now).resolve()


def _spent(folder: Path) -> int:
    try:
        return int(orjson.loads(_read(folder / _STATUS))["progress"]["tokens"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return 0


def _lost(found: str, what: str) -> LedgerError:
    return LedgerError(
        f"{what}, but {found}: all of that would be paid for again, and no cap would count it. Put the ledger and its "
        "-wal back, or name it with ledger:; to start without it all the same, run with --fresh"
    )


_UNITS = ("line", "row", "query")


class OnlyFailed:
    """Tells the queries that failed in the run before from those whose answers the ledger must have.

    Args:
        ids: ids of queries that failed.
        places: places of records that could not be read, in case they were mended.
        ranked: how many queries the run before ranked.
    """

    def __init__(self, ids: frozenset[str], places: frozenset[str], ranked: int) -> None:
        self._ids = ids
        self._places = places
        self._ranked = ranked

    @classmethod
    def of(cls, job: Job) -> Self:
        """Read the dead letters of a job.

        Raises:
            JobError: there are none, or they can't be read.
        """
        path = newest(folder_of(job) or Path(), LETTERS)
        try:
            letters = [orjson.loads(line) for line in path.read_bytes().splitlines() if line]
        except FileNotFoundError:
            raise JobError(f"--only-failed: {path} does not exist: run the job without it first") from None
        except (OSError, orjson.JSONDecodeError) as error:
            raise JobError(f"--only-failed: {path} can't be read: {error}") from None
        ids = frozenset(letter["query_id"] for letter in letters if letter["query_id"] is not None)
        return cls(ids, frozenset(_place(letter) for letter in letters), _ranked(job))

    def __call__(self, query: Query) -> bool:
        """Whether requests may be sent for this query."""
        return query.id in self._ids or str(query.place) in self._places

    def fewer(self, ranked: int) -> JobError | None:
        """What to stop with where fewer queries are ranked than before; None where none would be missing."""
        if ranked >= self._ranked:
            return None
        return JobError(
            f"--only-failed: {ranked:,} queries are ranked now and {self._ranked:,} were before, because the input has "
            "changed since; the others would be missing from the output, which stays as it is: run the job without "
            "--only-failed"
        )


def _ranked(job: Job) -> int:
    """How many queries the last complete run ranked; 0 where that can't be told."""
    try:
        summary = orjson.loads(newest(folder_of(job) or Path(), SUMMARY).read_bytes())
        return int(summary["totals"]["queries"]) if summary["complete"] else 0
    except (OSError, ValueError, TypeError, KeyError):
        return 0


def _place(letter: dict[str, Any]) -> str:
    """Where a dead letter's query stands, as ``Place`` tells it: the unit is the key of its number."""
    return next((f"{letter['file']}, {unit} {letter[unit]}" for unit in _UNITS if unit in letter), "")


def refuse_unasked(results: Iterable[object]) -> None:
    """Stop a run that would lose a ranking: a query that did not fail before, and that the ledger can't answer.

    Raises:
        JobError: one of the results is the failure of such a query; the earlier output stays.
    """
    failure = next((r for r in results if isinstance(r, Failure) and r.cause == "not-asked"), None)
    if failure is not None:
        raise JobError(
            f"--only-failed: query {failure.query_id!r} ({failure.place}) is not in failed.jsonl, and the ledger lacks "
            "answers for it, because the input or the job has changed since; it would be missing from the output, "
            "which stays as it is: run the job without --only-failed"
        )
