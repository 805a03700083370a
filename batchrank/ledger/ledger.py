"""Gives the event loop the ledger: requests to read or write go in, results come out once they are durable.

All work on the file happens in a worker thread, one group at a time: what arrives while a group is being
committed forms the next one, so the number of syncs adapts to the load by itself.
"""

import asyncio
import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import anyio

from batchrank.data import Answer, Rejection
from batchrank.errors import LedgerError
from batchrank.ledger import entries, state
from batchrank.ledger.database import connect, copy, translated
from batchrank.ledger.entries import About, Kind, Known, Recollection
from batchrank.ledger.groups import CommitThread, Group, Work
from batchrank.ledger.rows import DAY
from batchrank.ledger.servers import Servers
from batchrank.ledger.state import Per, Spent

Outcome: TypeAlias = Answer | Rejection
_CHECKPOINT = 2.0
"""Seconds after which commits are in the main file too, so that a copy of it alone lacks no more than that."""


class Ledger:
    """Answers by request key. Open it, run ``serve`` in a task group, and ``close`` it last.

    What is entered belongs at once to the group that is open, before whatever is entered later; it is on disk when the
    group that was returned has been awaited.

    Args:
        path: the file, made where it is missing; None keeps it in memory (library use without an output folder).
        salvage: go on with what can be read where the latest commits are damaged, or their file is lost.
        now: tells the time, in seconds since 1970: answers have an age, and spending is counted by the day in UTC.

    Attributes:
        legacy: whether it holds entries of a batchrank that made keys of the endpoint's address, to be adopted.
        servers: the numbers by which rows tell who answered, and with which key it was asked.

    Raises:
        LedgerError: from every method, when the file can't be opened, read or written.
    """

    _connect = staticmethod(connect)

    def __init__(
        self, path: Path | None, *, salvage: bool = False, now: Callable[[], float] = time.time
    ) -> None:
        self.path, self._now = path, now
        self._dirty = self._served = False
        self.run = self.epoch = 0
        self._pending = Group(self._wait)
        self._wake = asyncio.Event()
        self._turn = anyio.Lock()
        self._thread = CommitThread()
        self._fault: LedgerError | None = None
        with translated(path, "opened"):
            self._db = self._connect(path, salvage=salvage)
            self.legacy = entries.legacy(self._db)
            self.servers = Servers(self._db, self.note)

    @property
    def _day(self) -> int:
        return int(self._now()) // DAY

    async def find(self, keys: Sequence[bytes]) -> dict[bytes, Known]:
        """What is known about several requests, by key; those found count as used by this run from now on."""
        group = self._open()
        group.wanted += keys
        await group
        return group.found

    async def recollect(
        self, questions: Sequence[int], *, before: int, since: int = 0
    ) -> dict[int, list[Recollection]]:
        """The answers to questions, whatever their documents, by question; they count as used by this run, as in find.

        Args:
            questions: as in ``About``.
            before: an epoch; answers count whose question became known in an earlier one.
            since: seconds since 1970; older answers, and those of unknown age, don't count. 0: all do.

        Returns:
            Those that have any, each ordered by run and key.
        """
        group = self._open()
        group.questions[before, since] += questions
        await group
        found = group.recollected[before, since]
        return {question: found[question] for question in questions if question in found}

    async def refused(self, questions: Sequence[int]) -> set[int]:
        """The questions of which a request was ever rejected."""
        return set(await self.perform(lambda db: entries.refused(db, questions)))

    def put(
        self, key: bytes, outcome: Outcome, predicted: int, about: About | None = None, by: int | None = None
    ) -> Group:
        """Enter an answer, or a rejection that is acted on.

        Args:
            key: the request's key.
            outcome: what came back.
            predicted: tokens that the request was expected to cost.
            about: what it is about, so that it can be recollected.
            by: the number of who said it, in ``servers``; None for nobody.
        """
        group = self._open()
        if isinstance(outcome, Answer):
            group.answers.append((key, outcome, predicted, about, by))
        else:
            group.rejections.append((key, outcome, about, by))
        return group

    def adopt(self, old_key: bytes, key: bytes, about: About | None) -> Group:
        """Give what is known under an older batchrank's key the key of today, and a question from the next run on."""
        return self.note(lambda db: entries.adopt(db, old_key, key, about, self.epoch))

    def put_attempt(
        self, key: bytes, kind: Kind, why: Rejection, tokens: int, documents: int, by: int | None = None
    ) -> Group:
        """Enter an attempt that brought no answer, what it was expected to cost, and the server that was asked."""
        row = (key, kind, why.status, why.code, why.message, why.request_id, tokens, self.run, documents)
        return self.note(lambda db: entries.attempt(db, (*row, self._day, by)))

    def sent(self, key: bytes, tokens: int, documents: int, by: int | None = None) -> Group:
        """Enter that a request of so many documents is about to be sent, and the tokens that it is expected to cost.

        On disk before it leaves, so that a run that is killed keeps to its cap; if in ``answered``, it must not leave.
        """
        group = self._open()
        group.sent.append((key, tokens, documents, by))
        return group

    def unsent(self, key: bytes) -> Group:
        """Enter that a sent request was not billed; after a fault of the ledger that is lost, on the safe side."""
        self._pending.unsent.append(key)
        self._wake.set()
        return self._pending

    async def begin(self, run: int) -> Spent:
        """Start or continue run number ``run``; what its earlier processes left in flight becomes ambiguous.

        A new epoch begins with it: what is answered from now on was not known before.
        """
        self.run = run
        self.epoch = await self.perform(lambda db: state.begin(db, run))
        return await self.spent("run")

    async def spent(self, per: Per) -> Spent:
        """What this run, this day (UTC) or everything so far has taken from the account."""
        return await self.perform(lambda db: state.spent(db, per, self.run, self._day))  # type: ignore[no-any-return]

    async def identity(self) -> str:
        """What tells this ledger, and copies of it, from all others."""
        return str(await self.perform(state.identity))

    async def forget(self) -> None:
        """Drop every answer and all state but the ledger's identity."""
        await self.perform(state.forget)
        self.servers.clear()

    async def load(self, name: str) -> Any:
        """A stored piece of the run's state, None if absent."""
        return await self.perform(lambda db: state.load(db, name))

    async def load_all(self, prefix: str) -> dict[str, Any]:
        """The stored pieces of state whose names begin alike, by the rest of their names."""
        return dict(await self.perform(lambda db: state.load_all(db, prefix)))

    async def save(self, name: str, value: Any) -> None:
        """Commit a piece of the run's state: anything JSON can hold; None deletes it."""
        await self.perform(lambda db: state.save(db, name, value))

    async def perform(self, work: Work) -> Any:
        """Run some other work on the database, in its turn and committed with its group."""
        box: list[Any] = []
        group = self._open()
        group.works.append((work, box))
        await group
        return box[0]

    def note(self, work: Work) -> Group:
        """Enter some other work on the database, whose result nobody needs."""
        group = self._open()
        group.works.append((work, []))
        return group

    async def serve(self) -> None:
        """Commit groups until cancelled; what is pending then is still committed."""
        self._served = True
        try:
            checkpoint = asyncio.get_running_loop().time() + _CHECKPOINT
            while True:
                with anyio.CancelScope(deadline=checkpoint if self._dirty else math.inf):
                    await self._wake.wait()
                await asyncio.sleep(0)  # what else this turn of the loop brings belongs to the same group
                await self._commit()
                if self._dirty and (now := asyncio.get_running_loop().time()) >= checkpoint:
                    checkpoint = now + _CHECKPOINT
                    await self._to_main_file()
        finally:
            self._served = False
            with suppress(LedgerError):
                await self._commit()

    async def _to_main_file(self) -> None:
        """Bring commits from the log to the main file. Where that fails they are in the log all the same."""
        async with self._turn:
            self._dirty = False
            with suppress(sqlite3.Error):
                await self._thread.do(partial(self._db.execute, "PRAGMA wal_checkpoint(PASSIVE)"))

    def copy(self, to: Path) -> None:
        """Write a consistent copy to a file that is not there yet; nothing else may be under way.

        Raises:
            LedgerError: it can't be written, or there is such a file.
        """
        with translated(to, "copied"):
            copy(self._db, to)

    def vacuum(self) -> None:
        """Give the room of dropped entries back to the disk; nothing else may be under way."""
        with translated(self.path, "written"):
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file and let other processes have it."""
        self._thread.end()
        with suppress(sqlite3.Error):
            self._db.close()

    def _open(self) -> Group:
        """The group that what is entered now belongs to. It is committed soon, whether or not anybody waits."""
        if self._fault is not None:
            raise self._fault
        self._wake.set()
        return self._pending

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
                entered = self._wake.is_set()
                group, self._pending, self._wake = self._pending, Group(self._wait), asyncio.Event()
                try:
                    if entered and self._fault is None:
                        await self._thread.do(partial(self._apply, group))
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
        try:
            self._db.execute("BEGIN IMMEDIATE")
            group.apply(self._db, self.run, self.epoch, int(self._now()))
            self._db.execute("COMMIT")
            self._dirty = self.path is not None
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            with translated(self.path, "written"):
                raise
