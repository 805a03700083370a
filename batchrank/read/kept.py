"""Keeps texts in a file of their own, because a database that sorts rows holds in memory all that each row carries."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from batchrank.arrays import Positions

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
