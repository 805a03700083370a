"""Decodes Arrow columns of any type to the few that all else knows, because every writer stores strings in its own way.

DataFusion and Polars write views, pandas dictionaries, DuckDB UUIDs, others large, fixed-size or run-end-encoded
values, at any depth. Here, and nowhere else, they become strings, bytes, numbers, structs and lists.
"""

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from batchrank.arrays import Positions

Array: TypeAlias = Any  # pyarrow has no type hints
DataType: TypeAlias = Any

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


def is_list(type_: DataType) -> bool:
    """Whether a type is any kind of list."""
    return bool(
        types.is_list(type_)
        or types.is_large_list(type_)
        or types.is_fixed_size_list(type_)
        or types.is_list_view(type_)
        or types.is_large_list_view(type_)
    )


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
    if types.is_null(array.type):
        return array.slice(0, 0), np.zeros(len(array) + 1, dtype=np.intp)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(array) + 1, dtype=np.intp)
    np.cumsum(lengths, out=offsets[1:])
    return array.flatten(), offsets


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
    raw = np.frombuffer(b"".join(value or bytes(16) for value in storage.to_pylist()), np.uint8).reshape(
        -1, 16
    )
    texts = np.full((len(storage), UUID_TEXT), ord("-"), np.uint8)
    texts[:, _UUID_DIGITS[0::2]] = _HEX[raw >> 4]
    texts[:, _UUID_DIGITS[1::2]] = _HEX[raw & 15]
    offsets = np.arange(len(storage) + 1, dtype=np.int32) * UUID_TEXT
    found = pa.StringArray.from_buffers(len(storage), pa.py_buffer(offsets), pa.py_buffer(texts))
    return pc.if_else(storage.is_null(), None, found) if storage.null_count else found
