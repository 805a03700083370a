"""Reads files of columns, Parquet and Arrow IPC alike, in pieces, and says what is wrong with them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import pyarrow as pa

from batchrank.errors import Place
from batchrank.io import opening as foreign
from batchrank.io.storage import filesystem
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read import parquet
from batchrank.read.arrow import is_list
from batchrank.read.base import (
    ColumnsError,
    Item,
    Source,
    Unrecognised,
    batch_with,
    cut,
    schema_with,
    unreadable,
)
from batchrank.read.names import LABELLED, Path
from batchrank.read.order import ColumnOrder
from batchrank.read.pieces import Piece, pieces, plain_schema
from batchrank.read.tables import Layout, items, layout, oversized
from batchrank.read.values import Labels

_END = b"\xff\xff\xff\xff\0\0\0\0"
# Rows of a batch that are decoded at a time: some writers make a single batch of a whole table.
_SLICE_ROWS = 4096


class Opened:
    """An IPC file or stream.

    Attributes:
        schema: with the types that ``plain`` tells.
        share: how much was read, from 0 to 1.
    """

    def __init__(self, file: Any) -> None:
        magic = foreign.ARROW[0]
        self._file, self._indexed = file, file.read_at(len(magic), 0) == magic
        file.seek(0)  # reading at a place moves the position of some remote files
        self._stored = (pa.ipc.open_file if self._indexed else pa.ipc.open_stream)(file).schema
        self.schema = plain_schema(self._stored)
        self.share = 0.0

    def pieces(
        self, wanted: Callable[[str], bool], *, rows: int, documents: int, size: int
    ) -> Iterator[Piece]:
        """The rows in pieces, decoded, of at most so many rows; of columns, whatever is in the wanted ones.

        The batches of the file are as large as their writer made them; ``documents`` and ``size`` change nothing.
        """
        names = [
            i for i, field in enumerate(self._stored) if any(map(wanted, _leaves(field.name, field.type)))
        ]
        first = 1
        for batch in self._batches(pa.ipc.IpcReadOptions(included_fields=names)):
            _validate(batch)
            for start in range(0, batch.num_rows, min(rows, _SLICE_ROWS)):
                part = batch.slice(start, min(rows, _SLICE_ROWS))
                yield from pieces(part, first)
                first += part.num_rows

    def _batches(self, options: Any) -> Iterator[Any]:
        self._file.seek(0)
        if self._indexed:
            reader = pa.ipc.open_file(self._file, options=options)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)
                self.share = (i + 1) / reader.num_record_batches
            return
        for batch in pa.ipc.open_stream(self._file, options=options):
            yield batch
            self.share = self._file.tell() / self._file.size()
        if self._file.read_at(len(_END), self._file.size() - len(_END)) != _END:
            raise OSError("the stream ends without its end mark: what wrote it may have been stopped")


def _leaves(name: str, type_: Any) -> Iterator[str]:
    """The paths below a column, named as Parquet names them."""
    if isinstance(type_, pa.BaseExtensionType):
        yield from _leaves(name, type_.storage_type)
    elif pa.types.is_struct(type_):
        for field in type_:
            yield from _leaves(f"{name}.{field.name}", field.type)
    elif is_list(type_):
        yield from _leaves(f"{name}.list.element", type_.value_type)
    else:
        yield name


def _validate(batch: Any) -> None:
    """Refuse offsets that lead out of their buffers: following them would end the process.

    Raises:
        pyarrow.ArrowInvalid: the batch is damaged.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):  # which is found, row by row, by whoever needs the text
            raise


@contextmanager
def arrow_table(source: Source) -> Iterator[Opened]:
    """A file or stream to be read in pieces; from this machine's disk it is mapped, not loaded.

    Raises:
        ForeignError: it is of another format.
        OSError: it can't be opened.
        pyarrow.ArrowException: it is damaged.
    """
    system, path = filesystem(source.path or "")
    with pa.memory_map(path) if system is None else system.open_input_file(path) as file:
        head = file.read_at(min(file.size(), foreign.HEAD), 0)
        if (known := foreign.told(head)) is not None:
            raise known
        if head and not head.startswith(foreign.ARROW):
            raise foreign.ForeignError(
                f"the file is no Arrow file, although its name says so; it begins with {head[:8]!r}: set input.format, "
                "or see what wrote it",
            )
        yield Opened(file)


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
    with arrow_table(source) if source.format == "arrow" else parquet.table(source) as table:
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
            order = ColumnOrder(file.schema, source.order)
            wanted = order.also(needed(where))
            for piece in file.pieces(wanted, rows=_DOCUMENTS, documents=_DOCUMENTS, size=_BYTES):
                place = Place(source.name, "row", piece.first)
                if piece.bytes is not None:
                    yield oversized(piece.rows, where, place, piece.bytes)
                else:
                    found = items(piece.rows, where, place, labels)
                    yield from found if source.order is None else order.told(found, piece)
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
