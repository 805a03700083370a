"""What the ledger holds, and how its rows are read and written; every function runs inside a transaction."""

import sqlite3
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from batchrank.records import Answer, Floats, Rejection

Kind = Literal["malformed", "ambiguous"]
DOCUMENTS = "(LENGTH(scores) - 1) / CASE SUBSTR(scores, 1, 1) WHEN x'34' THEN 4 ELSE 8 END"
"""SQL for the number of documents that an answer scored."""
_BILLED = f"""
SELECT COUNT(*), COALESCE(SUM(COALESCE(tokens, predicted)), 0), MAX(CAST(tokens AS REAL) / MAX(predicted, 1)),
MAX(CAST(tokens - predicted AS REAL) / ({DOCUMENTS})) FROM answers WHERE run = ?
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
class Spent:
    """What one run has taken from the account so far.

    Attributes:
        answers: answers received.
        tokens: tokens billed for them, as predicted where the API named none.
        malformed: unusable answers, and the tokens they may have cost.
        ambiguous: requests sent whose answer was never seen, and the tokens they may have cost.
        ratio: the most that was billed for a request, as a multiple of its prediction; None before any bill.
        hidden: the most tokens a document billed beyond the prediction; None before any bill.
    """

    answers: int
    tokens: int
    malformed: tuple[int, int]
    ambiguous: tuple[int, int]
    ratio: float | None = None
    hidden: float | None = None

    @property
    def lost_tokens(self) -> int:
        """Tokens that may have been billed for nothing."""
        return self.malformed[1] + self.ambiguous[1]

    @property
    def all_tokens(self) -> int:
        """Tokens that may have been billed, ambiguous ones included."""
        return self.tokens + self.lost_tokens


def find(db: sqlite3.Connection, key: bytes, run: int) -> Known | None:
    """What is known about a request; it counts as used by the run from now on."""
    row = db.execute(
        "SELECT scores, tokens, request_id, used, run, digest FROM answers WHERE key = ?", (key,)
    ).fetchone()
    if row is not None:
        if row[5] != _digest(key, row[0], row[1]):
            raise sqlite3.DatabaseError("an answer is corrupt: it doesn't match its checksum")
        if row[3] != run:
            db.execute("UPDATE answers SET used = ? WHERE key = ?", (run, key))
        return Known(Answer(unpack(row[0]), row[1], row[2]), row[4] != run)
    row = db.execute(
        "SELECT status, code, message, request_id, used, run FROM rejections WHERE key = ?", (key,)
    ).fetchone()
    if row is None:
        return None
    if row[4] != run:
        db.execute("UPDATE rejections SET used = ? WHERE key = ?", (run, key))
    return Known(Rejection(row[0], row[1], row[2], None, row[3]), row[5] != run)


def store(db: sqlite3.Connection, key: bytes, outcome: Answer | Rejection, predicted: int, run: int) -> None:
    """Keep an answer, or a rejection that decides something."""
    if isinstance(outcome, Answer):
        scores = pack(outcome.values)
        digest = _digest(key, scores, outcome.tokens)
        row = (key, scores, outcome.tokens, predicted, outcome.request_id, run, run, digest)
        db.execute("INSERT OR REPLACE INTO answers VALUES (?,?,?,?,?,?,?,?)", row)
    else:
        facts = (key, outcome.status, outcome.code, outcome.message, outcome.request_id, run, run)
        db.execute("INSERT OR REPLACE INTO rejections VALUES (?,?,?,?,?,?,?)", facts)
    unsend(db, key)


def unsend(db: sqlite3.Connection, key: bytes) -> None:
    """The request's fate is known."""
    db.execute("DELETE FROM sent WHERE key = ?", (key,))


def attempt(db: sqlite3.Connection, row: tuple[Any, ...]) -> None:
    """Keep an attempt that gave nothing."""
    db.execute("INSERT INTO attempts VALUES (?,?,?,?,?,?,?,?)", row)
    unsend(db, row[0])


def begin(db: sqlite3.Connection, run: int) -> Spent:
    """What a run has spent so far; what was in flight when its processes ended becomes ambiguous."""
    db.execute(
        "INSERT INTO attempts SELECT key, 'ambiguous', NULL, 'killed', 'in flight when the process ended', '', "
        "predicted, run FROM sent"
    )
    db.execute("DELETE FROM sent")

    def lost(kind: Kind) -> tuple[int, int]:
        sums = "SELECT COUNT(*), COALESCE(SUM(predicted), 0) FROM attempts WHERE run = ? AND kind = ?"
        count, tokens = db.execute(sums, (run, kind)).fetchone()
        return int(count), int(tokens)

    answers, tokens, ratio, hidden = db.execute(_BILLED, (run,)).fetchone()
    return Spent(answers, tokens, lost("malformed"), lost("ambiguous"), ratio, hidden)


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


def _digest(key: bytes, scores: bytes, tokens: int | None) -> int:
    """A checksum, because SQLite has none: a flipped bit must not become a ranking."""
    return zlib.crc32(b"%d" % (-1 if tokens is None else tokens), zlib.crc32(scores, zlib.crc32(key)))
