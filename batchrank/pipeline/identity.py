"""Tells from what earlier runs left that there was a ledger, so that a lost one never makes a job pay all again.

What tells it: a summary of a run that paid, parts or dead letters of a run that did not come to its end, the status of
one that spent. A complete output that was made with another ledger tells nothing: it is replaced as a whole.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from batchrank.errors import LedgerError, OutputError
from batchrank.job.config import Job
from batchrank.ledger.ledger import Ledger
from batchrank.pipeline.output import folder_of
from batchrank.write import switch
from batchrank.write.claim import owner
from batchrank.write.reports import partial
from batchrank.write.writer import is_part

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
                yield f"{', '.join(found)} in {place} tell of a run that was under way"
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            yield f"{switch.SUMMARY} in {place}, which can't be read ({error}), tells of a run"
        else:
            if told is not None:
                yield told
    if ours and not (folder / switch.SUMMARY).exists() and (spent := _spent(folder)):
        yield f"{_STATUS} beside the output tells of a run that spent {spent:,} tokens"


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
        f"{switch.SUMMARY} beside the output tells of a run that used it ({totals['queries']:,} queries, "
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
