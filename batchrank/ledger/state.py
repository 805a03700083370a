"""Keeps what a run needs to know of itself: what it spent, what its earlier processes left, a line about every run."""

import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson

from batchrank.ledger.database import look, translated
from batchrank.ledger.entries import attempt
from batchrank.ledger.paid import totals
from batchrank.ledger.rows import ROWS, checksum
from batchrank.models import SEARCH_DOCUMENTS

Per = Literal["run", "day", "total"]
"""What spending is summed up over: one run, one day, or all that the ledger ever paid."""
wall = time.time
"""What tells the time, in seconds since 1970."""


def dated(at: float) -> str:
    """A time in seconds since 1970, in UTC, for people and programs."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Searches:
    """What one run has taken from the account in searches, of a hundred documents each if none is long.

    Attributes:
        billed: searches billed, those of probes included.
        unbilled: expected searches and documents of answers that named none.
        ratio: the most billed for a request, as a multiple of what was expected; None before any bill.
        hidden: the most searches a document billed beyond what was expected; None before any bill.
    """

    billed: int = 0
    unbilled: tuple[int, int] = (0, 0)
    ratio: float | None = None
    hidden: float | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What one run, one day or all runs have taken from the account so far.

    Attributes:
        answers: answers received.
        tokens: tokens billed for them, and for probes.
        unbilled: predicted tokens and documents of answers that named no usage.
        lost: requests that may have been billed without a result (an unusable answer, or none seen): their predicted
            tokens and documents, with how many there were.
        probes: probes answered.
        ratio: the most that was billed for a request, as a multiple of its prediction; None before any bill.
        hidden: the most tokens a document billed beyond the prediction; None before any bill.
        searches: the same in searches, where those are billed.
    """

    answers: int
    tokens: int
    unbilled: tuple[int, int] = (0, 0)
    lost: dict[tuple[int, int], int] = field(default_factory=dict)
    probes: int = 0
    ratio: float | None = None
    hidden: float | None = None
    searches: "Searches" = field(default_factory=lambda: Searches())

    @property
    def requests(self) -> int:
        """Requests that were, or may have been, billed."""
        return self.answers + self.probes + sum(self.lost.values())


def next_epoch(db: sqlite3.Connection, run: int) -> int:
    """The epoch of a process that goes on with, or begins, a run.

    Epochs count the processes that used a ledger; in one of older versions, which counted runs, they go on from those.
    """
    return max((load(db, "epoch") or 0) + 1, run)


def begin(db: sqlite3.Connection, run: int) -> int:
    """A new epoch; what was in flight when the processes before ended becomes ambiguous, on the day it was sent."""
    epoch = next_epoch(db, run)
    save(db, "epoch", epoch)
    for key, *facts in db.execute(f"SELECT {ROWS['sent']} FROM sent").fetchall():  # noqa: S608 our own words
        attempt(db, (key, "ambiguous", None, "killed", "in flight when the process ended", "", *facts))
    return epoch


def spent(db: sqlite3.Connection, per: Per, run: int, day: int) -> Spent:
    """What was spent in a run, on a day, or in all."""
    wanted: dict[Per, tuple[str, tuple[int, ...]]] = {
        "run": ("run = ?", (run,)), "day": ("day = ?", (day,)), "total": ("TRUE", ()),
    }  # fmt: skip
    where, given = wanted[per]
    alike = (
        f"SELECT predicted, documents, COUNT(*) FROM attempts WHERE {where} AND kind != 'probe' GROUP BY 1, 2"  # noqa: S608 our own words
    )
    lost = {(predicted, documents): count for predicted, documents, count in db.execute(alike, given)}
    begun = f"(documents + {SEARCH_DOCUMENTS - 1}) / {SEARCH_DOCUMENTS}"
    sums = f"COUNT(*), COALESCE(SUM(predicted), 0), COALESCE(SUM({begun}), 0)"
    probed = f"SELECT {sums} FROM attempts WHERE {where} AND kind = 'probe'"  # noqa: S608 our own words
    probes, probe_tokens, probe_searches = db.execute(probed, given).fetchone()
    answers, tokens, predicted, documents, named, expected, unnamed, *worst = totals(db, where, given)
    ratio, hidden, most, more = worst
    searches = Searches(named + probe_searches, (expected, unnamed), most, more)
    return Spent(
        answers, tokens + probe_tokens, (predicted, documents), lost, probes, ratio, hidden, searches
    )


def load(db: sqlite3.Connection, name: str) -> Any:
    """A piece of the run's state, None if absent."""
    row = db.execute("SELECT value, digest FROM state WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    if checksum(name, row[0]) != row[1]:
        raise sqlite3.DatabaseError(f"the run's state ({name}) is corrupt: it doesn't match its checksum")
    return orjson.loads(row[0])


def load_all(db: sqlite3.Connection, prefix: str) -> dict[str, Any]:
    """All pieces of state whose names begin alike, by the rest of their names."""
    rows = db.execute("SELECT name FROM state WHERE SUBSTR(name, 1, ?) = ?", (len(prefix), prefix)).fetchall()
    return {name.removeprefix(prefix): load(db, name) for (name,) in rows}


def save(db: sqlite3.Connection, name: str, value: Any) -> None:
    """Keep a piece of the run's state; None drops it."""
    if value is None:
        db.execute("DELETE FROM state WHERE name = ?", (name,))
        return
    data = orjson.dumps(value)
    db.execute("INSERT OR REPLACE INTO state VALUES (?,?,?)", (name, data, checksum(name, data)))


def identity(db: sqlite3.Connection) -> str:
    """What tells a ledger, and copies of it, from all others; made once."""
    if (known := load(db, "id")) is None:
        known = uuid.uuid4().hex
        save(db, "id", known)
    return str(known)


HISTORY = "history/"
"""What the names of lines about runs begin with, which stay when outputs are replaced and answers dropped."""
Line = dict[str, Any]
"""What is known of a run, as plain data."""


def forget(db: sqlite3.Connection) -> None:
    """Drop everything but what tells the ledger from others, and what runs there were."""
    for table in ("answers", "rejections", "attempts", "sent", "paid", "servers"):
        db.execute(f"DELETE FROM {table}")  # noqa: S608 our own words
    db.execute("DELETE FROM state WHERE name != 'id' AND name NOT GLOB ?", (f"{HISTORY}*",))


def begin_line(db: sqlite3.Connection, line: Line) -> str:
    """Note that a run has begun; the name to ``save`` by what came of it, as nobody does of a run that is killed."""
    last = db.execute("SELECT MAX(name) FROM state WHERE name GLOB ?", (f"{HISTORY}*",)).fetchone()[0]
    number = 1 + (int(last.removeprefix(HISTORY)) if last else 0)
    name = f"{HISTORY}{number:010d}"
    save(db, name, line)
    return name


def lines(path: Path) -> list[Line]:
    """The lines of a ledger, the oldest first. A run may be using it; its own line may be missing then.

    Raises:
        LedgerError: it can't be read, or a line is damaged.
    """
    with translated(path, "read"), closing(_looked_at(path)) as db:
        return list(_lines(db))


def _lines(db: sqlite3.Connection) -> Iterator[Line]:
    names = db.execute("SELECT name FROM state WHERE name GLOB ? ORDER BY name", (f"{HISTORY}*",))
    for (name,) in names.fetchall():
        yield load(db, name)


def _looked_at(path: Path) -> sqlite3.Connection:
    """The ledger; while a run has it locked, what is in its main file, which lacks the last seconds.

    Each line has a checksum, so what is half written while it is read is noticed.
    """
    try:
        return look(path)
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    return sqlite3.connect(address, uri=True, isolation_level=None)
