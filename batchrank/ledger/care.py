"""Tells what a ledger holds, and makes it smaller, because one that serves night after night grows for ever."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from batchrank.errors import JobError
from batchrank.ledger.ledger import Ledger
from batchrank.ledger.paid import DOCUMENTS, drop


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a ledger holds over all its runs; tokens are as billed, or as predicted where no bill was seen.

    Attributes:
        reusable: answers that can be used document by document.
        oldest: when the oldest answer was given, in seconds since 1970; None where no answer's time is known.
        undated: answers of unknown age.
        size: bytes of the file.
    """

    answers: int
    documents: int
    tokens: int
    reusable: int
    oldest: int | None
    undated: int
    rejections: int
    malformed: int
    malformed_tokens: int
    ambiguous: int
    ambiguous_tokens: int
    size: int


async def inventory(ledger: Ledger) -> Inventory:
    """Count what a ledger holds."""
    result: Inventory = await ledger.perform(_count)
    return result


def _count(db: sqlite3.Connection) -> Inventory:
    sums = f"""
        COUNT(*), COALESCE(SUM({DOCUMENTS}), 0), COALESCE(SUM(COALESCE(tokens, predicted)), 0), COUNT(contents),
        MIN(NULLIF(at, 0)), COUNT(*) - COUNT(NULLIF(at, 0))
    """
    answers = db.execute(f"SELECT {sums} FROM answers").fetchone()  # noqa: S608 our own words
    rejections = db.execute("SELECT COUNT(*) FROM rejections").fetchone()
    attempts = "SELECT COUNT(*), COALESCE(SUM(predicted), 0) FROM attempts WHERE kind = ?"
    malformed = db.execute(attempts, ("malformed",)).fetchone()
    ambiguous = db.execute(attempts, ("ambiguous",)).fetchone()
    facts = (*answers, *rejections, *malformed, *ambiguous, _size(db))
    return Inventory(*facts)


def _size(db: sqlite3.Connection) -> int:
    (pages,), (page,) = (db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    return int(pages * page)


@dataclass(frozen=True, slots=True)
class Compaction:
    """What was dropped of a ledger.

    Attributes:
        old: answers that were too old.
        undated: those of them whose age was unknown.
        unused: answers and rejections that no last run had used.
        before: bytes of the file before.
        after: bytes of it now.
    """

    old: int
    undated: int
    unused: int
    before: int
    after: int


async def compact(ledger: Ledger, scope: str, *, unused: bool = True, since: int = 0) -> Compaction:
    """Drop what is no longer needed, and give its room back to the disk. What was paid for it stays known.

    Args:
        ledger: the ledger.
        scope: the job's, as its state is kept.
        unused: drop what the job's last complete run did not use; what another job's last run used is kept.
        since: drop answers of before this time, in seconds since 1970, or of unknown age, whoever used them; 0: none.

    Raises:
        JobError: the job's last run is not complete.
    """
    state = await ledger.load(f"run/{scope}")
    if (state is None and unused) or (state is not None and not state["complete"]):
        raise JobError(
            "the job's last run is not complete, so every answer may still be needed: finish it first"
        )
    before = await ledger.perform(_size)
    undated, old = await ledger.perform(lambda db: _drop_old(db, since))
    dropped = await ledger.perform(_drop_unused) if unused else 0
    ledger.vacuum()
    return Compaction(old, undated, dropped, before, await ledger.perform(_size))


def _drop_old(db: sqlite3.Connection, since: int) -> tuple[int, int]:
    """Drop old answers; how many had no age, and how many there were in all."""
    (undated,) = db.execute("SELECT COUNT(*) FROM answers WHERE at = 0 AND ? > 0", (since,)).fetchone()
    return undated, drop(db, "at < ?", (since,))


def _drop_unused(db: sqlite3.Connection) -> int:
    """Drop what was last used before the last run of any job: an answer knows only its latest use."""
    states: Iterable[tuple[bytes]] = db.execute("SELECT value FROM state WHERE name LIKE 'run/%'")
    oldest = min(orjson.loads(value)["number"] for (value,) in states)
    rejections = db.execute("DELETE FROM rejections WHERE used < ?", (oldest,)).rowcount
    return drop(db, "used < ?", (oldest,)) + rejections
