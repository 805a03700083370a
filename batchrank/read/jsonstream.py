"""Reads JSON files that are not JSON lines one value at a time, so that a file of any size needs little memory.

1. One array of records, on one line or many: what ``json.dump`` and ``DataFrame.to_json`` write.
2. Records printed over several lines, one after the other: what ``jq`` writes.
3. One object of results, ``{query: {document: score}}``: what BEIR and ranx write.
"""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

from batchrank.io.opening import ForeignError
from batchrank.read.names import CANDIDATES, DOC_ID, IDS, QUERY, QUERY_ID, SCORE, TEXT

LARGEST = 64 * 1024 * 1024
"""Characters of one value; a longer one is not read, like a line that is too long."""
START = 1 << 16
"""So many first bytes tell what a file holds."""

_BUFFER = 1 << 18
"""Characters read at a time."""
_NEAR = 16
"""An error so close to the end of what was read may only mean that the value goes on."""
_SPACE = " \t\r\n"
_STRING = r'"(?:[^"\\]|\\.)*"'
_RESULTS = re.compile(rf"\s*\{{\s*({_STRING})\s*:\s*\{{\s*({_STRING})\s*:\s*-?[0-9]")
_COLUMNAR = re.compile(rf'\s*\{{\s*({_STRING})\s*:\s*\{{\s*"0"\s*:')
# Of a record these may begin with an object whose first value is a number.
_RECORD_KEYS = {'"query"', '"ranking"', '"doc"', '"metadata"', '"meta"'}
_COLUMN_KEYS = {
    f'"{name}"'
    for tiers in (QUERY_ID, QUERY, CANDIDATES, DOC_ID, IDS, TEXT, SCORE)
    for tier in tiers
    for name in tier
}


class Shape(Enum):
    """What a JSON file holds."""

    LINES = "one record a line"
    ARRAY = "one array of records"
    VALUES = "records over several lines"
    RESULTS = "one object of results"
    COLUMNAR = "one object of columns"


@dataclass(frozen=True, slots=True)
class Broken:
    """Why a value can't be read; nothing after it in the file can be read either."""

    message: str


def shape_of(start: bytes) -> Shape:
    """What a file that begins so holds."""
    text = start.decode("utf-8", "replace").lstrip("\ufeff" + _SPACE)
    if text.startswith("["):
        return Shape.ARRAY
    if (match := _COLUMNAR.match(text)) and match[1] in _COLUMN_KEYS:
        return Shape.COLUMNAR
    if (match := _RESULTS.match(text)) and match[1] not in _RECORD_KEYS:
        return Shape.RESULTS
    first = text.partition("\n")[0].rstrip()
    return Shape.VALUES if first == "{" else Shape.LINES


def values(text: io.BufferedReader, shape: Shape) -> Iterator[tuple[int, str | Broken]]:
    """The JSON of each record with the number of the line on which it begins; the last one may be ``Broken``.

    Of results each query is a record of ``query_id`` and ``scores``.

    Raises:
        OSError: the file can't be read to its end.
        ForeignError: it holds no records.
    """
    scanner = _Scanner(text)
    try:
        if shape is Shape.ARRAY:
            yield from _array(scanner)
        elif shape is Shape.RESULTS:
            yield from _results(scanner)
        elif shape is Shape.COLUMNAR:
            raise ForeignError(
                "it is one object of columns, as DataFrame.to_json writes by default; write records: orient='records'"
            )
        else:
            while scanner.peek():
                yield scanner.line, scanner.value()
    except _ScanError as error:
        yield scanner.line, Broken(str(error))


def _array(scanner: "_Scanner") -> Iterator[tuple[int, str]]:
    scanner.take("[")
    if scanner.peek() == "]":
        return
    while True:
        scanner.peek()
        yield scanner.line, scanner.value()
        if scanner.take(",]") == "]":
            break
    if scanner.peek():
        raise _ScanError("after the array's end there is more; write one array, or one record a line")


def _results(scanner: "_Scanner") -> Iterator[tuple[int, str]]:
    scanner.take("{")
    while True:
        scanner.peek()
        line = scanner.line
        query = scanner.value()
        scanner.take(":")
        scores = scanner.value()
        yield line, f'{{"query_id": {query}, "scores": {scores}}}'
        if scanner.take(",}") == "}":
            return


class _ScanError(ValueError):
    """What follows is not the JSON that is expected here."""


class _Scanner:
    """Takes one value after the other off a text."""

    def __init__(self, text: io.BufferedReader) -> None:
        self._text = io.TextIOWrapper(cast(io.BufferedReader, _Open(text)), "utf-8-sig", newline="")
        self._decoder = json.JSONDecoder()
        self._buffer, self._at, self._ended = "", 0, False
        self.line = 1
        """The line of what comes next."""

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in _SPACE:
                self.line += self._buffer[self._at] == "\n"
                self._at += 1
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more(_BUFFER):
                return ""

    def take(self, expected: str) -> str:
        """The next character, which must be one of those expected."""
        found = self.peek()
        if not found or found not in expected:
            due = " or ".join(expected)
            what = f"{found!r} stands" if found else "the file ends"
            raise _ScanError(f"{what} where {due} is expected; the file may be cut off: write it again")
        self._at += 1
        return found

    def value(self) -> str:
        """The JSON of the next value: where it ends is told by the standard library's parser."""
        self.peek()
        size = _BUFFER
        while True:
            try:
                _, end = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                self._require_more(error, size)
            except RecursionError:
                raise _ScanError("a record is nested too deeply; nothing after it can be read") from None
            else:
                # A number may go on in what has not been read yet.
                if end < len(self._buffer) or not self._more(size):
                    found = self._buffer[self._at : end]
                    self.line += found.count("\n")
                    self._at = end
                    return found
            size *= 2

    def _require_more(self, error: json.JSONDecodeError, size: int) -> None:
        held = len(self._buffer) - self._at
        unfinished = error.msg.startswith("Unterminated") or error.pos >= len(self._buffer) - _NEAR
        if unfinished and held > LARGEST:
            raise _ScanError(f"a record is longer than {LARGEST // 2**20} MiB; split its candidates")
        if unfinished and self._more(size):
            return
        where = f"line {self.line + self._buffer.count(chr(10), self._at, error.pos)}"
        raise _ScanError(f"this is no JSON at {where}: {error.msg}; nothing after it can be read: correct it")

    def _more(self, size: int) -> bool:
        try:
            data = "" if self._ended else self._text.read(size)
        except UnicodeDecodeError as error:
            raise _ScanError(f"the text is not UTF-8 ({error.reason}); convert the file to UTF-8") from None
        self._ended = not data
        self._buffer, self._at = self._buffer[self._at :] + data, 0
        return bool(data)


class _Open(io.RawIOBase):
    """A stream that stays open when its reader is dropped: it is its opener's to close."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self._stream.readinto(buffer)
