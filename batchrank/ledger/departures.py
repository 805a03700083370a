"""Notes in the ledger when requests left, so that a run that begins again keeps to the last minute's quota."""

import sqlite3

from batchrank.ledger import state
from batchrank.ledger.ledger import Ledger

_MINUTE = 60.0
"""Seconds: the longest window of a quota."""
_SYNC = 1.0
"""Seconds that a request may leave after it was noted, as that has to be on disk before; it is taken to have left so
much later."""
_PRUNE = 10.0
"""Seconds between two removals of what is old; each looks at the whole table."""
_TABLE = (
    "CREATE TABLE IF NOT EXISTS departures (at REAL NOT NULL, tokens INTEGER NOT NULL, key TEXT NOT NULL)"
)
_OF_ONE_KEY = "ALTER TABLE departures ADD COLUMN key TEXT NOT NULL DEFAULT ''"
"""What brings the table of an older batchrank, which knew one key only, up to date."""


class Departures:
    """When requests left, in the ledger; ``load`` once before the first ``note``.

    Args:
        ledger: the ledger.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._pruned = 0.0

    async def load(self) -> list[tuple[float, int, str]]:
        """What left in the last minute: how many seconds ago, the tokens of each, and the name of its key.

        Times in the future are those of a clock that was set back since; they tell nothing, and must not stall a run.
        """
        now = state.wall()
        rows: list[tuple[float, int, str]] = await self._ledger.perform(lambda db: _recent(db, now))
        return [(max(0.0, now - at - _SYNC), tokens, key) for at, tokens, key in rows]

    def note(self, tokens: int, key: str = "") -> None:
        """Note that a request of so many tokens is about to leave; written with the group that is open now.

        Args:
            tokens: what it counts as.
            key: the name of the variable or file that its API key comes from; empty where there is none.
        """
        now = state.wall()
        self._ledger.note(lambda db: db.execute("INSERT INTO departures VALUES (?,?,?)", (now, tokens, key)))
        if abs(now - self._pruned) > _PRUNE:
            self._pruned = now
            self._ledger.note(lambda db: _prune(db, now))


def _recent(db: sqlite3.Connection, now: float) -> list[tuple[float, int, str]]:
    db.execute(_TABLE)
    if not any(column == "key" for _, column, *_ in db.execute("PRAGMA table_info(departures)")):
        db.execute(_OF_ONE_KEY)
    _prune(db, now)
    return db.execute("SELECT at, tokens, key FROM departures").fetchall()


def _prune(db: sqlite3.Connection, now: float) -> None:
    db.execute("DELETE FROM departures WHERE at NOT BETWEEN ? AND ?", (now - _MINUTE - _SYNC, now))
