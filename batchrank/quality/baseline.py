"""The last accepted run's first documents of each query, in a small database beside the output."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import orjson

from batchrank.errors import InputError
from batchrank.quality.rankings import tops
from batchrank.write.switch import MARKER, complete

NAME = "baseline.sqlite"
_DEPTH = 100


class Baseline:
    """Rankings by query id, read from disk one at a time.

    Attributes:
        depth: the documents of each query that are known.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            InputError: it can't be read.
        """
        try:
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False
            )
            self.depth = int(self._db.execute("SELECT depth FROM about").fetchone()[0])
        except sqlite3.Error as error:
            raise InputError(f"{path} can't be read: {error}; remove it, and the gate starts anew") from None

    def get(self, query_id: str) -> list[str] | None:
        """The query's documents, best first; None when it was not ranked."""
        row = self._db.execute("SELECT documents FROM tops WHERE query_id = ?", (query_id,)).fetchone()
        return None if row is None else list(orjson.loads(row[0]))

    def __len__(self) -> int:
        return int(self._db.execute("SELECT COUNT(*) FROM tops").fetchone()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._db.close()


def accepted(folder: Path) -> bool:
    """Whether a folder holds a complete run that did not fail its gate, or whose marker was removed."""
    return complete(folder) and not (folder / MARKER).exists()


def keep(folder: Path, output: Path | None = None, *, depth: int = _DEPTH) -> Path | None:
    """Note the first documents of an accepted run, before its output makes way for another one's.

    Args:
        folder: where the baseline is kept.
        output: the run's output folder, by default the same.
        depth: documents of each query.

    Returns:
        The baseline, perhaps one that was kept before; None when there is none.

    Raises:
        InputError: the rankings can't be read.
    """
    path, output = folder / NAME, output or folder
    if accepted(output):
        temporary = path.with_name(f".{NAME}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            _write(temporary, tops(str(output), max(depth, _DEPTH)), max(depth, _DEPTH))
            temporary.replace(path)
        except (sqlite3.Error, OSError) as error:
            raise InputError(f"{path} can't be written: {error}") from None
        finally:
            temporary.unlink(missing_ok=True)
    return path if path.exists() else None


def _write(path: Path, found: Iterator[tuple[str, list[str]]], depth: int) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("BEGIN")
        db.execute("CREATE TABLE about (depth INTEGER NOT NULL)")
        db.execute("CREATE TABLE tops (query_id TEXT PRIMARY KEY, documents BLOB NOT NULL) WITHOUT ROWID")
        db.execute("INSERT INTO about VALUES (?)", (depth,))
        rows = ((query_id, orjson.dumps(documents)) for query_id, documents in found)
        db.executemany("INSERT OR REPLACE INTO tops VALUES (?, ?)", rows)
        db.execute("COMMIT")
    finally:
        db.close()
