"""Keeps when requests left within the last minute, because a process that starts anew has to count them.

A quota holds for the account, not for a process: without this a job that is killed and started again sends a minute's
requests twice. Times are those of the wall clock, the only one that two processes share.
"""

import sqlite3
import time

from batchrank.ledger.ledger import Ledger

_MINUTE = 60.0
"""Seconds: the longest window of a quota."""
_SYNC = 1.0
"""Seconds that a request may leave after it was noted, as that has to be on disk before; it is taken to have left so
much later."""
_PRUNE = 10.0
"""Seconds between two removals of what is old; each looks at the whole table."""
_TABLE = "CREATE TABLE IF NOT EXISTS departures (at REAL NOT NULL, tokens INTEGER NOT NULL)"

wall = time.time
"""What tells the time, in seconds since 1970."""


class Departures:
    """When requests left, in the ledger; ``load`` once before the first ``note``."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._pruned = 0.0

    async def load(self) -> list[tuple[float, int]]:
        """What left in the last minute: how many seconds ago, and the tokens of each.

        Times in the future are those of a clock that was set back since; they tell nothing, and must not stall a run.
        """
        now = wall()
        rows: list[tuple[float, int]] = await self._ledger.perform(lambda db: _recent(db, now))
        return [(max(0.0, now - at - _SYNC), tokens) for at, tokens in rows]

    def note(self, tokens: int) -> None:
        """Note that a request of so many tokens is about to leave; written with the group that is open now."""
        now = wall()
        self._ledger.note(lambda db: db.execute("INSERT INTO departures VALUES (?,?)", (now, tokens)))
        if abs(now - self._pruned) > _PRUNE:
            self._pruned = now
            self._ledger.note(lambda db: _prune(db, now))


def _recent(db: sqlite3.Connection, now: float) -> list[tuple[float, int]]:
    db.execute(_TABLE)
    _prune(db, now)
    return db.execute("SELECT at, tokens FROM departures").fetchall()


def _prune(db: sqlite3.Connection, now: float) -> None:
    db.execute("DELETE FROM departures WHERE at NOT BETWEEN ? AND ?", (now - _MINUTE - _SYNC, now))
