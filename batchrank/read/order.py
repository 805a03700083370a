"""Puts queries in the order of a field of their records, on disk, so that what matters most is ranked first.

``value_in`` and ``ColumnOrder`` find the field's value, in a record and in the columns of a table.

The input is read once. Each query goes to a file under ``TMPDIR``, as it is, and its value with its place to SQLite,
which sorts on disk as well; so memory holds neither. Values are numbers, also those written as texts, or else texts.
Queries without a value come last, then records that can't be ranked; what is equal stays in the order of the input.
"""

import pickle
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import pyarrow as pa

from batchrank.data import Query
from batchrank.errors import InputError, Place
from batchrank.io.scratch import Kept, Scratch
from batchrank.outcomes import Failure
from batchrank.read.arrow import at, type_at
from batchrank.read.base import Gauge, Item, Segment, Unordered
from batchrank.read.names import Path
from batchrank.read.pieces import Piece

Items: TypeAlias = Iterator[Query | Failure]
Value: TypeAlias = int | float | str | None

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_LARGEST = 2**63
"""Beyond it SQLite has no whole numbers."""
_HOPELESS = 1_000
"""Queries without the field, from the start, after which its name is wrong; ``check`` looks at as many records."""
_OPEN = 16
"""Queries whose value is known before they are complete: the one at hand, and few more."""
_FETCHED = 4_096
"""Rows fetched at a time, as each fetch has a cost of its own."""
_CACHE_KIB = 8_192
"""Memory that SQLite may use before it sorts on disk."""
_CREATE = (
    "CREATE TABLE staged (seq INTEGER PRIMARY KEY, number, text, place INTEGER, size INTEGER, failed INTEGER)"
)


@dataclass(frozen=True, slots=True)
class Order:
    """What ``input.order`` says.

    Attributes:
        field: the field's name.
        falling: whether its highest value comes first.
    """

    field: str
    falling: bool

    @classmethod
    def of(cls, text: str) -> "Order":
        """By a field's name, with a minus before it where the highest comes first."""
        return cls(text.removeprefix("-"), text.startswith("-"))


class Ordered:
    """Knows each query's value while it is read, and gives queries in the order of their values.

    Attributes:
        field: the name of the field that tells it.

    Args:
        order: what they are ordered by.
    """

    def __init__(self, order: Order) -> None:
        self.field = order.field
        self._order = order
        self._values: dict[str, Any] = {}
        self._current: Value = None
        self._without: Unordered | None = None
        self._count = 0
        self._found = False
        self._kinds: dict[str, str] = {}

    def noting(self, items: Iterable[Segment | Failure]) -> Iterator[Segment | Failure]:
        """Pass segments on, and remember the value of each query: that of its first record."""
        for item in items:
            if isinstance(item, Segment):
                self._values.setdefault(item.query_id, item.order)
                if len(self._values) > _OPEN:
                    del self._values[next(iter(self._values))]
            yield item

    def known(self, items: Items) -> Items:
        """Pass queries on, each of whose values is known until the next one is asked for.

        Raises:
            InputError: no record has the field, or values can't be compared with each other.
        """
        for item in items:
            self._current = None
            if isinstance(item, Query):
                self._take(self._values.pop(item.id, None), item.place)
            yield item
        self._refuse_unknown(self._count)

    def _take(self, value: Any, place: Place) -> None:
        self._count += 1
        if isinstance(value, Unordered):
            self._without = self._without or value
        else:
            self._found = True
            self._current = self._value(value, place)
        if self._count >= _HOPELESS:
            self._refuse_unknown(_HOPELESS)

    def _refuse_unknown(self, count: int) -> None:
        if count and not self._found:
            there = ", ".join(self._without.names[:20]) if self._without else ""
            looked = "no record" if count < _HOPELESS else f"none of the first {count:,} queries"
            raise InputError(
                f"input.order: {looked} has a field {self._order.field!r}; the first has {there or 'none'}: correct "
                "the name, or remove the key"
            )

    def sorted(self, items: Items, gauge: Gauge) -> Items:
        """All queries in order; reads them all first.

        Raises:
            InputError: the temporary files can't be written.
        """
        with closing(_Staged()) as staged:
            for item in items:
                staged.add(item, self._current)
            column = "text" if "text" in self._kinds else "number"
            gauge.count()
            for number, found in enumerate(staged.read(column, falling=self._order.falling), 1):
                gauge.at(number / staged.count)
                yield found

    def _value(self, value: Any, place: Place) -> Value:
        """A value as it is compared.

        Raises:
            InputError: it is none that has an order, or none among those before it.
        """
        if value is None or value != value or value == "":
            return None
        if isinstance(value, bool | int):
            found: Value = int(value) if abs(value) < _LARGEST else float(value)
        elif isinstance(value, float | Decimal):
            found = float(value)
        elif isinstance(value, timedelta):
            found = value.total_seconds()
        elif isinstance(value, datetime | date | time):
            found = value.isoformat()
        elif isinstance(value, str):
            found = value
        else:
            raise InputError(
                f"input.order: the field {self._order.field!r} holds a {type(value).__name__} at {place}; name one "
                "that holds numbers or texts"
            )
        kind = "number" if not isinstance(found, str) else "" if _NUMBER.fullmatch(found) else "text"
        if kind:
            self._kinds.setdefault(kind, f"{str(value)[:60]} at {place}")
        if len(self._kinds) > 1:
            raise InputError(
                f"input.order: the field {self._order.field!r} holds numbers ({self._kinds['number']}) and texts "
                f"({self._kinds['text']}), which have no order among them; write all of them as one or the other"
            )
        return found


class _Staged:
    """Queries on disk.

    Raises:
        InputError: here and from every method: there is no room.
    """

    def __init__(self) -> None:
        self.count = 0
        with _translated():
            self._scratch = Scratch()
            self._kept = Kept(self._scratch.path / "queries")
            # The reader may be driven from one thread after another, never from two at a time.
            self._database = sqlite3.connect(
                self._scratch.path / "values", isolation_level=None, check_same_thread=False
            )
            for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
                self._database.execute(f"PRAGMA {pragma}")
            self._database.execute(_CREATE)
            self._database.execute("BEGIN")

    def add(self, item: Query | Failure, value: Value) -> None:
        """Take one."""
        text, number = (value, _as_number(value)) if isinstance(value, str) else (None, value)
        data = None if text is None else text.encode("utf-8", "surrogatepass")
        with _translated():
            place = self._kept.end
            pickle.dump(item, self._kept, pickle.HIGHEST_PROTOCOL)
            row = (self.count, number, data, place, self._kept.end - place, isinstance(item, Failure))
            self._database.execute("INSERT INTO staged VALUES (?, ?, ?, ?, ?, ?)", row)
        self.count += 1

    def read(self, column: str, *, falling: bool) -> Items:
        """All of them, by one of the columns."""
        way = "DESC" if falling else "ASC"
        with _translated():
            self._kept.flush()
            rows = self._database.execute(
                f"SELECT place, size FROM staged ORDER BY failed, {column} IS NULL, {column} {way}, seq"  # noqa: S608 our own words
            )
            while found := rows.fetchmany(_FETCHED):
                for place, size in found:
                    yield pickle.loads(self._kept.read(place, size))  # noqa: S301 we wrote it, to a folder of our own

    def close(self) -> None:
        """Remove all of it."""
        self._database.close()
        self._kept.close()
        self._scratch.close()


def _as_number(text: str) -> Value:
    """The number that a text is; None where it is none."""
    if not _NUMBER.fullmatch(text):
        return None
    try:
        whole = int(text)
    except ValueError:
        return float(text)
    return whole if abs(whole) < _LARGEST else float(text)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise InputError(
            f"input.order: queries can't be put in order in temporary files: {error}; free some space, or set TMPDIR "
            "to a folder that has some"
        ) from error


def value_in(record: Mapping[str, Any], field: str) -> Any:
    """A field of a record; a dot reaches into an object, where no whole name has it."""
    if field in record:
        return record[field]
    outer, dot, inner = field.partition(".")
    below = record.get(outer) if dot else None
    return below[inner] if isinstance(below, dict) and inner in below else Unordered(tuple(record))


class ColumnOrder:
    """Tells the value of the field that queries are ordered by.

    Raises:
        InputError: it is of a type that has no order.
    """

    def __init__(self, schema: Any, field: str | None) -> None:
        self._names = tuple(schema.names)
        outer, dot, inner = (field or "").partition(".")
        self._path: Path = (field,) if field is not None and field in schema.names else ()
        if not self._path and dot and outer in schema.names:
            kind = schema.field(outer).type
            if pa.types.is_struct(kind) and kind.get_field_index(inner) >= 0:
                self._path = (outer, inner)
        if self._path and pa.types.is_nested(kind := type_at(schema, self._path)):
            raise InputError(
                f"input.order: {field} is of type {kind}; name a column that holds numbers or texts"
            )

    def also(self, wanted: Callable[[str], bool]) -> Callable[[str], bool]:
        """Whether a column is wanted, or holds the values."""
        own = ".".join(self._path)
        return wanted if not self._path else lambda name: name == own or wanted(name)

    def told(self, found: Iterable[Item], piece: Piece) -> Iterable[Item]:
        """The items of a piece, each query with its value."""
        values = at(piece.rows.column(self._path[0]), self._path[1:]) if self._path else None
        nothing = Unordered(self._names)
        return [
            replace(
                item, order=nothing if values is None else values[item.place.number - piece.first].as_py()
            )
            if isinstance(item, Segment)
            else item
            for item in found
        ]
