"""Files of columns, Parquet and Arrow IPC, opened and read alike: rows in pieces, and what is wrong in words."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import pyarrow as pa

from batchrank.errors import Place
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read import ipc, parquet
from batchrank.read.base import ColumnsError, Item, Source, Unrecognised, cut, unreadable
from batchrank.read.labelled import Labels
from batchrank.read.names_ import LABELLED, Path
from batchrank.read.partition import batch_with, schema_with
from batchrank.read.pieces import Piece
from batchrank.read.tables import Layout, items, layout, oversized

UNDECODABLE = "unreadable-file"
"""The cause of a failure that ends a file which isn't damaged, but can't be decoded."""

# What a piece may hold; a single row may exceed it.
_DOCUMENTS = 4096
_BYTES = 4 * 1024 * 1024


class Table(Protocol):
    """An open file."""

    @property
    def schema(self) -> Any:
        """What columns there are, with the types that ``plain`` tells."""

    @property
    def share(self) -> float:
        """How much was read, from 0 to 1."""

    def pieces(
        self, wanted: Callable[[str], bool], *, rows: int, documents: int, size: int
    ) -> Iterator[Piece]:
        """The rows, decoded, of the columns that are wanted."""


@contextmanager
def opened(source: Source) -> Iterator[Table]:
    """A file to be read in pieces, with the columns that its folders name beside its own.

    Raises:
        ForeignError: it is of another format, or encrypted.
        OSError: it can't be opened.
        pyarrow.ArrowException: it is damaged.
    """
    with ipc.table(source) if source.format == "arrow" else parquet.table(source) as table:
        yield _Partitioned(table, source.partition) if source.partition else table


class _Partitioned:
    """A table with the columns that its file's folders name."""

    def __init__(self, table: Table, partition: Mapping[str, str | None]) -> None:
        self._table, self._partition = table, partition
        self.schema = schema_with(table.schema, partition)

    @property
    def share(self) -> float:
        return self._table.share

    def pieces(
        self, wanted: Callable[[str], bool], *, rows: int, documents: int, size: int
    ) -> Iterator[Piece]:
        for piece in self._table.pieces(wanted, rows=rows, documents=documents, size=size):
            yield replace(piece, rows=batch_with(piece.rows, self._partition))


def names_in(source: Source) -> Sequence[str]:
    """The names of a file's columns; none where it can't be read."""
    try:
        with opened(source) as file:
            return [field.name for field in file.schema]
    except (OSError, pa.ArrowException):
        return ()  # its reader will say what is wrong


def read(source: Source, columns: Columns) -> Iterator[Item]:
    """The rows of a file; what can't be read is yielded as a failure in its place."""
    row = 0
    labels = Labels(source)
    try:
        with opened(source) as file:
            where = layout(file.schema, columns)
            for piece in file.pieces(needed(where), rows=_DOCUMENTS, documents=_DOCUMENTS, size=_BYTES):
                place = Place(source.name, "row", piece.first)
                if piece.bytes is not None:
                    yield oversized(piece.rows, where, place, piece.bytes)
                else:
                    yield from items(piece.rows, where, place, labels)
                row = piece.first + piece.rows.num_rows - 1
                source.gauge.at(file.share)
    except ColumnsError as error:
        yield Unrecognised.of(Place(source.name, "row", 1), error)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        yield unreadable(source, error)
    except (pa.ArrowException, OSError) as error:
        yield _stopped(source, row, error)


def _stopped(source: Source, row: int, error: Exception) -> Item:
    """A file that can't be read past a row: it is damaged, or pyarrow can't decode it."""
    why = reason(error)
    if why is None:
        return cut(source, row, error)
    message = f"{source.name} can't be read past row {row}: {error}; {why}"
    return Failure(Place(source.name, "row", row + 1), None, UNDECODABLE, message)


def reason(error: Exception) -> str | None:
    """Why a file that isn't damaged can't be decoded, and what to do; None when it may be damaged."""
    if isinstance(error, pa.ArrowMemoryError):
        return "this machine has too little memory for it: write it with smaller row groups"
    # The second is what pyarrow says of a batch whose strings don't fit 32-bit offsets, though it has few rows.
    if isinstance(error, pa.ArrowCapacityError) or "chunked array outputs" in str(error):
        return "rows of it take more than 2 GiB: split their candidates, or shorten their texts"
    if isinstance(error, pa.ArrowNotImplementedError) or "not yet implemented" in str(error).lower():
        return "pyarrow has no decoder for this: write the file with another type, encoding or compression"
    return None


def needed(where: Layout) -> Callable[[str], bool]:
    """Whether a layout needs the column at a path, below lists and structs."""
    roles, document = where.record, where.document
    parts: list[Path] = []
    if document is not None:
        found = (document.text, document.title, document.doc_id, document.score, document.video)
        parts = [p for p in (*found, *_image(document.image)) if p]
    exact = {".".join(p) for p in (roles.query_id, roles.query, *_image(roles.query_image)) if p}
    lists = ".".join(roles.candidates or ())
    beside = tuple(f"{n}." for n in ((".".join(roles.ids or ())), *(LABELLED if roles.labelled else ())) if n)
    if not lists:
        exact |= {".".join(path) for path in parts}

    def wanted(path: str) -> bool:
        if path in exact or f"{path}.".startswith(beside):
            return True
        if not lists or not f"{path}.".startswith(f"{lists}."):
            return False
        below = path.removeprefix(lists).split(".")
        return not parts or any(_is_within(part, below) for part in parts)

    return wanted


def _is_within(part: Path, names: list[str]) -> bool:
    """Whether the names stand in the path in this order: between them are those that lists have."""
    rest = iter(names)
    return all(name in rest for name in ".".join(part).split("."))


def _image(path: Path | None) -> list[Path]:
    """Where an image may be: a column of its own, or one of bytes and path."""
    return [path, (*path, "bytes"), (*path, "path")] if path else []
