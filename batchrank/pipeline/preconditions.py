"""What a run refuses to start on: it would overwrite its own input, or pay again for what was paid and is gone."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import orjson

from batchrank.errors import JobError, LedgerError
from batchrank.formats import storage
from batchrank.job import Job
from batchrank.ledger import Ledger
from batchrank.pipeline.outputs import folder_of
from batchrank.write import switch

_KEYS = ("path", "corpus", "queries")
_WRITTEN = ("ranking-00000", "queries-00000", "failed")
_SUFFIXES = (".jsonl", ".parquet", ".trec", ".tsv", ".json")
_OURS = re.compile(
    r"(ranking|queries)-\d{5,}\..*|failed(\.partial)?\.jsonl|summary\.json|status\.json|metrics\.prom|"
    r"gate-failed\.json|baseline\.sqlite|ledger\.sqlite.*"
)
_MAGIC = re.compile(r"[*?\[]")


def refuse(job: Job, files: Sequence[Sequence[Any]] | None, *, fresh: bool) -> None:
    """Refuse what can be told before the ledger is opened; it looks at files, so call it in a worker thread.

    Args:
        job: the job.
        files: the input files as ``read.facts`` gives them.
        fresh: paying again was asked for.

    Raises:
        JobError: the output would overwrite the input.
        LedgerError: the ledger is gone.
    """
    refuse_own_input(job, files)
    if not fresh:
        refuse_lost_ledger(job)


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
                    f"output.path: {folder} is where input.{key} ({path}) reads from, so the next run would take the "
                    f"rankings, dead letters and all for input; {advice}"
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


def refuse_lost_ledger(job: Job) -> None:
    """Refuse to pay again because the ledger is gone: the summary of the run before tells that there was one.

    Raises:
        LedgerError: it is gone; the message says what was paid, and what to do.
    """
    path = job.ledger_path
    if path is None or path.exists():
        return
    summary = _summary(job)
    if summary is not None and _used(summary, job):
        raise _lost(summary, f"{path}: the ledger is gone")


async def refuse_empty_ledger(job: Job, ledger: Ledger) -> None:
    """Refuse likewise where a ledger without an answer has taken its place.

    Raises:
        LedgerError: it holds nothing, although there was a run that paid.
    """
    summary = _summary(job)
    if summary is None or ledger.path is None or not _used(summary, job):
        return
    anything = "SELECT 1 FROM answers UNION ALL SELECT 1 FROM attempts LIMIT 1"
    if await ledger.perform(lambda db: db.execute(anything).fetchone()) is None:
        raise _lost(summary, f"{ledger.path}: the ledger holds nothing")


def _summary(job: Job) -> dict[str, Any] | None:
    """The summary of the last run into the job's folder, if its answers were paid for."""
    folder = None if job.output is None else folder_of(job)
    try:
        if folder is None:
            return None
        data: dict[str, Any] = orjson.loads(switch.newest(folder, switch.SUMMARY).read_bytes())
        paid = data["totals"]["requests"] or data["spend"]["tokens"]
        return data if paid and data["job"]["output"] else None
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return None


def _used(summary: dict[str, Any], job: Job) -> bool:
    """Whether the run that the summary tells of had the ledger that the job has now."""
    before = summary["job"].get("ledger")
    if before is None or job.ledger is None:
        return bool(before == job.ledger)
    return bool(before == job.ledger) or _same(Path(before), Path(job.ledger))


def _lost(summary: dict[str, Any], what: str) -> LedgerError:
    totals, spend = summary["totals"], summary.get("spend", {})
    price = "" if not spend.get("cost") else f", {spend['cost']:,.4f} {spend['currency']}"
    return LedgerError(
        f"{what}, but {switch.SUMMARY} beside the output tells of a run that used it ({totals['queries']:,} queries, "
        f"{totals['tokens']:,} tokens{price}): all of that would be paid for again. Put the ledger back, or name it "
        "with ledger:; to start without it all the same, run with --fresh"
    )
