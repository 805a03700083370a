"""What the ledger holds, and how its rows are read and written; every function runs inside a transaction."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import orjson

from batchrank.data import Answer, Floats, Rejection
from batchrank.ledger.checks import ROWS, answer_checksum, checksum
from batchrank.models import SEARCH_DOCUMENTS

Kind = Literal["malformed", "ambiguous", "probe"]
"""An attempt that gave no result: an answer of no use, an unknown fate; or a probe, billed as its ``predicted``
says."""
_Row = TypeVar("_Row")
_ROWS = 500
DOCUMENTS = "(LENGTH(scores) - 1) / CASE SUBSTR(scores, 1, 1) WHEN x'34' THEN 4 ELSE 8 END"
"""SQL for the number of documents that an answer scored."""
_BILLED = f"""
SELECT COUNT(*), COALESCE(SUM(tokens), 0), COALESCE(SUM(CASE WHEN tokens IS NULL THEN predicted END), 0),
COALESCE(SUM(CASE WHEN tokens IS NULL THEN {DOCUMENTS} END), 0), MAX(CAST(tokens AS REAL) / MAX(predicted, 1)),
MAX(CAST(tokens - predicted AS REAL) / ({DOCUMENTS})) FROM answers
"""  # noqa: S608 our own words
_EXPECTED = f"(({DOCUMENTS} + {SEARCH_DOCUMENTS - 1}) / {SEARCH_DOCUMENTS})"
_SEARCHES = f"""
SELECT COALESCE(SUM(searches), 0), COALESCE(SUM(CASE WHEN searches IS NULL THEN {_EXPECTED} END), 0),
COALESCE(SUM(CASE WHEN searches IS NULL THEN {DOCUMENTS} END), 0), MAX(CAST(searches AS REAL) / {_EXPECTED}),
MAX(CAST(searches - {_EXPECTED} AS REAL) / ({DOCUMENTS})) FROM answers
"""  # noqa: S608 our own words


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about a request.

    Attributes:
        outcome: its answer, or the rejection that decided something.
        earlier: whether an earlier run asked, as opposed to an earlier process of this one.
    """

    outcome: Answer | Rejection
    earlier: bool


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


def find(db: sqlite3.Connection, keys: Sequence[bytes], run: int) -> dict[bytes, Known]:
    """What is known about requests, by key; what is found counts as used by the run from now on."""
    found: dict[bytes, Known] = {}
    for some in _pieces(keys):
        _answers(db, some, run, found)
        if left := [key for key in some if key not in found]:
            _rejections(db, left, run, found)
    return found


def _answers(db: sqlite3.Connection, keys: Sequence[bytes], run: int, found: dict[bytes, Known]) -> None:
    columns = "key, scores, tokens, predicted, request_id, used, run, day, digest, searches"
    wanted = f"SELECT {columns} FROM answers WHERE key IN {_marks(len(keys))}"  # noqa: S608 question marks
    stale = []
    for row in db.execute(wanted, keys).fetchall():
        key, scores, tokens, predicted, request_id, used, asked, day, digest, searches = row
        if digest != answer_checksum(key, scores, tokens, predicted, request_id, asked, day, searches):
            raise sqlite3.DatabaseError("an answer is corrupt: it doesn't match its checksum")
        if used != run:
            stale.append(key)
        found[key] = Known(Answer(unpack(scores), tokens, request_id, searches), asked != run)
    _use(db, "answers", stale, run)


def _rejections(db: sqlite3.Connection, keys: Sequence[bytes], run: int, found: dict[bytes, Known]) -> None:
    columns = "key, status, code, message, request_id, run, used, digest"
    wanted = f"SELECT {columns} FROM rejections WHERE key IN {_marks(len(keys))}"  # noqa: S608 question marks
    stale = []
    for row in db.execute(wanted, keys).fetchall():
        key, status, code, message, request_id, asked, used, digest = row
        if digest != checksum(*row[:-2]):
            raise sqlite3.DatabaseError("a rejection is corrupt: it doesn't match its checksum")
        if used != run:
            stale.append(key)
        found[key] = Known(Rejection(status, code, message, None, request_id), asked != run)
    _use(db, "rejections", stale, run)


def _use(db: sqlite3.Connection, table: str, keys: Sequence[bytes], run: int) -> None:
    if keys:
        db.execute(f"UPDATE {table} SET used = ? WHERE key IN {_marks(len(keys))}", (run, *keys))  # noqa: S608 our words


def store(db: sqlite3.Connection, answers: Sequence[tuple[bytes, Answer, int]], run: int, day: int) -> None:
    """Keep answers, each with its request's key and the tokens predicted for it."""
    for some in _pieces(answers):
        row: list[Any] = []
        for key, answer, predicted in some:
            scores = pack(answer.values)
            facts = (key, scores, answer.tokens, predicted, answer.request_id, run)
            digest = answer_checksum(*facts, day, answer.searches)
            row += (*facts, run, digest, answer.searches, day)
        db.execute(f"INSERT OR REPLACE INTO answers VALUES {','.join([_marks(10)] * len(some))}", row)  # noqa: S608 question marks
        unsend(db, [key for key, _, _ in some])


def reject(db: sqlite3.Connection, key: bytes, rejection: Rejection, run: int) -> None:
    """Keep a rejection that decides something."""
    facts = (key, rejection.status, rejection.code, rejection.message, rejection.request_id, run)
    db.execute("INSERT OR REPLACE INTO rejections VALUES (?,?,?,?,?,?,?,?)", (*facts, run, checksum(*facts)))
    unsend(db, [key])


def send(db: sqlite3.Connection, requests: Sequence[tuple[bytes, int, int]], run: int, day: int) -> None:
    """Requests are about to be sent: their keys, their predicted tokens, and how many documents they hold."""
    for some in _pieces(requests):
        rows = [(key, tokens, run, documents, day) for key, tokens, documents in some]
        values = [value for row in rows for value in (*row, checksum(*row))]
        db.execute(f"INSERT OR REPLACE INTO sent VALUES {','.join([_marks(6)] * len(some))}", values)  # noqa: S608 question marks


def unsend(db: sqlite3.Connection, keys: Sequence[bytes]) -> None:
    """The requests' fate is known."""
    for some in _pieces(keys):
        db.execute(f"DELETE FROM sent WHERE key IN {_marks(len(some))}", some)  # noqa: S608 question marks


def _pieces(rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    """One statement for many rows is many times as fast as one each, but takes so many values at most."""
    for first in range(0, len(rows), _ROWS):
        yield rows[first : first + _ROWS]


def _marks(count: int) -> str:
    return f"({','.join('?' * count)})"


def attempt(db: sqlite3.Connection, row: tuple[Any, ...], day: int) -> None:
    """Keep an attempt that gave nothing."""
    db.execute("INSERT INTO attempts VALUES (?,?,?,?,?,?,?,?,?,?,?)", (*row, day, checksum(*row, day)))
    unsend(db, [row[0]])


def begin(db: sqlite3.Connection) -> None:
    """What was in flight when the processes before ended becomes ambiguous, on the day that it was sent."""
    for key, predicted, run, documents, day in db.execute(f"SELECT {ROWS['sent']} FROM sent").fetchall():  # noqa: S608 our own words
        killed = (key, "ambiguous", None, "killed", "in flight when the process ended", "")
        attempt(db, (*killed, predicted, run, documents), day)


def spent(db: sqlite3.Connection, where: str = "TRUE", value: int | None = None) -> Spent:
    """What was spent in all, or where a column has a value: ``run = ?``, ``day = ?``."""
    given = () if value is None else (value,)
    alike = (
        f"SELECT predicted, documents, COUNT(*) FROM attempts WHERE {where} AND kind != 'probe' GROUP BY 1, 2"  # noqa: S608 our own words
    )
    lost = {(predicted, documents): count for predicted, documents, count in db.execute(alike, given)}
    begun = f"(documents + {SEARCH_DOCUMENTS - 1}) / {SEARCH_DOCUMENTS}"
    sums = f"COUNT(*), COALESCE(SUM(predicted), 0), COALESCE(SUM({begun}), 0)"
    probed = f"SELECT {sums} FROM attempts WHERE {where} AND kind = 'probe'"  # noqa: S608 our own words
    probes, probe_tokens, probe_searches = db.execute(probed, given).fetchone()
    billed = db.execute(f"{_BILLED} WHERE {where}", given).fetchone()
    answers, tokens, predicted, documents, ratio, hidden = billed
    named, expected, unnamed, most, more = db.execute(f"{_SEARCHES} WHERE {where}", given).fetchone()
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


def save(db: sqlite3.Connection, name: str, value: Any) -> None:
    """Keep a piece of the run's state; None drops it."""
    if value is None:
        db.execute("DELETE FROM state WHERE name = ?", (name,))
        return
    data = orjson.dumps(value)
    db.execute("INSERT OR REPLACE INTO state VALUES (?,?,?)", (name, data, checksum(name, data)))


def forget(db: sqlite3.Connection) -> None:
    """Drop everything but what tells the ledger from others."""
    for table in ("answers", "rejections", "attempts", "sent"):
        db.execute(f"DELETE FROM {table}")  # noqa: S608 our own words
    db.execute("DELETE FROM state WHERE name != 'id'")


def pack(values: Floats) -> bytes:
    """Scores as bytes: single precision where that loses nothing, else double; the first byte tells."""
    with np.errstate(over="ignore"):
        single = values.astype("<f4")
    if np.array_equal(single.astype(np.float64), values):
        return b"4" + single.tobytes()
    return b"8" + values.astype("<f8").tobytes()


def unpack(data: bytes) -> Floats:
    """The scores that ``pack`` stored, to the last bit."""
    return np.frombuffer(data, dtype="<f4" if data[:1] == b"4" else "<f8", offset=1).astype(np.float64)
