"""Lets a plan look up in a ledger what a run would find there, without changing it or keeping a run from beginning."""

import sqlite3
from pathlib import Path
from typing import Any

from batchrank.errors import LedgerError
from batchrank.ledger.database import facts, in_use, look, translated
from batchrank.ledger.entries import About
from batchrank.ledger.groups import Group
from batchrank.ledger.ledger import Ledger


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
