"""Collects what is entered while a commit is under way into one group, and commits it in a thread of its own."""

import asyncio
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeAlias

from batchrank.data import Answer, Rejection
from batchrank.ledger.entries import About, Known, Recollection, find, recollect, reject, send, store, unsend

Work: TypeAlias = Callable[[sqlite3.Connection], Any]
_Limits: TypeAlias = tuple[int, int]
"""The first epoch whose answers don't count, and the time of the oldest that do."""


@dataclass(slots=True, eq=False)
class Group:
    """Entries that came while the group before was being committed, each kind of which is one statement.

    Awaiting it waits until it is on disk; entries are part of it at once, whether or not anybody waits.

    Nobody waits for two entries of one key in the same group, but for its being unsent, which comes before its next
    attempt; so the order of kinds is as good as that of the entries.

    Attributes:
        wait: waits for its commit.
        works: other work, each with the list that takes its result.
        unsent: keys of requests that turned out not to be billed.
        sent: keys of requests about to be sent, their predicted tokens, how many documents they hold, and servers.
        answered: the keys of those that were answered in this run already; complete once the group is committed.
        answers: keys, answers, the tokens predicted for them, what they are about, and servers.
        rejections: keys, rejections that decide something, what these are about, and servers.
        wanted: keys to look up.
        found: what is known of these; complete once the group is committed.
        questions: questions to look up, by which answers count.
        recollected: the answers to these, in the same way; complete once the group is committed.
        waiting: who waits for the commit.
        ended: whether it was committed, or failed to be.
        committed: whether it is on disk.
    """

    wait: Callable[["Group"], Coroutine[Any, Any, None]]
    works: list[tuple[Work, list[Any]]] = field(default_factory=list)
    unsent: list[bytes] = field(default_factory=list)
    sent: list[tuple[bytes, int, int, int | None]] = field(default_factory=list)
    answered: set[bytes] = field(default_factory=set)
    answers: list[tuple[bytes, Answer, int, About | None, int | None]] = field(default_factory=list)
    rejections: list[tuple[bytes, Rejection, About | None, int | None]] = field(default_factory=list)
    wanted: list[bytes] = field(default_factory=list)
    found: dict[bytes, Known] = field(default_factory=dict)
    questions: dict[_Limits, list[int]] = field(default_factory=lambda: defaultdict(list))
    recollected: dict[_Limits, dict[int, list[Recollection]]] = field(default_factory=dict)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)
    ended: bool = False
    committed: bool = False

    def __await__(self) -> Generator[Any, None, None]:
        return self.wait(self).__await__()

    def apply(self, db: sqlite3.Connection, run: int, epoch: int, now: int) -> None:
        """Do it all, within a transaction; lookups last, so that they see the rest."""
        self._enter(db, run, epoch, now)
        self.look(db, run)

    def _enter(self, db: sqlite3.Connection, run: int, epoch: int, now: int) -> None:
        for work, box in self.works:
            box.append(work(db))
        if self.unsent:
            unsend(db, self.unsent)
        if self.sent:
            self.answered = send(db, self.sent, run, now)
        if self.answers:
            store(db, self.answers, run, epoch, now)
        for key, rejection, about, server in self.rejections:
            reject(db, key, rejection, about, server, run)

    def look(self, db: sqlite3.Connection, run: int, *, use: bool = True) -> None:
        """Do the lookups; what is found counts as used by the run, unless it is only looked at."""
        if self.wanted:
            self.found = find(db, self.wanted, run, use=use)
        for (before, since), questions in self.questions.items():
            asked = list(dict.fromkeys(questions))
            self.recollected[before, since] = recollect(db, asked, run, before=before, since=since, use=use)


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
