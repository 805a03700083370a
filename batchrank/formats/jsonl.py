"""JSON lines, read and written: one object a line, UTF-8, at most 64 MiB a line.

Of a key that comes twice in an object the last value counts, as in every JSON library.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

from batchrank.errors import Place
from batchrank.formats import others
from batchrank.formats.base import Item, Source, Unrecognised, cut, unreadable
from batchrank.formats.lines import Lines, too_long
from batchrank.formats.objects import Objects
from batchrank.formats.rows import merge_row, ranking_rows
from batchrank.job.sections import Columns
from batchrank.records import Failure, Ranking


def read(source: Source, columns: Columns) -> Iterator[Item]:
    """The records of a file or of standard input; what can't be read is yielded as a failure in its place."""
    try:
        lines = Lines(source)
    except OSError as error:
        yield unreadable(source, "line", error)
        return
    objects = Objects(columns, source)
    with lines.closing():
        try:
            if (other := others.no_text(lines.decompress().peek(others.HEAD)[: others.HEAD])) is not None:
                yield Unrecognised.of(Place(source.name, "line", 1), other)
                return
            for number, line in lines:
                place = Place(source.name, "line", number)
                if line is None:
                    yield Failure(place, None, "line-too-long", too_long())
                elif not line.isspace():
                    yield _item(line, place, objects)
        except OSError as error:
            yield cut(source, "line", lines.number, error)


def _item(line: bytes, place: Place, objects: Objects) -> Item:
    record = parsed(line, place)
    return record if isinstance(record, Failure) else objects.item(record, place)


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
            f"a JSON array where one object a line is due; convert the file: jq -c '.[]' ({where})",
        )
    if error.pos >= len(text):
        return (
            "broken-json",
            f"the line ends within its record {where}; the file may be cut off: write it again",
        )
    return "broken-json", f"the line is not JSON {where}; correct the line, or write the file again"


class JsonlWriter:
    """One line a query: its id, its ranking, and how that was made."""

    def __init__(self, files: tuple[BinaryIO, ...]) -> None:
        (self._file,) = files

    def add(self, ranking: Ranking) -> None:
        """Write one line."""
        self._file.write(line(ranking))

    def finish(self) -> None:
        """Nothing is held back."""


def line(ranking: Ranking) -> bytes:
    """The line of one query, with its line end."""
    data = {"query_id": ranking.query_id, "ranking": ranking_rows(ranking), "merge": merge_row(ranking)}
    return orjson.dumps(data, option=orjson.OPT_APPEND_NEWLINE)
