"""Reads and writes the ledger's rows, those of many requests with one statement, always inside a transaction."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from batchrank.data import Answer, Floats, Purpose, Rejection
from batchrank.ledger.paid import drop
from batchrank.ledger.rows import ANSWER, DAY, ROWS, answer_checksum, pack, server_checksum, unpack

Kind = Literal["malformed", "ambiguous", "probe"]
"""An attempt that gave no result: an unusable answer, an unknown fate; or a probe, billed as its ``predicted``
says."""
_PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
"""Kept by number; a new one goes to the end."""
_LOOKED_UP = 500
"""Keys in one statement, which takes so many values at most."""


@dataclass(frozen=True, slots=True)
class About:
    """What an answer is about, so that it serves document by document.

    Attributes:
        question: digest, as a signed 64-bit number, of all that was asked but the documents.
        contents: eight bytes for each document, a digest of its content as sent, in request order.
        purpose: what it was asked for.
    """

    question: int
    contents: bytes
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about a request.

    Attributes:
        outcome: its answer, or the rejection that was acted on.
        earlier: whether an earlier run asked, as opposed to an earlier process of this one.
        at: when it was answered, in seconds since 1970; 0 unknown, as for rejections.
        run: the run that asked.
        epoch: the process, counted over the ledger's life, from which on it could be known by its documents.
        server: the number of who answered, in ``Ledger.servers``; None where nobody knows.
    """

    outcome: Answer | Rejection
    earlier: bool
    at: int = 0
    run: int = 0
    epoch: int = 0
    server: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Recollection:
    """An answer to a question, whatever its documents.

    Attributes:
        contents: a digest of each document's content as sent, in request order.
        values: their scores.
        purpose: what it was asked for.
        run: the run that asked.
        at: when it was answered, in seconds since 1970; 0 unknown.
        key: the request's key.
        server: as in ``Known``.
    """

    contents: NDArray[np.uint64]
    values: Floats
    purpose: Purpose
    run: int
    at: int
    key: bytes
    server: int | None = None


def find(db: sqlite3.Connection, keys: Sequence[bytes], run: int, *, use: bool = True) -> dict[bytes, Known]:
    """What is known about requests, by key; unless it is only looked at, it counts as used by the run from now on."""
    found: dict[bytes, Known] = {}
    for some in _batches(keys):
        _answers(db, some, run, found, use=use)
        if left := [key for key in some if key not in found]:
            _rejections(db, left, run, found, use=use)
    return found


def _answers(
    db: sqlite3.Connection, keys: Sequence[bytes], run: int, found: dict[bytes, Known], *, use: bool
) -> None:
    wanted = f"SELECT {ANSWER}, digest, used FROM answers WHERE key IN {_marks(keys)}"  # noqa: S608 our own words
    for row in _whole(db, db.execute(wanted, keys).fetchall(), run, use=use):
        key, asked, known, _, at, tokens, _, searches, _, _, request_id, scores, _, server = row
        outcome = Answer(unpack(scores), tokens, request_id, searches)
        found[key] = Known(outcome, asked != run, at, asked, known, server)


def recollect(
    db: sqlite3.Connection, questions: Sequence[int], run: int, *, before: int, since: int, use: bool = True
) -> dict[int, list[Recollection]]:
    """The answers to questions that became known before an epoch, and are no older; those count as used, as found ones.

    Args:
        db: the ledger.
        questions: as in ``About``.
        run: the run that uses them.
        before: the first epoch whose answers don't count.
        since: the time of the oldest answers that count, in seconds since 1970.
        use: whether they count as used; else they are only looked at.
    """
    found: dict[int, list[Recollection]] = {}
    for some in _batches([question for question in questions if question]):  # 0: nothing was noted
        wanted = f"""
            SELECT {ANSWER}, digest, used FROM answers INDEXED BY questions
            WHERE question IN {_marks(some)} AND known < ? AND at >= ?
        """  # noqa: S608 our own words
        for row in _whole(db, db.execute(wanted, (*some, before, since)).fetchall(), run, use=use):
            key, asked, _, _, at, _, _, _, question, purpose, _, scores, contents, server = row
            known = np.frombuffer(contents, dtype="<u8"), unpack(scores), _PURPOSES[purpose]
            found.setdefault(question, []).append(Recollection(*known, asked, at, key, server))
    for answers in found.values():
        answers.sort(key=attrgetter("run", "key"))
    return found


def refused(db: sqlite3.Connection, questions: Sequence[int]) -> set[int]:
    """The questions of which a request was ever rejected."""
    found: set[int] = set()
    for some in _batches([question for question in questions if question]):
        wanted = (
            f"SELECT DISTINCT question FROM rejections INDEXED BY refused WHERE question IN {_marks(some)}"  # noqa: S608 our own words
        )
        found.update(question for (question,) in db.execute(wanted, some))
    return found


def _whole(db: sqlite3.Connection, rows: Sequence[Any], run: int, *, use: bool) -> Iterator[Any]:
    """Rows of answers, seen to be what was written, and marked as used by a run, unless they are only looked at."""
    stale = []
    for *row, digest, used in rows:
        if digest != answer_checksum(*row):
            raise sqlite3.DatabaseError("an answer is corrupt: it doesn't match its checksum")
        if used != run:
            stale.append(row[0])
        yield row
    for some in _batches(stale if use else ()):
        _use(db, "answers", some, run)


def _rejections(
    db: sqlite3.Connection, keys: Sequence[bytes], run: int, found: dict[bytes, Known], *, use: bool
) -> None:
    columns = ROWS["rejections"]
    wanted = f"SELECT {columns}, digest, used FROM rejections WHERE key IN {_marks(keys)}"  # noqa: S608 our own words
    stale = []
    for *row, digest, used in db.execute(wanted, keys).fetchall():
        key, status, code, message, request_id, asked, _, server = row
        if digest != server_checksum(*row):
            raise sqlite3.DatabaseError("a rejection is corrupt: it doesn't match its checksum")
        if used != run:
            stale.append(key)
        outcome = Rejection(status, code, message, None, request_id)
        found[key] = Known(outcome, asked != run, server=server)
    _use(db, "rejections", stale if use else (), run)


def _use(db: sqlite3.Connection, table: str, keys: Sequence[bytes], run: int) -> None:
    if keys:
        db.execute(f"UPDATE {table} SET used = ? WHERE key IN {_marks(keys)}", (run, *keys))  # noqa: S608 our own words


def store(
    db: sqlite3.Connection,
    answers: Sequence[tuple[bytes, Answer, int, About | None, int | None]],
    run: int,
    epoch: int,
    now: int,
) -> None:
    """Keep answers, each with its request's key, the tokens predicted for it, what it is about, and its server.

    What was paid for an answer that is there already, and is replaced, stays known.
    """
    rows = []
    for key, answer, predicted, about, server in answers:
        facts = (key, run, epoch, now // DAY, now, answer.tokens, predicted, answer.searches)
        scores, contents = pack(answer.values), about and about.contents
        row = (*facts, *_about(about), answer.request_id, scores, contents, server)
        rows.append((*row, answer_checksum(*row), run))
    for some in _batches([row[0] for row in rows]):
        drop(db, f"key IN {_marks(some)}", some)
    db.executemany(f"INSERT OR REPLACE INTO answers ({ANSWER}, digest, used) VALUES {_marks(rows[0])}", rows)  # noqa: S608 our own words
    unsend(db, [row[0] for row in rows])


def _about(about: About | None) -> tuple[int, int | None]:
    """Question and purpose as they are kept: no question has the number 0, which tells that nothing was noted."""
    return (0, None) if about is None else (about.question, _PURPOSES.index(about.purpose))


def reject(
    db: sqlite3.Connection,
    key: bytes,
    rejection: Rejection,
    about: About | None,
    server: int | None,
    run: int,
) -> None:
    """Keep a rejection that is acted on."""
    facts = (key, rejection.status, rejection.code, rejection.message, rejection.request_id, run)
    row = (*facts, _about(about)[0], server)
    given = (*row, server_checksum(*row), run)
    columns = ROWS["rejections"]
    db.execute(f"INSERT OR REPLACE INTO rejections ({columns}, digest, used) VALUES {_marks(given)}", given)  # noqa: S608 our own words
    unsend(db, [key])


def adopt(db: sqlite3.Connection, old_key: bytes, key: bytes, about: About | None, epoch: int) -> None:
    """Let what is known about a request be found by another key, and by its question from the next epoch on.

    Where the other key is known already, nothing changes.
    """
    question, purpose = _about(about)
    row: Any
    answers = (
        f"SELECT {ANSWER} FROM answers WHERE key = ? AND NOT EXISTS (SELECT 1 FROM answers WHERE key = ?)"  # noqa: S608 our own words
    )
    for row in db.execute(answers, (old_key, key)).fetchall():
        _, asked, _, *facts, _, _, request_id, scores, _, server = row
        answered = (request_id, scores, about and about.contents, server)
        row = (key, asked, epoch, *facts, question, purpose, *answered)
        changes = f"UPDATE answers SET ({ANSWER}, digest) = {_marks((*row, 0))} WHERE key = ?"  # noqa: S608 our own words
        db.execute(changes, (*row, answer_checksum(*row), old_key))
    columns = ROWS["rejections"]
    for row in db.execute(f"SELECT {columns} FROM rejections WHERE key = ?", (old_key,)).fetchall():  # noqa: S608 our own words
        row = (key, *row[1:-2], question, row[-1])
        changes = f"UPDATE OR IGNORE rejections SET ({columns}, digest) = {_marks((*row, 0))} WHERE key = ?"  # noqa: S608 our own words
        db.execute(changes, (*row, server_checksum(*row), old_key))


def send(
    db: sqlite3.Connection, requests: Sequence[tuple[bytes, int, int, int | None]], run: int, now: int
) -> set[bytes]:
    """Requests are about to be sent: their keys, predicted tokens, how many documents they hold, and their servers.

    Returns:
        The keys of those that this run has an answer to, which must not be sent: whoever asks did look them up, but may
        have done so before another one's answer came.
    """
    answered: set[bytes] = set()
    for some in _batches([key for key, *_ in requests]):
        wanted = f"SELECT key FROM answers WHERE key IN {_marks(some)} AND run = ?"  # noqa: S608 our own words
        answered.update(key for (key,) in db.execute(wanted, (*some, run)))
    rows = []
    for key, tokens, documents, server in requests:
        if key not in answered:
            row = (key, tokens, run, documents, now // DAY, server)
            rows.append((*row, server_checksum(*row)))
    db.executemany(f"INSERT OR REPLACE INTO sent ({ROWS['sent']}, digest) VALUES (?,?,?,?,?,?,?)", rows)  # noqa: S608 our own words
    return answered


def unsend(db: sqlite3.Connection, keys: Sequence[bytes]) -> None:
    """Forget requests as sent, because what became of them is known."""
    db.executemany("DELETE FROM sent WHERE key = ?", [(key,) for key in keys])


def attempt(db: sqlite3.Connection, row: tuple[Any, ...]) -> None:
    """Keep an attempt that brought no answer: what ``ROWS`` names."""
    given = (*row, server_checksum(*row))
    db.execute(f"INSERT INTO attempts ({ROWS['attempts']}, digest) VALUES {_marks(given)}", given)  # noqa: S608 our own words
    unsend(db, [row[0]])


def _batches(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(values), _LOOKED_UP):
        yield values[first : first + _LOOKED_UP]


def _marks(values: Sequence[Any]) -> str:
    return f"({','.join('?' * len(values))})"


def legacy(db: sqlite3.Connection) -> bool:
    """Whether anything is known under the key of an older batchrank: its question was not noted then."""
    tables = ("answers", "rejections")
    return any(
        db.execute(f"SELECT 1 FROM {table} WHERE question IS NULL LIMIT 1").fetchone()  # noqa: S608 our own words
        for table in tables
    )
