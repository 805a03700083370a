"""What the ledger commits together."""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from batchrank.data import Answer, Rejection
from batchrank.ledger import entries
from batchrank.ledger.entries import Known

Work: TypeAlias = Callable[[sqlite3.Connection], Any]


@dataclass(slots=True)
class Group:
    """Entries that came while the group before was being committed, each kind of which is one statement.

    Nobody waits for two entries of one key in the same group, but for its being unsent, which comes before its next
    attempt; so the order of kinds is as good as that of entries.

    Attributes:
        works: other work, each with the list that takes its result.
        unsent: keys of requests that turned out not to be billed.
        sent: keys of requests about to be sent, their predicted tokens, and how many documents they hold.
        answers: keys, answers, and the tokens predicted for them.
        rejections: keys, and rejections that decide something.
        wanted: keys to look up.
        found: what is known of these; complete once the group is committed.
        awaited: whether anybody needs it committed.
        waiting: who waits for the commit.
        ended: whether it was committed, or failed to be.
        committed: whether it is on disk.
    """

    works: list[tuple[Work, list[Any]]] = field(default_factory=list)
    unsent: list[bytes] = field(default_factory=list)
    sent: list[tuple[bytes, int, int]] = field(default_factory=list)
    answers: list[tuple[bytes, Answer, int]] = field(default_factory=list)
    rejections: list[tuple[bytes, Rejection]] = field(default_factory=list)
    wanted: list[bytes] = field(default_factory=list)
    found: dict[bytes, Known] = field(default_factory=dict)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)
    awaited: bool = False
    ended: bool = False
    committed: bool = False

    def __bool__(self) -> bool:
        return bool(self.awaited or self.unsent)

    def apply(self, db: sqlite3.Connection, run: int, day: int) -> None:
        """Do it all, within a transaction; lookups last, so that they see the rest."""
        for work, box in self.works:
            box.append(work(db))
        entries.unsend(db, self.unsent)
        entries.send(db, self.sent, run, day)
        entries.store(db, self.answers, run, day)
        for key, rejection in self.rejections:
            entries.reject(db, key, rejection, run)
        self.found = entries.find(db, self.wanted, run)
