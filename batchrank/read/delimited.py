"""Splits text files of columns into rows of fields: CSV, and files with tabs or white space between columns.

Whether fields may stand in quotes is decided once a file, by its first lines:

1. CSV: they may, as RFC 4180 has it, line ends within them included.
2. Tabs, and all that is no number is in quotes (pyarrow writes so): likewise.
3. Other files with tabs: a quote is a character like any other (MS MARCO), unless its field can't be read otherwise: it
   holds a doubled quote, a tab or a line end, which is the only reason for quotes that csv writers know by default; or
   it is nothing but two quotes, as DuckDB writes an empty text.
4. White space: no field has quotes.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

from batchrank.read.base import Source
from batchrank.read.jsonl import MAX_LINE, Lines, too_long

Fields: TypeAlias = list[str]
Raw: TypeAlias = tuple[int, bytes | None]

_SAMPLE_LINES = 1000
"""Lines that tell how quotes are used; later lines of another kind are reported one by one."""
_SAMPLE_BYTES = 1 << 20
"""1 MiB: no more is held of them."""
_DELIMITERS = (",", ";", "\t", "|")
_EMPTY = '""'
_AHEAD = 200
"""So many lines a field in quotes may have in a file where quotes are rare."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How columns are set apart: by a character, or (None) by white space; and whether all quotes are such."""

    delimiter: str | None
    quoted: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there are no fields."""

    cause: str
    message: str


Line: TypeAlias = tuple[int, str, Fault | None]
Row: TypeAlias = tuple[int, Fields | Fault]
"""The number of the line on which it begins, and its fields."""


class Delimited:
    """A text file of columns, opened, while it is read once.

    Raises:
        OSError: it can't be opened; and from reading: it can't be read to its end.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._lines = Lines(source)
        self._sample: list[Raw] = []
        self._rest: Iterator[Raw] = iter(())

    @property
    def number(self) -> int:
        """The number of the last line read."""
        return self._lines.number

    def closing(self) -> AbstractContextManager[object]:
        """Closes the file in the end."""
        return self._lines.closing()

    def look(self) -> None:
        """Read the first lines."""
        self._lines.decompress()
        self._rest = iter(self._lines)
        size = 0
        for number, line in self._rest:
            self._sample.append((number, line))
            size += len(line or b"")
            if len(self._sample) >= _SAMPLE_LINES or size >= _SAMPLE_BYTES:
                return

    def first(self) -> str:
        """The first line that isn't blank, as messages show it; empty when there is none."""
        lines = (line.decode("utf-8", "replace") for _, line in self._sample if line and not line.isspace())
        return next(lines, "").rstrip("\r\n")

    def dialect(self) -> Dialect:
        """How the columns are set apart, by the first lines."""
        texts = [line.decode("utf-8", "replace") for _, line in self._sample if line and not line.isspace()]
        if self.source.format == "csv":
            return Dialect(_delimiter(texts), quoted=True)
        if 2 * sum("\t" in text for text in texts) <= len(texts):
            return Dialect(None, quoted=False)
        return Dialect("\t", quoted=_all_quoted(texts))

    def sample(self, dialect: Dialect) -> list[Fields | Fault]:
        """The first lines; a field in quotes that goes on past them is left out."""
        found: list[Fields | Fault] = []
        with suppress(OSError):
            found.extend(row for _, row in rows(self._sample, dialect, 0))
        return found

    def rows(self, dialect: Dialect, columns: int) -> Iterator[Row]:
        """All rows, in order; ``columns`` is how many are usual."""
        return rows(chain(self._sample, self._rest), dialect, columns)


def rows(lines: Iterable[Raw], dialect: Dialect, columns: int) -> Iterator[Row]:
    """The rows of numbered lines.

    Raises:
        OSError: a field in quotes doesn't end.
    """
    feed = _Feed(lines)
    return _in_quotes(feed, dialect) if dialect.quoted else _plain(feed, dialect.delimiter, columns)


class _Feed(Iterator[str]):
    """Lines as texts; what is wrong with one is noted, as the record that it is a part of can't be read then."""

    def __init__(self, lines: Iterable[Raw]) -> None:
        self._lines = iter(lines)
        self._again: deque[Line] = deque()
        self.number = 0
        self.fault: Fault | None = None

    def __next__(self) -> str:
        if self._again:
            self.number, text, self.fault = self._again.popleft()
            return text
        self.number, line = next(self._lines)
        if line is None:
            self.fault = Fault("line-too-long", too_long())
            return "\n"
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            why = f"the line is not UTF-8 ({error.reason}); convert the file to UTF-8"
            self.fault = Fault("invalid-utf8", why)
            return line.decode("utf-8", "replace")

    def push_back(self, lines: Iterable[Line]) -> None:
        """Give lines once more."""
        self._again.extendleft(reversed(list(lines)))

    def taken(self) -> Fault | None:
        """What was wrong since this was asked last."""
        fault, self.fault = self.fault, None
        return fault


def _in_quotes(feed: _Feed, dialect: Dialect) -> Iterator[Row]:
    reader = _reader(feed, dialect.delimiter or ",")
    while True:
        start = feed.number + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error) or "field limit" in str(error):
                raise OSError(f"the field in quotes that begins after line {start - 1} doesn't end") from None
            reach = f"lines {start} to {feed.number} are" if feed.number > start else "the line is"
            yield start, Fault("broken-line", f"{reach} no record of CSV: {error}; correct the quotes")
            feed.taken()
            continue
        if (fault := feed.taken()) is not None:
            yield start, fault
        elif fields and not (len(fields) == 1 and not fields[0].strip()):
            yield start, fields


def _reader(lines: Iterable[str], delimiter: str) -> Iterator[Fields]:
    csv.field_size_limit(MAX_LINE)  # of the whole process: by default a long text is an error
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _plain(feed: _Feed, delimiter: str | None, columns: int) -> Iterator[Row]:
    for line in feed:
        number = feed.number
        if (fault := feed.taken()) is not None:
            yield number, fault
            continue
        text = line.rstrip("\r\n")
        if not text or text.isspace():
            continue
        fields = text.split(delimiter)
        if delimiter and '"' in text and any(field.startswith('"') for field in fields):
            fields = _needed(line, feed, delimiter, columns) or fields
        yield number, fields


def _needed(line: str, feed: _Feed, delimiter: str, columns: int) -> Fields | None:
    """The fields of a record whose quotes are needed; None where they are characters like any other."""
    if (fields := _parsed([line], delimiter)) is not None:
        raw = line.rstrip("\r\n").split(delimiter)
        needed = len(fields) != len(raw) or any(map(_must_be_quoted, raw))
        return fields if needed else None
    number = feed.number
    complete = len(line.split(delimiter)) == columns
    ahead: list[Line] = []
    for following in feed:
        ahead.append((feed.number, following, feed.fault))
        both = complete and len(following.split(delimiter)) == columns
        if feed.fault or len(ahead) > _AHEAD or both:
            break
        if (
            '"' in following
            and (fields := _parsed([line, *(text for _, text, _ in ahead)], delimiter)) is not None
        ):
            if columns in (0, len(fields)):
                return fields
            break
    feed.number, feed.fault = number, None
    feed.push_back(ahead)
    return None


def _must_be_quoted(field: str) -> bool:
    return field == _EMPTY or (field[:1] == '"' and '""' in field[1:-1])


def _parsed(lines: Sequence[str], delimiter: str) -> Fields | None:
    """The one record that these lines are; None where they aren't one."""
    try:
        found = list(_reader(lines, delimiter))
    except csv.Error:
        return None
    return found[0] if len(found) == 1 else None


def _delimiter(texts: Sequence[str]) -> str:
    """What sets the columns of CSV apart: the character that gives the first line most columns."""
    if not texts:
        return ","
    first = {mark: len(_parsed(texts[:1], mark) or texts[0].split(mark)) for mark in _DELIMITERS}
    return max(_DELIMITERS, key=lambda mark: first[mark])


def _all_quoted(texts: Sequence[str]) -> bool:
    """Whether quotes are what sets fields apart: all of the first line, or all of some column, is in quotes."""
    table = [text.rstrip("\r\n").split("\t") for text in texts]
    first = table[0]
    if len(first) > 1 and all(_in_quotation(cell) or _number(cell) for cell in first):
        return any(map(_in_quotation, first))
    alike = [row for row in table[1:] if len(row) == len(first)]
    return len(alike) > 1 and any(
        all(map(_in_quotation, filled)) and len(filled) > 1
        for filled in ([cell for cell in column if cell] for column in zip(*alike, strict=True))
    )


def _in_quotation(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def _number(cell: str) -> bool:
    try:
        float(cell or "0")
    except ValueError:
        return False
    return True
