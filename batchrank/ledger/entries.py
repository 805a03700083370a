"""What the ledger holds, and how its rows are read and written; every function runs inside a transaction."""

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

from batchrank.models import SEARCH_DOCUMENTS
from batchrank.records import Answer, Floats, Rejection

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
MAX(CAST(tokens - predicted AS REAL) / ({DOCUMENTS})) FROM answers WHERE run = ?
"""  # noqa: S608 our own words
_EXPECTED = f"(({DOCUMENTS} + {SEARCH_DOCUMENTS - 1}) / {SEARCH_DOCUMENTS})"
_SEARCHES = f"""
SELECT COALESCE(SUM(searches), 0), COALESCE(SUM(CASE WHEN searches IS NULL THEN {_EXPECTED} END), 0),
COALESCE(SUM(CASE WHEN searches IS NULL THEN {DOCUMENTS} END), 0), MAX(CAST(searches AS REAL) / {_EXPECTED}),
MAX(CAST(searches - {_EXPECTED} AS REAL) / ({DOCUMENTS})) FROM answers WHERE run = ?
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
    """What one run has taken from the account so far.

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
    columns = "key, scores, tokens, request_id, used, run, digest, searches"
    wanted = f"SELECT {columns} FROM answers WHERE key IN {_marks(len(keys))}"  # noqa: S608 question marks
    stale = []
    for key, scores, tokens, request_id, used, asked, digest, searches in db.execute(wanted, keys).fetchall():
        if digest != _digest(key, scores, tokens, searches):
            raise sqlite3.DatabaseError("an answer is corrupt: it doesn't match its checksum")
        if used != run:
            stale.append(key)
        found[key] = Known(Answer(unpack(scores), tokens, request_id, searches), asked != run)
    _use(db, "answers", stale, run)


def _rejections(db: sqlite3.Connection, keys: Sequence[bytes], run: int, found: dict[bytes, Known]) -> None:
    columns = "key, status, code, message, request_id, used, run"
    wanted = f"SELECT {columns} FROM rejections WHERE key IN {_marks(len(keys))}"  # noqa: S608 question marks
    stale = []
    for key, status, code, message, request_id, used, asked in db.execute(wanted, keys).fetchall():
        if used != run:
            stale.append(key)
        found[key] = Known(Rejection(status, code, message, None, request_id), asked != run)
    _use(db, "rejections", stale, run)


def _use(db: sqlite3.Connection, table: str, keys: Sequence[bytes], run: int) -> None:
    if keys:
        db.execute(f"UPDATE {table} SET used = ? WHERE key IN {_marks(len(keys))}", (run, *keys))  # noqa: S608 our words


def store(db: sqlite3.Connection, answers: Sequence[tuple[bytes, Answer, int]], run: int) -> None:
    """Keep answers, each with its request's key and the tokens predicted for it."""
    for some in _pieces(answers):
        row: list[Any] = []
        for key, answer, predicted in some:
            scores = pack(answer.values)
            digest = _digest(key, scores, answer.tokens, answer.searches)
            row += (
                key,
                scores,
                answer.tokens,
                predicted,
                answer.request_id,
                run,
                run,
                digest,
                answer.searches,
            )
        db.execute(f"INSERT OR REPLACE INTO answers VALUES {','.join([_marks(9)] * len(some))}", row)  # noqa: S608 question marks
        unsend(db, [key for key, _, _ in some])


def reject(db: sqlite3.Connection, key: bytes, rejection: Rejection, run: int) -> None:
    """Keep a rejection that decides something."""
    facts = (key, rejection.status, rejection.code, rejection.message, rejection.request_id, run, run)
    db.execute("INSERT OR REPLACE INTO rejections VALUES (?,?,?,?,?,?,?)", facts)
    unsend(db, [key])


def send(db: sqlite3.Connection, requests: Sequence[tuple[bytes, int, int]], run: int) -> None:
    """Requests are about to be sent: their keys, their predicted tokens, and how many documents they hold."""
    for some in _pieces(requests):
        row = [value for key, tokens, documents in some for value in (key, tokens, run, documents)]
        db.execute(f"INSERT OR REPLACE INTO sent VALUES {','.join([_marks(4)] * len(some))}", row)  # noqa: S608 question marks


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


def attempt(db: sqlite3.Connection, row: tuple[Any, ...]) -> None:
    """Keep an attempt that gave nothing."""
    db.execute("INSERT INTO attempts VALUES (?,?,?,?,?,?,?,?,?)", row)
    unsend(db, [row[0]])


def begin(db: sqlite3.Connection, run: int) -> Spent:
    """What a run has spent so far; what was in flight when its processes ended becomes ambiguous."""
    db.execute(
        "INSERT INTO attempts SELECT key, 'ambiguous', NULL, 'killed', 'in flight when the process ended', '', "
        "predicted, run, documents FROM sent"
    )
    db.execute("DELETE FROM sent")
    alike = (
        "SELECT predicted, documents, COUNT(*) FROM attempts WHERE run = ? AND kind != 'probe' GROUP BY 1, 2"
    )
    lost = {(predicted, documents): count for predicted, documents, count in db.execute(alike, (run,))}
    begun = f"(documents + {SEARCH_DOCUMENTS - 1}) / {SEARCH_DOCUMENTS}"
    sums = f"COUNT(*), COALESCE(SUM(predicted), 0), COALESCE(SUM({begun}), 0)"
    probed = f"SELECT {sums} FROM attempts WHERE run = ? AND kind = 'probe'"  # noqa: S608 our own words
    probes, probe_tokens, probe_searches = db.execute(probed, (run,)).fetchone()
    answers, tokens, predicted, documents, ratio, hidden = db.execute(_BILLED, (run,)).fetchone()
    billed, expected, unnamed, most, more = db.execute(_SEARCHES, (run,)).fetchone()
    searches = Searches(billed + probe_searches, (expected, unnamed), most, more)
    return Spent(
        answers, tokens + probe_tokens, (predicted, documents), lost, probes, ratio, hidden, searches
    )


def forget(db: sqlite3.Connection) -> None:
    """Drop everything."""
    for table in ("answers", "rejections", "attempts", "sent", "state"):
        db.execute(f"DELETE FROM {table}")  # noqa: S608 our own words


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


def _digest(key: bytes, scores: bytes, tokens: int | None, searches: int | None) -> int:
    """A checksum, because SQLite has none: a flipped bit must not become a ranking."""
    known = zlib.crc32(b"%d" % (-1 if tokens is None else tokens), zlib.crc32(scores, zlib.crc32(key)))
    return known if searches is None else zlib.crc32(b"%d" % searches, known)
