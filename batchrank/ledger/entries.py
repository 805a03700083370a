"""Reads and writes the ledger's rows, those of many requests with one statement, always inside a transaction."""

import asyncio
import sqlite3
import threading
import zlib
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Literal, TypeAlias

import numpy as np

from batchrank.data import Answer, Floats, Rejection

Kind = Literal["malformed", "ambiguous", "probe"]
"""An attempt that gave no result: an unusable answer, an unknown fate; or a probe, billed as its ``predicted``
says."""
_LOOKED_UP = 500
"""Keys in one statement, which takes so many values at most."""
DOCUMENTS = "(LENGTH(scores) - 1) / CASE SUBSTR(scores, 1, 1) WHEN x'34' THEN 4 ELSE 8 END"
"""SQL for the number of documents that an answer scored."""
ROWS = {
    "rejections": "key, status, code, message, request_id, run",
    "attempts": "key, kind, status, code, message, request_id, predicted, run, documents, day",
    "sent": "key, predicted, run, documents, day",
    "state": "name, value",
}
"""The columns that a row's digest covers: all but the run that used it last, which decides nothing that is paid."""


def checksum(*values: object) -> int:
    """The digest of a row's values."""
    return zlib.crc32(repr(values).encode())


def answer_checksum(
    key: bytes,
    scores: bytes,
    tokens: int | None,
    predicted: int,
    request_id: str,
    run: int,
    day: int,
    searches: int | None,
) -> int:
    """The digest of an answer; those of older ledgers, which knew no day, cover less."""
    known = zlib.crc32(f"{-1 if tokens is None else tokens}".encode(), zlib.crc32(scores, zlib.crc32(key)))
    known = known if searches is None else zlib.crc32(f"{searches}".encode(), known)
    return zlib.crc32(f"{predicted} {run} {day} {request_id}".encode(), known) if day else known


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about a request.

    Attributes:
        outcome: its answer, or the rejection that was acted on.
        earlier: whether an earlier run asked, as opposed to an earlier process of this one.
    """

    outcome: Answer | Rejection
    earlier: bool


def find(db: sqlite3.Connection, keys: Sequence[bytes], run: int) -> dict[bytes, Known]:
    """What is known about requests, by key; what is found counts as used by the run from now on."""
    found: dict[bytes, Known] = {}
    for first in range(0, len(keys), _LOOKED_UP):
        some = keys[first : first + _LOOKED_UP]
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
    rows = []
    for key, answer, predicted in answers:
        facts = (key, pack(answer.values), answer.tokens, predicted, answer.request_id, run)
        rows.append((*facts, run, answer_checksum(*facts, day, answer.searches), answer.searches, day))
    db.executemany("INSERT OR REPLACE INTO answers VALUES (?,?,?,?,?,?,?,?,?,?)", rows)
    unsend(db, [row[0] for row in rows])


def reject(db: sqlite3.Connection, key: bytes, rejection: Rejection, run: int) -> None:
    """Keep a rejection that is acted on."""
    facts = (key, rejection.status, rejection.code, rejection.message, rejection.request_id, run)
    db.execute("INSERT OR REPLACE INTO rejections VALUES (?,?,?,?,?,?,?,?)", (*facts, run, checksum(*facts)))
    unsend(db, [key])


def send(db: sqlite3.Connection, requests: Sequence[tuple[bytes, int, int]], run: int, day: int) -> None:
    """Requests are about to be sent: their keys, their predicted tokens, and how many documents they hold."""
    rows = []
    for key, tokens, documents in requests:
        row = (key, tokens, run, documents, day)
        rows.append((*row, checksum(*row)))
    db.executemany("INSERT OR REPLACE INTO sent VALUES (?,?,?,?,?,?)", rows)


def unsend(db: sqlite3.Connection, keys: Sequence[bytes]) -> None:
    """Forget requests as sent, because what became of them is known."""
    db.executemany("DELETE FROM sent WHERE key = ?", [(key,) for key in keys])


def _marks(count: int) -> str:
    return f"({','.join('?' * count)})"


def attempt(db: sqlite3.Connection, row: tuple[Any, ...], day: int) -> None:
    """Keep an attempt that brought no answer."""
    db.execute("INSERT INTO attempts VALUES (?,?,?,?,?,?,?,?,?,?,?)", (*row, day, checksum(*row, day)))
    unsend(db, [row[0]])


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


Work: TypeAlias = Callable[[sqlite3.Connection], Any]


@dataclass(slots=True, eq=False)
class Group:
    """Entries that came while the group before was being committed, each kind of which is one statement.

    Awaiting it waits until it is on disk; entries are part of it at once, whether or not anybody waits.

    Nobody waits for two entries of one key in the same group, but for its being unsent, which comes before its next
    attempt; so the order of kinds is as good as that of

    Attributes:
        wait: waits for its commit.
        works: other work, each with the list that takes its result.
        unsent: keys of requests that turned out not to be billed.
        sent: keys of requests about to be sent, their predicted tokens, and how many documents they hold.
        answers: keys, answers, and the tokens predicted for them.
        rejections: keys, and rejections that decide something.
        wanted: keys to look up.
        found: what is known of these; complete once the group is committed.
        waiting: who waits for the commit.
        ended: whether it was committed, or failed to be.
        committed: whether it is on disk.
    """

    wait: Callable[["Group"], Coroutine[Any, Any, None]]
    works: list[tuple[Work, list[Any]]] = field(default_factory=list)
    unsent: list[bytes] = field(default_factory=list)
    sent: list[tuple[bytes, int, int]] = field(default_factory=list)
    answers: list[tuple[bytes, Answer, int]] = field(default_factory=list)
    rejections: list[tuple[bytes, Rejection]] = field(default_factory=list)
    wanted: list[bytes] = field(default_factory=list)
    found: dict[bytes, Known] = field(default_factory=dict)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)
    ended: bool = False
    committed: bool = False

    def __await__(self) -> Generator[Any, None, None]:
        return self.wait(self).__await__()

    def apply(self, db: sqlite3.Connection, run: int, day: int) -> None:
        """Do it all, within a transaction; lookups last, so that they see the rest."""
        for work, box in self.works:
            box.append(work(db))
        if self.unsent:
            unsend(db, self.unsent)
        if self.sent:
            send(db, self.sent, run, day)
        if self.answers:
            store(db, self.answers, run, day)
        for key, rejection in self.rejections:
            reject(db, key, rejection, run)
        if self.wanted:
            self.found = find(db, self.wanted, run)


class CommitThread(threading.Thread):
    """The thread that works on the ledger's file: handing each group to a pool of threads would cost more than it does.

    It starts with the first work, and ends with ``end``.
    """

    def __init__(self) -> None:
        super().__init__(name="ledger", daemon=True)
        self._queue: SimpleQueue[tuple[Callable[[], object], asyncio.Future[None]] | None] = SimpleQueue()
        self._open = 0

    def busy(self) -> bool:
        """Whether work is under way whose end the event loop has not heard of."""
        return self._open > 0

    def do(self, work: Callable[[], object]) -> asyncio.Future[None]:
        """Have some work done after what was given before; awaiting the future raises what the work raises."""
        if not self.is_alive():
            self.start()
        done = asyncio.get_running_loop().create_future()
        self._open += 1
        self._queue.put((work, done))
        return done

    def end(self) -> None:
        """Wait until all is done."""
        if self.is_alive():
            self._queue.put(None)
            self.join()

    def run(self) -> None:
        """Work until the end."""
        while (item := self._queue.get()) is not None:
            work, done = item
            fault = None
            try:
                work()
            except BaseException as error:
                fault = error
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                done.get_loop().call_soon_threadsafe(self._tell, done, fault)

    def _tell(self, done: asyncio.Future[None], fault: BaseException | None) -> None:
        self._open -= 1
        if done.done():
            return
        if fault is None:
            done.set_result(None)
        else:
            done.set_exception(fault)
