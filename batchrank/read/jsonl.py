"""Reads JSON lines, one object a line and at most 64 MiB of it; the lines of any text file, numbered, likewise.

Of a key that comes twice in an object the last value counts, as in every JSON library.
"""

import io
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, cast

import orjson

from batchrank.errors import Place
from batchrank.io.opening import BUFFER, HEAD, decompressed, in_utf8, no_text
from batchrank.io.storage import open_stream
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read.base import TRUNCATED, ColumnsError, Item, Source, Unrecognised, cut, unreadable
from batchrank.read.jsonstream import START as SHAPE_START
from batchrank.read.jsonstream import Broken, Shape, shape_of, values
from batchrank.read.objects import Objects

MAX_LINE = 64 * 1024 * 1024
"""Bytes; a longer line is a bad record."""

_BOM = b"\xef\xbb\xbf"
# Asking a file for its position takes as long as reading a short line.
_GAUGED_LINES = 16
"""Lines between two looks at the position in the file, which takes a system call."""


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


def read(source: Source, columns: Columns) -> Iterator[Item]:
    """The records of a file or of standard input; what can't be read is yielded as a failure in its place."""
    try:
        lines = Lines(source)
    except OSError as error:
        yield unreadable(source, error)
        return
    objects = Objects(columns, source)
    with lines.closing():
        try:
            lines.decompress()
            for place, record in records(lines, source):
                if isinstance(record, Failure):
                    yield record
                elif lines.shape is Shape.RESULTS:
                    yield Unrecognised.of(place, _is_results())
                else:
                    yield objects.item(record, place)
        except OSError as error:
            yield cut(source, lines.number, error)


def records(lines: Lines, source: Source) -> Iterator[tuple[Place, Any]]:
    """The values of an opened file, each with its place, or a failure where there is none.

    Raises:
        OSError: the file can't be read to its end.
    """
    if lines.shape is not Shape.LINES:
        yield from _spread(lines, source)
        return
    for number, line in lines:
        place = Place(source.name, "line", number)
        if line is None:
            yield place, Failure(place, None, "line-too-long", too_long())
        elif not line.isspace():
            record = parsed(line, place)
            yield place, source.partition | record if source.partition and type(record) is dict else record


def _spread(lines: Lines, source: Source) -> Iterator[tuple[Place, Any]]:
    """Records that don't stand on a line each; one that is broken may take the rest of the file with it."""
    for number, text in values(lines.text, lines.shape):
        lines.number = number
        lines.gauge()
        place = Place(source.name, "line", number)
        if isinstance(text, Broken):
            yield place, Failure(place, None, TRUNCATED, text.message)
            continue
        record = parsed(text.encode("utf-8", "surrogatepass"), place)
        if source.partition and type(record) is dict:
            record = source.partition | record
        yield place, _as_record(record, place) if lines.shape is Shape.RESULTS else record
    lines.gauge(done=True)


def _as_record(results: Any, place: Place) -> Any:
    """One query's results as a record with a list of candidates."""
    if isinstance(results, Failure):
        return results
    query, scores = results["query_id"], results["scores"]
    if type(scores) is not dict:
        why = f"the results of query {query!r} are no object of documents and scores; correct the file"
        return Failure(place, None, "wrong-type", why)
    items = [{"doc_id": name, "score": score} for name, score in scores.items()]
    return {"query_id": query, "candidates": items}


def _is_results() -> ColumnsError:
    return ColumnsError(
        "no-candidates",
        "these are results, {query: {document: score}}, which name documents by id only; set input.corpus to the file "
        "that holds their texts",
        ambiguous=True,
    )


def parsed(line: bytes, place: Place) -> Any:
    """The value that a line holds, or a failure that tells why it holds none."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        cause, message = _diagnosis(line, error)
        return Failure(place, None, cause, message)


def _diagnosis(line: bytes, error: orjson.JSONDecodeError) -> tuple[str, str]:
    """Why a line is not JSON, and what to do: (cause, message)."""
    try:
        text = line.decode()
    except UnicodeDecodeError as wrong:
        byte = f"byte {wrong.start + 1} of the line is 0x{line[wrong.start]:02x}"
        return "invalid-utf8", f"the line is not UTF-8 ({byte}: {wrong.reason}); convert the file to UTF-8"
    text = text.rstrip()
    where = f"at character {min(error.pos, len(text)) + 1}: {error.msg.split(':')[0]}"
    number = next((n for n in ("NaN", "Infinity", "-Infinity") if text.startswith(n, error.pos)), None)
    if "surrogate" in error.msg:
        return "invalid-unicode", f"half a surrogate pair {where}; no text can hold one: remove or replace it"
    if number:
        return "broken-json", f"{number} {where}; JSON has no such number: write null"
    if text.lstrip().startswith("["):
        return (
            "broken-json",
            f"a JSON array where one object a line is expected {where}; write one kind of record",
        )
    if error.pos >= len(text):
        return (
            "broken-json",
            f"the line ends within its record {where}; the file may be cut off: write it again",
        )
    return "broken-json", f"the line is not JSON {where}; correct the line, or write the file again"
