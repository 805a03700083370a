"""The ledger as the event loop sees it: work in, durable results out.

All work on the file happens in a worker thread, one group at a time: what arrives while a group is being
committed forms the next one, so the number of syncs adapts to the load by itself.
"""

import asyncio
import sqlite3
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import orjson

from batchrank.errors import LedgerError
from batchrank.ledger import entries
from batchrank.ledger.database import connect, translated
from batchrank.ledger.entries import Kind, Known, Spent
from batchrank.ledger.group import Group, Work
from batchrank.records import Answer, Rejection


class Ledger:
    """Answers by request key. Open it, run ``serve`` in a task group, and ``close`` it last.

    Raises:
        LedgerError: from every method, when the file can't be opened, read or written.
    """

    def __init__(self, path: Path | None) -> None:
        """Open or create the ledger; None keeps it in memory (library use without an output folder)."""
        self.path = path
        self.run = 0
        self._pending = Group()
        self._wake = asyncio.Event()
        self._turn = anyio.Lock()
        self._served = False
        self._fault: LedgerError | None = None
        with translated(path, "opened"):
            self._db = connect(path)

    async def get(self, key: bytes) -> Known | None:
        """What is known about a request; it counts as used by this run from now on."""
        return (await self.find([key])).get(key)

    async def find(self, keys: Sequence[bytes]) -> dict[bytes, Known]:
        """What is known about several requests, by key; those found count as used by this run from now on."""
        group = self._open()
        group.wanted += keys
        await self._committed(group)
        return group.found

    def put(self, key: bytes, outcome: Answer | Rejection, predicted: int) -> Coroutine[Any, Any, None]:
        """Commit an answer, or a rejection that decides something.

        It is entered at once, before whatever is entered after this call; it is on disk when what is returned has
        been awaited.

        Args:
            key: the request's key.
            outcome: what came back.
            predicted: tokens that the request was expected to cost.
        """
        group = self._open()
        if isinstance(outcome, Answer):
            group.answers.append((key, outcome, predicted))
        else:
            group.rejections.append((key, outcome))
        return self._committed(group)

    def put_attempt(
        self, key: bytes, kind: Kind, rejection: Rejection, tokens: int, documents: int
    ) -> Coroutine[Any, Any, None]:
        """Commit an attempt that gave nothing, and what it was expected to cost; entered as by ``put``."""
        facts = (rejection.status, rejection.code, rejection.message, rejection.request_id)
        row = (key, kind, *facts, tokens, self.run, documents)
        group = self._open()
        group.works.append((lambda db: entries.attempt(db, row), []))
        return self._committed(group)

    async def sent(self, key: bytes, tokens: int, documents: int) -> None:
        """Commit that a request of so many documents is about to be sent, and the tokens that it is expected to cost.

        It is on disk before the request leaves, so that a run that is killed again and again still keeps to its cap.
        """
        group = self._open()
        group.sent.append((key, tokens, documents))
        await self._committed(group)

    def unsent(self, key: bytes) -> None:
        """Note that a sent request was not billed; written with the next group, not waited for."""
        self._pending.unsent.append(key)
        self._wake.set()

    async def begin(self, run: int) -> Spent:
        """Start or continue run number ``run``; what its earlier processes left in flight becomes ambiguous."""
        self.run = run
        result: Spent = await self.perform(lambda db: entries.begin(db, run))
        return result

    async def forget(self) -> None:
        """Drop every answer and all state."""
        await self.perform(entries.forget)

    async def load(self, name: str) -> Any:
        """A stored piece of the run's state, None if absent."""
        row = await self.perform(
            lambda db: db.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        )
        return None if row is None else orjson.loads(row[0])

    async def save(self, name: str, value: Any) -> None:
        """Commit a piece of the run's state: anything JSON can hold; None deletes it."""
        if value is None:
            await self.perform(lambda db: db.execute("DELETE FROM state WHERE name = ?", (name,)))
        else:
            data = orjson.dumps(value)
            await self.perform(
                lambda db: db.execute("INSERT OR REPLACE INTO state VALUES (?,?)", (name, data))
            )

    async def perform(self, work: Work) -> Any:
        """Run some other work on the database, in its turn and committed with its group."""
        box: list[Any] = []
        group = self._open()
        group.works.append((work, box))
        await self._committed(group)
        return box[0]

    def note(self, work: Work) -> None:
        """Have some work done on the database with the group that is open now; not waited for."""
        self._open().works.append((work, []))

    async def serve(self) -> None:
        """Commit groups until cancelled; what is pending then is still committed."""
        self._served = True
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(0)  # what else this turn of the loop brings belongs to the same group
                await self._commit()
        finally:
            self._served = False
            with suppress(LedgerError):
                await self._commit()

    def vacuum(self) -> None:
        """Give the room of dropped entries back to the disk; nothing else may be under way."""
        with translated(self.path, "written"):
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file and let other processes have it."""
        with suppress(sqlite3.Error):
            self._db.close()

    def _open(self) -> Group:
        """The group that what is asked for now belongs to."""
        if self._fault is not None:
            raise self._fault
        return self._pending

    def _committed(self, group: Group) -> Coroutine[Any, Any, None]:
        """Have the open group committed; what is returned waits until it is on disk."""
        group.awaited = True
        self._wake.set()
        return self._wait(group)

    async def _wait(self, group: Group) -> None:
        if group is self._pending and not self._served:
            await self._commit()  # cancelled along with its users, some of whom still have an answer to keep
        if not group.ended:
            done = asyncio.get_running_loop().create_future()
            group.waiting.append(done)
            await done
        if not group.committed:
            assert self._fault is not None
            raise self._fault

    async def _commit(self) -> None:
        """Commit what is pending. Shielded: a group that was taken must not be lost to a cancellation."""
        with anyio.CancelScope(shield=True):
            async with self._turn:
                group, self._pending, self._wake = self._pending, Group(), asyncio.Event()
                try:
                    if group and self._fault is None:
                        await anyio.to_thread.run_sync(self._apply, group)
                        group.committed = True
                except Exception as error:
                    self._fail(error)
                finally:
                    group.ended = True
                    for done in group.waiting:
                        if not done.done():
                            done.set_result(None)

    def _fail(self, error: Exception) -> None:
        """After a fault nothing is acknowledged any more."""
        if isinstance(error, LedgerError):
            self._fault = error
            return
        self._fault = LedgerError(f"{self.path}: the ledger can't be used: {error!r}")
        raise error

    def _apply(self, group: Group) -> None:
        with translated(self.path, "written"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                group.apply(self._db, self.run)
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
