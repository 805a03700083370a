"""Lets a plan, or an explanation, look up in a ledger what a run finds there, without changing it or locking it."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchrank.data import Rejection
from batchrank.errors import LedgerError
from batchrank.ledger.database import facts, in_use, look, translated
from batchrank.ledger.entries import About, Kind
from batchrank.ledger.groups import Group
from batchrank.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try that brought no answer.

    Attributes:
        key: the request's key.
        kind: what became of it.
        rejection: what came instead of an answer.
        run: the run that asked.
        server: the number of who was asked, in ``Ledger.servers``; None where nobody knows.
    """

    key: bytes
    kind: Kind
    rejection: Rejection
    run: int
    server: int | None


class Glance(Ledger):
    """A ledger that is only looked at: lookups mark nothing as used, and what is entered is forgotten.

    Args:
        path: the file, which must be there.

    Raises:
        LedgerError: from every method, also when a run begins to use the file meanwhile.
    """

    path: Path

    _connect = staticmethod(look)

    def __init__(self, path: Path) -> None:
        with translated(path, "opened"):
            self._facts = facts(path)
        super().__init__(path)

    async def save(self, name: str, value: Any) -> None:
        """Nothing: what a rehearsal finds is not what a run has found."""

    def adopt(self, old_key: bytes, key: bytes, about: About | None) -> Group:
        """Nothing: the next lookup finds it by the older key again."""
        return self._pending

    async def attempts(self, keys: Sequence[bytes]) -> list[Attempt]:
        """The tries of some requests that brought no answer, in the order in which they were made."""
        found: list[Attempt] = await self.perform(lambda db: _attempts(db, frozenset(keys)))
        return found

    def _apply(self, group: Group) -> None:
        with translated(self.path, "read"):
            try:
                for work, box in group.works:
                    box.append(work(self._db))
                group.look(self._db, self.run, use=False)
            except (
                TypeError
            ) as error:  # a value that is no longer of its type: nobody has read the whole file
                raise sqlite3.DatabaseError(f"a value is corrupt: {error}") from error
            finally:
                if facts(self.path) != self._facts:  # a fault may come of that, too
                    raise LedgerError(in_use(self.path))


def _attempts(db: sqlite3.Connection, keys: frozenset[bytes]) -> list[Attempt]:
    """One pass over the table, which has no index: only what failed is in it."""
    columns = "key, kind, status, code, message, request_id, run, server"
    rows = db.execute(f"SELECT {columns} FROM attempts ORDER BY rowid")  # noqa: S608 our own words
    return [
        Attempt(key, kind, Rejection(status, code, message, None, request_id), run, server)
        for key, kind, status, code, message, request_id, run, server in rows
        if key in keys
    ]
