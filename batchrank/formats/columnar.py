"""Files of columns, Parquet and Arrow IPC, opened and read alike: rows in pieces, and what is wrong in words."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import pyarrow as pa

from batchrank.errors import Place
from batchrank.formats import ipc, parquet
from batchrank.formats.base import ColumnsError, Item, Source, Unrecognised, cut, unreadable
from batchrank.formats.labelled import Labels
from batchrank.formats.names import LABELLED, Path
from batchrank.formats.pieces import Piece
from batchrank.formats.tables import Layout, items, layout, oversized
from batchrank.job.sections import Columns
from batchrank.records import Failure

COLUMNAR = ("parquet", "arrow")
"""The formats whose records are rows."""

UNDECODABLE = "unreadable-file"
"""The cause of a failure that ends a file which isn't damaged, but can't be decoded."""

# What a piece may hold; a single row may exceed it.
_DOCUMENTS = 4096
_BYTES = 4 * 1024 * 1024


class Table(Protocol):
    """An open file."""

    schema: object
    share: float

    def pieces(
        self, wanted: Callable[[str], bool], *, rows: int, documents: int, size: int
    ) -> Iterator[Piece]:
        """The rows, decoded, of the columns that are wanted."""


def opened(source: Source) -> AbstractContextManager[Table]:
    """A file to be read in pieces.

    Raises:
        ColumnsError: it is of another format, or encrypted.
        OSError: it can't be opened.
        pyarrow.ArrowException: it is damaged.
    """
    return ipc.table(source) if source.format == "arrow" else parquet.table(source)


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
        yield unreadable(source, "row", error)
    except (pa.ArrowException, OSError) as error:
        yield ended(source, row, error)


def ended(source: Source, row: int, error: Exception) -> Failure:
    """A file that can't be read past a row: it is damaged, or pyarrow can't decode it."""
    why = reason(error)
    if why is None:
        return cut(source, "row", row, error)
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
