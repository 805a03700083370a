"""Keeps on disk what doesn't fit in memory, in files that go away with their process, even if it is killed."""

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from batchrank.data import Positions

_PREFIX = "batchrank-"
_LOCK = "lock"
_SETTLED = 60.0
"""Seconds after which a folder is surely locked by its owner, if it has one."""


class Scratch:
    """A folder of this process's own under ``TMPDIR``; folders that killed processes left there are removed."""

    def __init__(self) -> None:
        _sweep(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _sweep(parent: Path) -> None:
    for path in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError):
            if path.stat().st_uid == os.getuid() and time.time() - path.stat().st_mtime > _SETTLED:
                _remove_if_left(path)


def _remove_if_left(lock: Path) -> None:
    descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(lock.parent, ignore_errors=True)
    finally:
        os.close(descriptor)


Array = Any  # pyarrow has no type hints


class Kept:
    """Texts one after the other in a file; each is known by where it begins and how many bytes it takes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self.end = 0
        """Where the next one begins."""

    def write(self, data: Any) -> int:
        """Append some bytes."""
        size = memoryview(data).nbytes
        self._file.write(data)
        self.end += size
        return size

    def add(self, texts: Array) -> tuple[Positions, Positions]:
        """Append a column of strings; returns where each begins, and its bytes."""
        count, (_, offsets, values) = len(texts), texts.buffers()
        if not count or values is None:
            return np.full(count, self.end), np.zeros(count, np.int64)
        bounds = np.frombuffer(offsets, np.int32, count + 1, texts.offset * 4).astype(np.int64)
        first, last = int(bounds[0]), int(bounds[-1])
        begins = bounds[:-1] - first + self.end
        self.write(values.slice(first, last - first))
        return begins, np.diff(bounds)

    def flush(self) -> None:
        """Make what was written readable."""
        self._file.flush()

    def read(self, at: int, size: int) -> bytes:
        """What was appended there.

        Raises:
            OSError: the file can't be read.
        """
        found = os.pread(self._file.fileno(), size, at)
        if len(found) != size:
            raise OSError(f"of {size} bytes at {at} in a temporary file {len(found)} are there")
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()
