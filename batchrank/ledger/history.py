"""Keeps a line about every run that used a ledger, which stays when its output is replaced and its answers dropped."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from batchrank.ledger.database import look, translated
from batchrank.ledger.state import HISTORY, load, save

Line = dict[str, Any]
"""What is known of a run, as plain data."""


def begin(db: sqlite3.Connection, line: Line) -> str:
    """Note that a run has begun; by what name to ``end`` it."""
    last = db.execute("SELECT MAX(name) FROM state WHERE name GLOB ?", (f"{HISTORY}*",)).fetchone()[0]
    number = 1 + (int(last.removeprefix(HISTORY)) if last else 0)
    name = f"{HISTORY}{number:010d}"
    save(db, name, line)
    return name


def end(db: sqlite3.Connection, name: str, line: Line) -> None:
    """Note what came of it; of a run that is killed nothing does, and its line stays as it began."""
    save(db, name, line)


def read(path: Path) -> list[Line]:
    """The lines of a ledger, the oldest first. A run may be using it; its own line may be missing then.

    Raises:
        LedgerError: it can't be read, or a line is damaged.
    """
    with translated(path, "read"), closing(_looked_at(path)) as db:
        return list(_lines(db))


def _lines(db: sqlite3.Connection) -> Iterator[Line]:
    names = db.execute("SELECT name FROM state WHERE name GLOB ? ORDER BY name", (f"{HISTORY}*",))
    for (name,) in names.fetchall():
        yield load(db, name)


def _looked_at(path: Path) -> sqlite3.Connection:
    """The ledger; while a run has it locked, what is in its main file, which lacks the last seconds.

    Each line has a checksum, so what is half written while it is read is noticed.
    """
    try:
        return look(path)
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    return sqlite3.connect(address, uri=True, isolation_level=None)
