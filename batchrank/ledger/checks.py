"""Checksums of the ledger's rows, because SQLite has none: a flipped bit must not become a ranking, or a cap forgotten.

A ledger is read whole when it is opened: its pages by SQLite, its rows here.
"""

import sqlite3
import zlib
from collections.abc import Iterator

ROWS = {
    "rejections": "key, status, code, message, request_id, run",
    "attempts": "key, kind, status, code, message, request_id, predicted, run, documents, day",
    "sent": "key, predicted, run, documents, day",
    "state": "name, value",
}
"""The columns that a row's digest covers: all but the run that used it last, which decides nothing that is paid."""
_ANSWERS = "SELECT key, scores, tokens, predicted, request_id, run, day, searches, digest FROM answers"


def checksum(*values: object) -> int:
    """The digest of a row's values."""
    return zlib.crc32(repr(values).encode())


def answer_checksum(
    key: bytes,
    scores: bytes,
    tokens: int | None,
    predicted: int,
    request_id: str,
    run: int,
    day: int,
    searches: int | None,
) -> int:
    """The digest of an answer; those of older ledgers, which knew no day, cover less."""
    known = zlib.crc32(f"{-1 if tokens is None else tokens}".encode(), zlib.crc32(scores, zlib.crc32(key)))
    known = known if searches is None else zlib.crc32(f"{searches}".encode(), known)
    return zlib.crc32(f"{predicted} {run} {day} {request_id}".encode(), known) if day else known


def check(db: sqlite3.Connection) -> None:
    """Read a whole ledger.

    Raises:
        sqlite3.DatabaseError: a page or a row is damaged.
    """
    for (said,) in db.execute("PRAGMA quick_check(1)"):
        if said != "ok":
            raise sqlite3.DatabaseError(f"a page is corrupt: {said}")
    for table, number in _damaged(db):
        raise sqlite3.DatabaseError(f"row {number} of {table} is corrupt: it doesn't match its checksum")


def _damaged(db: sqlite3.Connection) -> Iterator[tuple[str, int]]:
    for number, row in enumerate(db.execute(_ANSWERS), 1):
        if not _whole(row):
            yield "answers", number
    for table, columns in ROWS.items():
        for number, row in enumerate(db.execute(f"SELECT {columns}, digest FROM {table}"), 1):  # noqa: S608 our own words
            if checksum(*row[:-1]) != row[-1]:
                yield table, number


def _whole(row: tuple[bytes, bytes, int | None, int, str, int, int, int | None, int]) -> bool:
    try:
        return answer_checksum(*row[:-1]) == row[-1]
    except TypeError:  # a value that is no longer of its type
        return False
