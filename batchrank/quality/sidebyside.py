"""Puts two outputs side by side, query by query, in bounded memory, in whatever order either has its queries and lines.

Both go into a temporary file, and are read again in the order of their queries: only one query is held at a time.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from batchrank.quality.rankings import Documents, stretches

_CACHE = 64 * 1024
"""KiB of the temporary file that SQLite holds in memory."""


def gathered(paths: Sequence[str]) -> sqlite3.Connection:
    """Put both outputs into a file that SQLite removes by itself.

    Raises:
        InputError: there is no ranking at a path, or it can't be read.
        sqlite3.Error: there is no room for it.
    """
    db = sqlite3.connect("", isolation_level=None)
    db.execute(f"PRAGMA cache_size = -{_CACHE}")
    db.execute("PRAGMA journal_mode = OFF")
    db.execute("BEGIN")
    db.execute("CREATE TABLE stretches (query BLOB NOT NULL, side INTEGER NOT NULL, documents TEXT NOT NULL)")
    for side, path in enumerate(paths):
        rows = ((_bytes(query), side, _columns(found)) for query, found in stretches(path))
        db.executemany("INSERT INTO stretches VALUES (?, ?, ?)", rows)
    db.execute("CREATE INDEX place ON stretches (query, side)")
    db.execute("COMMIT")
    return db


def queries(db: sqlite3.Connection) -> Iterator[tuple[str, list[list[str] | None]]]:
    """Each query with its documents in either output, best first; None where that doesn't rank it."""
    rows = db.execute("SELECT query, side, documents FROM stretches ORDER BY query, side, rowid")
    for query, entries in groupby(rows, key=itemgetter(0)):
        sides: list[Documents | None] = [None, None]
        for _, side, columns in entries:
            more = _documents(columns)
            if (known := sides[side]) is None:
                sides[side] = more
            else:
                known.add(more)
        yield _text(query), [None if side is None else side.after() for side in sides]


def _columns(found: Documents) -> str:
    return json.dumps([found.ids, found.ranks, found.scores])  # which, unlike orjson, has NaN and any id


def _documents(data: str) -> Documents:
    ids, ranks, scores = json.loads(data)
    return Documents(ids, ranks, [], scores)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")
