"""What a ledger holds, and what of it may be dropped."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from batchrank.errors import JobError
from batchrank.job.config import Job
from batchrank.ledger.entries import DOCUMENTS
from batchrank.ledger.ledger import Ledger
from batchrank.pipeline.checkpoint import scope
from batchrank.pipeline.tasks import beside


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a ledger holds over all its runs; tokens are as billed, or as predicted where no bill was seen."""

    answers: int
    documents: int
    tokens: int
    rejections: int
    malformed: int
    malformed_tokens: int
    ambiguous: int
    ambiguous_tokens: int


async def inventory(ledger: Ledger) -> Inventory:
    """Count what a ledger holds."""
    async with beside(ledger.serve):
        result: Inventory = await ledger.perform(_count)
        return result


async def compact_ledger(ledger: Ledger, job: Job) -> int:
    """Drop the answers that the job's last complete run did not use; how many.

    What the last run of another job in the same ledger used is kept too.

    Raises:
        JobError: the job has no complete run.
    """
    async with beside(ledger.serve):
        state = await ledger.load(f"run/{scope(job)}")
        if state is None or not state["complete"]:
            raise JobError(
                "--compact: the job's last run is not complete, so every answer may still be needed"
            )
        dropped: int = await ledger.perform(_drop)
    ledger.vacuum()
    return dropped


def _count(db: sqlite3.Connection) -> Inventory:
    sums = f"COALESCE(SUM({DOCUMENTS}), 0), COALESCE(SUM(COALESCE(tokens, predicted)), 0)"
    answers, documents, tokens = db.execute(f"SELECT COUNT(*), {sums} FROM answers").fetchone()  # noqa: S608 our own words
    (rejections,) = db.execute("SELECT COUNT(*) FROM rejections").fetchone()
    attempts = "SELECT COUNT(*), COALESCE(SUM(predicted), 0) FROM attempts WHERE kind = ?"
    malformed = db.execute(attempts, ("malformed",)).fetchone()
    ambiguous = db.execute(attempts, ("ambiguous",)).fetchone()
    return Inventory(
        answers, documents, tokens, rejections, malformed[0], malformed[1], ambiguous[0], ambiguous[1]
    )


def _drop(db: sqlite3.Connection) -> int:
    """Drop what was last used before the last run of any job: an answer knows only its latest use."""
    states: Iterable[tuple[bytes]] = db.execute("SELECT value FROM state WHERE name LIKE 'run/%'")
    oldest = min(orjson.loads(value)["number"] for (value,) in states)
    answers = db.execute("DELETE FROM answers WHERE used < ?", (oldest,)).rowcount
    return answers + db.execute("DELETE FROM rejections WHERE used < ?", (oldest,)).rowcount
