"""Numbers the servers that answer, each with the name of the key that it was asked with, as every answer notes both."""

import sqlite3
from collections.abc import Callable

from batchrank.ledger.rows import ROWS, checksum

Server = tuple[str, str]
"""A server's address as the job names it, without what may be secret in it, and the name of the variable or file that
the API key is from, empty where there is no key; never the key."""


class Servers(dict[Server, int]):
    """The number of each server, which one that is new gets when it is first looked up.

    Looking up one that is known calls no function of ours, as it is done for every request.

    Args:
        db: the ledger.
        note: enters what is to be done in the group that is open now, so that a number is on disk no later than the
            first row that has it.

    Raises:
        sqlite3.DatabaseError: a row is damaged.
    """

    def __init__(
        self, db: sqlite3.Connection, note: Callable[[Callable[[sqlite3.Connection], object]], object]
    ) -> None:
        super().__init__()
        self._note = note
        for *row, digest in db.execute(f"SELECT {ROWS['servers']}, digest FROM servers"):  # noqa: S608 our own words
            if checksum(*row) != digest:
                raise sqlite3.DatabaseError("a server is corrupt: it doesn't match its checksum")
            number, url, key_name = row
            self[url, key_name] = number

    def __missing__(self, server: Server) -> int:
        number = self[server] = 1 + max(self.values(), default=0)
        row = (number, *server)
        insert = f"INSERT INTO servers ({ROWS['servers']}, digest) VALUES (?,?,?,?)"  # noqa: S608 our own words
        self._note(lambda db: db.execute(insert, (*row, checksum(*row))))
        return number

    @property
    def by_number(self) -> dict[int, Server]:
        """The servers by their numbers."""
        return {number: server for server, number in self.items()}
