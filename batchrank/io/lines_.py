"""The lines of a text file, numbered from 1, at most 64 MiB each."""

import io
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import cast

from batchrank.io.encoding import in_utf8
from batchrank.io.lines import BUFFER, decompressed
from batchrank.io.storage import open_stream
from batchrank.read.base import Source
from batchrank.read.detect import HEAD, no_text
from batchrank.read.jsonstream import START as SHAPE_START
from batchrank.read.jsonstream import Shape, shape_of

MAX_LINE = 64 * 1024 * 1024
"""Bytes; a longer line is a bad record."""

_BOM = b"\xef\xbb\xbf"
# Asking a file for its position takes as long as reading a short line.
_GAUGED_LINES = 16


class Lines:
    """A text file while it is read, decompressed where it is compressed.

    Raises:
        OSError: it can't be opened; and from reading, it is cut off or corrupt.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._file = _stdin() if source.path is None else open_stream(source.path)
        self.number = 0
        """The number of the last line read."""

    def closing(self) -> AbstractContextManager[object]:
        """Closes the file in the end; standard input stays open."""
        return nullcontext() if self._source.path is None else self._file

    def decompress(self) -> io.BufferedReader:
        """The text in UTF-8, for a look at its start.

        Raises:
            ForeignError: it is of a format that isn't text.
        """
        text = decompressed(self._file, self._source.path or "")
        if (foreign := no_text(text.peek(HEAD)[:HEAD])) is not None:
            raise foreign
        self._text = in_utf8(text)
        return self._text

    @property
    def text(self) -> io.BufferedReader:
        """The text, once it is decompressed."""
        return self._text

    @cached_property
    def shape(self) -> Shape:
        """What a JSON file holds, told by its start; to be asked before it is read."""
        return shape_of(self._text.peek(SHAPE_START)[:SHAPE_START])

    def gauge(self, *, done: bool = False) -> None:
        """Tell how far reading has come, for readers of something other than lines."""
        if self._source.path is not None:
            self._source.gauge.at(1 if done else self._file.tell() / max(self._source.bytes, 1))

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        """Each line with its number; None for one that is too long, which is never held as a whole."""
        text, size = self._text, self._source.bytes
        while line := text.readline(MAX_LINE + len(b"\r\n")):
            self.number += 1
            if self.number == 1:
                line = line.removeprefix(_BOM)
            if self._source.path is not None and self.number % _GAUGED_LINES == 0:
                self._source.gauge.at(self._file.tell() / max(size, 1))
            if len(line) <= MAX_LINE or len(line.rstrip(b"\r\n")) <= MAX_LINE:
                yield self.number, line
                continue
            while line and not line.endswith(b"\n"):
                line = text.readline(BUFFER)
            yield self.number, None
        if self._source.path is not None:
            self._source.gauge.at(1)


def too_long() -> str:
    """What to say of a line that is too long."""
    limit = f"{MAX_LINE // 2**20} MiB"
    return f"the line is longer than {limit}; split the query's candidates, or shorten their texts"


def _stdin() -> io.BufferedReader:
    stdin = sys.stdin.buffer
    return stdin if isinstance(stdin, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, stdin))
