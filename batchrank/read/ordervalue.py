"""Finds the value of the field that queries are ordered by: in a record, and in the columns of a table."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from batchrank.errors import InputError
from batchrank.read.arrow import at, type_at
from batchrank.read.base import Item, Segment, Unordered
from batchrank.read.names import Path
from batchrank.read.pieces import Piece


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
        self._field = field
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
        if self._field is None:
            return found
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
