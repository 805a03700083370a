"""Detects damage: by checksums of the ledger's rows, as SQLite has none, and by a write-ahead log that lost commits."""

import sqlite3
import struct
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchrank.ledger.rows import ANSWER, ROWS, answer_checksum, checksum, server_checksum


def check(db: sqlite3.Connection) -> None:
    """Read a whole ledger.

    Raises:
        sqlite3.DatabaseError: a page or a row is damaged.
    """
    for (said,) in db.execute("PRAGMA integrity_check(1)"):  # unlike a quick one it looks at the indexes too
        if said != "ok":
            raise sqlite3.DatabaseError(f"a page is corrupt: {said}")
    for table, number in _damaged(db):
        raise sqlite3.DatabaseError(f"row {number} of {table} is corrupt: it doesn't match its checksum")


def _damaged(db: sqlite3.Connection) -> Iterator[tuple[str, int]]:
    for number, row in enumerate(db.execute(f"SELECT {ANSWER}, digest FROM answers"), 1):  # noqa: S608 our own words
        if not _whole(row):
            yield "answers", number
    for table, columns in ROWS.items():
        digest = server_checksum if columns.endswith(", server") else checksum
        for number, row in enumerate(db.execute(f"SELECT {columns}, digest FROM {table}"), 1):  # noqa: S608 our own words
            if digest(*row[:-1]) != row[-1]:
                yield table, number


def _whole(row: tuple[Any, ...]) -> bool:
    try:
        *values, digest = row
        return bool(answer_checksum(*values) == digest)
    except TypeError:  # a value that is no longer of its type
        return False


_HEADER = 32
"""Bytes of a log's header (SQLite's file format)."""
_FRAME = 24
"""Bytes of the header of each page in it."""
_MAGIC = 0x377F0682
"""The first bytes of a write-ahead log, but for the last bit, which tells the byte order (SQLite's file format)."""
_WORD = 0xFFFFFFFF
"""Sums are kept in 32 bits, as SQLite does."""


def lost_commits(path: Path) -> bool:
    """Whether commits in a log can't be read any more; False where there is none.

    1. The header is damaged: nothing can be read.
    2. A frame is damaged, and after it there are frames that ended a commit.
    3. The same for the last frame of all: it is there as a whole, and only appended ones can be, once one commit is
       behind the header. A log's first commit may overwrite an older one's frames, so a process that died meanwhile
       leaves a mixture, which is no damage.

    Raises:
        OSError: the file can't be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    if len(data) < _HEADER + _FRAME:
        return False
    magic, _, page, _, *salts, first, second = struct.unpack(">8I", data[:_HEADER])
    swapped = ((magic & 1) == 1) != (sys.byteorder == "big")
    if magic & ~1 != _MAGIC or _checksum(data[: _HEADER - 8], (0, 0), swapped) != (first, second):
        return True
    at, commits, known = _HEADER, 0, (first, second)
    while at + _FRAME + page <= len(data):
        _, size, *rest = struct.unpack(">6I", data[at : at + _FRAME])
        known = _checksum(data[at : at + 8] + data[at + _FRAME : at + _FRAME + page], known, swapped)
        if rest[:2] != salts or tuple(rest[2:]) != known:
            return _commits(data[at:], page, salts) > (commits == 0)
        commits += size != 0
        at += _FRAME + page
    return False


def _commits(data: bytes, page: int, salts: list[int]) -> int:
    """How many whole frames of this log in what can't be read ended a commit; older logs' frames have other salts."""
    found = 0
    for at in range(0, len(data) - _FRAME - page + 1, _FRAME + page):
        _, size, *frame = struct.unpack(">4I", data[at : at + 16])
        found += size != 0 and (frame[0] == salts[0] or frame[1] == salts[1])
    return found


def _checksum(data: bytes, known: tuple[int, int], swapped: bool) -> tuple[int, int]:
    words = array("I", data)
    if swapped:
        words.byteswap()
    one, other = known
    for at in range(0, len(words), 2):
        one = (one + words[at] + other) & _WORD
        other = (other + words[at + 1] + one) & _WORD
    return one, other
