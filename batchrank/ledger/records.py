"""Tells whether a write-ahead log (``-wal``) still yields all that was committed to it.

SQLite reads a log up to the first frame that doesn't match its checksum and takes that for its end, because a process
that dies leaves such a frame. Damage looks alike, and would silently take back what was acknowledged. So what stands
after that frame is looked at: only what was written after it, or a frame that is there as a whole, tells damage.
The format is documented at https://www.sqlite.org/fileformat2.html#walformat.
"""

import struct
import sys
from array import array
from pathlib import Path

_HEADER, _FRAME = 32, 24
_MAGIC = 0x377F0682
_WORD = 0xFFFFFFFF


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
