"""Decodes record batches in pieces of bounded size, because decoding may take a thousand times what is stored."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.types as types
from numpy.typing import NDArray

from batchrank.data import Positions
from batchrank.errors import QueryError
from batchrank.read.arrow import Array, DataType, at, is_list

UUID_TEXT = 36
# Where in its 36 characters a UUID has no hyphen.
_UUID_DIGITS = np.array([i for i in range(UUID_TEXT) if i not in (8, 13, 18, 23)])
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


@lru_cache(maxsize=1024)
def plain(type_: DataType) -> DataType:
    """The type of the decoded values, at every depth: without dictionary, run-end, view or an extension's name."""
    if is_uuid(type_):
        return pa.string()
    if isinstance(type_, pa.BaseExtensionType):
        return plain(type_.storage_type)
    if types.is_dictionary(type_) or types.is_run_end_encoded(type_):
        return plain(type_.value_type)
    if types.is_string_view(type_):
        return pa.large_string()
    if types.is_binary_view(type_):
        return pa.large_binary()
    if types.is_fixed_size_binary(type_):
        return pa.binary()
    if is_list(type_):
        inner = plain(type_.value_type)
        kept = types.is_list(type_) and inner == type_.value_type
        return type_ if kept else pa.large_list(inner)
    if types.is_struct(type_):
        return pa.struct([field.with_type(plain(field.type)) for field in type_])
    return type_


def plain_schema(schema: Any) -> Any:
    """A schema with the types of the decoded values."""
    return pa.schema([pa.field(field.name, plain(field.type)) for field in schema])


def decoded(array: Array) -> Array:
    """The values themselves, of the type that ``plain`` tells."""
    kind = array.type
    if plain(kind) == kind:
        return array
    if is_uuid(kind):
        return _uuid_texts(array.storage)
    if isinstance(kind, pa.BaseExtensionType):
        return decoded(array.storage)
    if types.is_dictionary(kind):
        return decoded(array.dictionary).take(array.indices)
    if types.is_run_end_encoded(kind):
        return decoded(array.values).take(pa.array(physical(array)))
    if is_list(kind):
        flat, offsets = lists(array)
        mask = array.is_null() if array.null_count else None
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), decoded(flat), mask=mask)
    if types.is_struct(kind):
        inner = [decoded(array.field(i)) for i in range(kind.num_fields)]
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(inner, fields=list(plain(kind)), mask=mask)
    return array.cast(plain(kind))


def lists(array: Array) -> tuple[Array, Positions]:
    """A list column as one flat array and n + 1 offsets into it; a null list is an empty one."""
    import pyarrow.compute as pc

    if types.is_null(array.type):
        return array.slice(0, 0), np.zeros(len(array) + 1, dtype=np.intp)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(array) + 1, dtype=np.intp)
    np.cumsum(lengths, out=offsets[1:])
    return array.flatten(), offsets


def candidates(array: Array) -> tuple[Array, Positions, NDArray[np.int64] | None]:
    """Candidates as one flat array, the n + 1 offsets into it, and None.

    A struct of lists is taken for the list of structs that it means; where its lists differ in length there are no
    candidates, and in place of None come the lengths, a row a list.
    """
    import pyarrow.compute as pc

    if not pa.types.is_struct(array.type):
        return *lists(array), None
    columns = [at(array, (field.name,)) for field in array.type]
    lengths = np.array([np.diff(lists(column)[1]) for column in columns])
    unequal = (lengths != lengths[0]).any(axis=0)
    if unequal.any():
        keep = pa.array(~unequal)
        columns = [pc.if_else(keep, column, pa.scalar(None, column.type)) for column in columns]
    flat = [lists(column) for column in columns]
    names = [field.name for field in array.type]
    return (
        pa.StructArray.from_arrays([values for values, _ in flat], names=names),
        flat[0][1],
        lengths if unequal.any() else None,
    )


def physical(array: Array) -> Positions:
    """Which run each value of a run-end-encoded array belongs to."""
    ends = array.run_ends.to_numpy(zero_copy_only=False)
    places = np.arange(array.offset, array.offset + len(array))
    return np.searchsorted(ends, places, side="right").astype(np.intp)


def is_uuid(kind: DataType) -> bool:
    """Whether a type is that of UUIDs."""
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid"


def _uuid_texts(storage: Array) -> Array:
    """UUIDs as people write them: 8-4-4-4-12 hexadecimal digits, in small letters."""
    import pyarrow.compute as pc

    raw = np.frombuffer(b"".join(value or bytes(16) for value in storage.to_pylist()), np.uint8).reshape(
        -1, 16
    )
    texts = np.full((len(storage), UUID_TEXT), ord("-"), np.uint8)
    texts[:, _UUID_DIGITS[0::2]] = _HEX[raw >> 4]
    texts[:, _UUID_DIGITS[1::2]] = _HEX[raw & 15]
    offsets = np.arange(len(storage) + 1, dtype=np.int32) * UUID_TEXT
    found = pa.StringArray.from_buffers(len(storage), pa.py_buffer(offsets), pa.py_buffer(texts))
    return pc.if_else(storage.is_null(), None, found) if storage.null_count else found


Sizes: TypeAlias = NDArray[np.int64]

ROW_BYTES = 256 * 1024 * 1024
"""What a row, and all documents of a query, may take once decoded; more is refused.

100,000 documents of 2,500 bytes fit, and 32-bit offsets, which end at 2 GiB, are never passed.
"""

_PIECE_BYTES = 8 * 1024 * 1024
"""8 MiB decoded at a time, so that a piece's memory is small whatever the file's row groups are."""
_WIDTH = 8  # bytes of a number or an offset, about


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that follow one another.

    Attributes:
        rows: a record batch, decoded.
        first: the number of its first row, from 1.
        bytes: None; or what the one row would take that is refused for its size, and isn't decoded.
    """

    rows: Array
    first: int
    bytes: int | None = None


def too_large(size: int) -> str:
    """What to say of a row that would take so many bytes."""
    return (
        f"the row takes {size / 2**20:.0f} MiB once it is decoded, and no row may take more than {ROW_BYTES // 2**20} "
        "MiB; split the query's candidates, or shorten their texts"
    )


def query_too_large() -> QueryError:
    """What to say of a query whose documents take more than ``ROW_BYTES``, from however many rows they come."""
    return QueryError(
        "query-too-large",
        f"the query's documents take more than {ROW_BYTES // 2**20} MiB, and no query's may; split its candidates "
        "between queries, or shorten their texts",
    )


def pieces(batch: Array, first: int) -> Iterator[Piece]:
    """A batch decoded in pieces, each of bounded size or of a single row; ``first`` is the number of its first row."""
    stored = batch.schema.types
    if list(map(plain, stored)) == stored and batch.nbytes <= ROW_BYTES:
        yield Piece(batch, first)
        return
    schema = plain_schema(batch.schema)
    each: Sizes = sum((sizes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64))
    for start, end in _cuts(each):
        rows, size = batch.slice(start, end - start), int(each[start:end].sum())
        if size > ROW_BYTES:
            yield Piece(rows, first + start, size)
        else:
            columns = [decoded(column) for column in rows.columns]
            yield Piece(pa.RecordBatch.from_arrays(columns, schema=schema), first + start)


def _cuts(each: Sizes) -> Iterator[tuple[int, int]]:
    """Where to cut rows of these sizes: as few pieces as stay small, a larger row by itself."""
    ends = np.cumsum(each)
    start = 0
    while start < len(each):
        before = ends[start - 1] if start else 0
        end = max(int(np.searchsorted(ends, before + _PIECE_BYTES, side="right")), start + 1)
        yield start, end
        start = end


def sizes(array: Array) -> Sizes:
    """About how many bytes each value takes once it is decoded; nothing is decoded for it."""
    import pyarrow.compute as pc

    kind = array.type
    if is_uuid(kind):
        return np.full(len(array), UUID_TEXT, np.int64)
    if isinstance(kind, pa.BaseExtensionType):
        return sizes(array.storage)
    if types.is_dictionary(kind):
        return _looked_up(sizes(array.dictionary), array.indices)
    if types.is_run_end_encoded(kind):
        return sizes(array.values)[physical(array)]
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return _view_lengths(array)
    if is_list(kind):
        return _list_sizes(array)
    if types.is_struct(kind):
        parts = (sizes(array.field(i)) for i in range(kind.num_fields))
        return sum(parts, np.zeros(len(array), np.int64))
    if _has_lengths(kind):
        found: Sizes = pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False)
        return found.astype(np.int64)
    return np.full(len(array), _WIDTH, np.int64)


def _has_lengths(kind: DataType) -> bool:
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
    )


def _looked_up(of_values: Sizes, indices: Array) -> Sizes:
    import pyarrow.compute as pc

    if not len(of_values):
        return np.zeros(len(indices), np.int64)
    found = of_values[pc.fill_null(indices, 0).to_numpy(zero_copy_only=False)]
    return (
        np.where(indices.is_null().to_numpy(zero_copy_only=False), 0, found) if indices.null_count else found
    )


def _list_sizes(array: Array) -> Sizes:
    """Sizes of lists by their bounds in the values: views of one stretch must not be copied for it."""
    import pyarrow.compute as pc

    if types.is_list_view(array.type) or types.is_large_list_view(array.type):
        starts = array.offsets.to_numpy(zero_copy_only=False)
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        values = array.values
    else:
        values, offsets = lists(array)
        starts, lengths = offsets[:-1], np.diff(offsets)
    total = np.concatenate([[0], np.cumsum(sizes(values))]).astype(np.int64)
    found: Sizes = np.where(lengths > 0, total[np.minimum(starts + lengths, len(values))] - total[starts], 0)
    return found + _WIDTH


def _view_lengths(array: Array) -> Sizes:
    """Each view is 16 bytes, of which the first four are its length."""
    if not len(array):
        return np.zeros(0, np.int64)
    views = np.frombuffer(array.buffers()[1], np.int32).reshape(-1, 4)
    lengths = views[array.offset : array.offset + len(array), 0].astype(np.int64)
    return np.where(array.is_valid().to_numpy(zero_copy_only=False), lengths, 0)
