"""The ledger: every paid answer, durable before it is used. SQLite, one process at a time.

All work on the file happens in worker threads, one group at a time: what arrives while a group is being
committed forms the next one, so the number of syncs adapts to the load by itself.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread
import numpy as np
import orjson

from batchrank.errors import LedgerError
from batchrank.records import Answer, Floats, Rejection

_SCHEMA = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, scores BLOB NOT NULL, tokens INTEGER, predicted INTEGER NOT NULL, request_id TEXT NOT NULL,
    run INTEGER NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rejections (
    key BLOB PRIMARY KEY, status INTEGER, code TEXT NOT NULL, message TEXT NOT NULL, request_id TEXT NOT NULL,
    run INTEGER NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempts (
    key BLOB NOT NULL, kind TEXT NOT NULL, status INTEGER, code TEXT NOT NULL, message TEXT NOT NULL,
    request_id TEXT NOT NULL, predicted INTEGER NOT NULL, run INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS sent (key BLOB PRIMARY KEY, predicted INTEGER NOT NULL, run INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
Kind = Literal["malformed", "ambiguous"]
Work = Callable[[sqlite3.Connection], Any]


@dataclass(frozen=True, slots=True)
class Spent:
    """What one run has taken from the account so far.

    Attributes:
        answers: answers received.
        tokens: tokens billed for them, as predicted where the API named none.
        malformed: unusable answers, and the tokens predicted for them.
        ambiguous: requests sent whose answer was never seen, and the tokens predicted for them.
    """

    answers: int
    tokens: int
    malformed: tuple[int, int]
    ambiguous: tuple[int, int]

    @property
    def all_tokens(self) -> int:
        """Tokens that may have been billed, ambiguous ones included."""
        return self.tokens + self.malformed[1] + self.ambiguous[1]


class Ledger:
    """Answers by request key. Open it, run ``serve`` in a task group, and ``close`` it last.

    Raises:
        LedgerError: from every method, when the file can't be opened, read or written.
    """

    def __init__(self, path: Path | None) -> None:
        """Open or create the ledger; None keeps it in memory (library use without an output folder)."""
        self.path = path
        self.run = 0
        self._pending: list[tuple[Work, anyio.Event | None, list[Any]]] = []
        self._wake = anyio.Event()
        self._fault: LedgerError | None = None
        with self._translated("opened"):
            self._db = _connect(path)

    async def get(self, key: bytes) -> Answer | Rejection | None:
        """What is known about a request; an answer counts as used by this run from now on."""
        found: Answer | Rejection | None = await self._do(lambda db: _find(db, key, self.run))
        return found

    async def put(self, key: bytes, outcome: Answer | Rejection, predicted: int) -> None:
        """Commit an answer, or a rejection that decides something; returns when it is on disk.

        Args:
            key: the request's key.
            outcome: what came back.
            predicted: tokens that the request was expected to cost.
        """
        await self._do(lambda db: _store(db, key, outcome, predicted, self.run))

    async def put_attempt(self, key: bytes, kind: Kind, rejection: Rejection, predicted: int) -> None:
        """Commit an attempt that may have been billed and gave nothing."""
        facts = (rejection.status, rejection.code, rejection.message, rejection.request_id)
        await self._do(lambda db: _attempt(db, (key, kind, *facts, predicted, self.run)))

    def sent(self, key: bytes, predicted: int) -> None:
        """Note that a request is about to be sent; written with the next group, not waited for."""
        self._add(
            lambda db: db.execute("INSERT OR REPLACE INTO sent VALUES (?,?,?)", (key, predicted, self.run))
        )

    def unsent(self, key: bytes) -> None:
        """Note that a sent request was answered by a rejection, which nobody bills."""
        self._add(lambda db: _unsend(db, key))

    async def begin(self, run: int) -> Spent:
        """Start or continue run number ``run``; what its earlier processes left in flight becomes ambiguous."""
        self.run = run
        result: Spent = await self._do(lambda db: _begin(db, run))
        return result

    async def forget(self) -> None:
        """Drop every answer and all state."""
        await self._do(_forget)

    async def load(self, name: str) -> Any:
        """A stored piece of the run's state, None if absent."""
        row = await self._do(
            lambda db: db.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        )
        return None if row is None else orjson.loads(row[0])

    async def save(self, name: str, value: Any) -> None:
        """Commit a piece of the run's state: anything JSON can hold; None deletes it."""
        if value is None:
            await self._do(lambda db: db.execute("DELETE FROM state WHERE name = ?", (name,)))
        else:
            data = orjson.dumps(value)
            await self._do(lambda db: db.execute("INSERT OR REPLACE INTO state VALUES (?,?)", (name, data)))

    async def perform(self, work: Work) -> Any:
        """Run some other work on the database, in its turn and committed with its group."""
        return await self._do(work)

    async def serve(self) -> None:
        """Commit groups until cancelled; what is pending then is still committed."""
        try:
            while True:
                await self._wake.wait()
                await self._commit()
        finally:
            with anyio.CancelScope(shield=True), suppress(LedgerError):
                await self._commit()

    def vacuum(self) -> None:
        """Give the room of dropped entries back to the disk; nothing else may be under way."""
        with self._translated("written"):
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file and let other processes have it."""
        with suppress(sqlite3.Error):
            self._db.close()

    def _add(self, work: Work, done: anyio.Event | None = None) -> list[Any]:
        box: list[Any] = []
        self._pending.append((work, done, box))
        if done is not None:
            self._wake.set()
        return box

    async def _do(self, work: Work) -> Any:
        if self._fault is not None:
            raise self._fault
        done = anyio.Event()
        box = self._add(work, done)
        await done.wait()
        if not box:
            assert self._fault is not None
            raise self._fault
        return box[0]

    async def _commit(self) -> None:
        group, self._pending, self._wake = self._pending, [], anyio.Event()
        if not group:
            return
        try:
            if self._fault is None:
                await anyio.to_thread.run_sync(self._apply, group)
        except LedgerError as error:
            self._fault = error
            for _, _, box in group:
                box.clear()
        for _, done, _ in group:
            if done is not None:
                done.set()

    def _apply(self, group: list[tuple[Work, anyio.Event | None, list[Any]]]) -> None:
        with self._translated("written"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for work, _, box in group:
                    box.append(work(self._db))
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(_explain(self.path, what, error)) from error


def _connect(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(
            os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        )  # ours alone: it holds what was asked and answered
    db = sqlite3.connect(
        ":memory:" if path is None else path, isolation_level=None, check_same_thread=False, timeout=0.2
    )
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _SCHEMA):
            raise sqlite3.DatabaseError(f"its schema is version {version}, this batchrank reads {_SCHEMA}")
        db.execute("BEGIN IMMEDIATE")
        for statement in _TABLES.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {_SCHEMA}")
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def _find(db: sqlite3.Connection, key: bytes, run: int) -> Answer | Rejection | None:
    row = db.execute("SELECT scores, tokens, request_id, used FROM answers WHERE key = ?", (key,)).fetchone()
    if row is not None:
        if row[3] != run:
            db.execute("UPDATE answers SET used = ? WHERE key = ?", (run, key))
        return Answer(unpack(row[0]), row[1], row[2])
    row = db.execute(
        "SELECT status, code, message, request_id FROM rejections WHERE key = ?", (key,)
    ).fetchone()
    if row is None:
        return None
    db.execute("UPDATE rejections SET used = ? WHERE key = ?", (run, key))
    return Rejection(row[0], row[1], row[2], None, row[3])


def _store(db: sqlite3.Connection, key: bytes, outcome: Answer | Rejection, predicted: int, run: int) -> None:
    if isinstance(outcome, Answer):
        row = (key, pack(outcome.values), outcome.tokens, predicted, outcome.request_id, run, run)
        db.execute("INSERT OR REPLACE INTO answers VALUES (?,?,?,?,?,?,?)", row)
    else:
        facts = (key, outcome.status, outcome.code, outcome.message, outcome.request_id, run, run)
        db.execute("INSERT OR REPLACE INTO rejections VALUES (?,?,?,?,?,?,?)", facts)
    _unsend(db, key)


def _unsend(db: sqlite3.Connection, key: bytes) -> None:
    db.execute("DELETE FROM sent WHERE key = ?", (key,))


def _attempt(db: sqlite3.Connection, row: tuple[Any, ...]) -> None:
    db.execute("INSERT INTO attempts VALUES (?,?,?,?,?,?,?,?)", row)
    _unsend(db, row[0])


def _begin(db: sqlite3.Connection, run: int) -> Spent:
    db.execute(
        "INSERT INTO attempts SELECT key, 'ambiguous', NULL, 'killed', 'in flight when the process ended', '', "
        "predicted, run FROM sent"
    )
    db.execute("DELETE FROM sent")

    def one(table: str, tokens: str, *condition: str) -> tuple[int, int]:
        where = " AND ".join(["run = ?", *condition])
        query = f"SELECT COUNT(*), COALESCE(SUM({tokens}), 0) FROM {table} WHERE {where}"  # noqa: S608 our own words
        count, total = db.execute(query, (run,)).fetchone()
        return int(count), int(total)

    answers, tokens = one("answers", "COALESCE(tokens, predicted)")
    malformed = one("attempts", "predicted", "kind = 'malformed'")
    return Spent(answers, tokens, malformed, one("attempts", "predicted", "kind = 'ambiguous'"))


def _forget(db: sqlite3.Connection) -> None:
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


def _explain(path: Path | None, what: str, error: Exception) -> str:
    text = str(error)
    if "locked" in text or "busy" in text:
        return f"{path}: another batchrank process is using this ledger; wait for it to end, or stop it"
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return (
            f"{path}: the ledger is damaged ({text}); nothing was sent. Restore it from a backup, or recover what can "
            f"be read with: sqlite3 {path} .recover | sqlite3 recovered.sqlite"
        )
    if "full" in text or "I/O error" in text:
        return f"{path}: the ledger can't be {what}, the disk may be full ({text}); make room and run the job again"
    return f"{path}: the ledger can't be {what}: {text}"
