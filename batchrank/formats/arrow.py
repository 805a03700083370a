"""Arrow columns of any type that can hold ids, texts or scores -> Python lists, a whole batch at once."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types
from numpy.typing import NDArray

from batchrank.formats.base import ColumnsError
from batchrank.formats.names import Fields, Path
from batchrank.formats.strings import Strings
from batchrank.records import Floats, Positions

Array: TypeAlias = Any  # pyarrow has no type hints
DataType: TypeAlias = Any


def plain(type_: DataType) -> DataType:
    """The type of the values themselves: without dictionary encoding or an extension's name."""
    while True:
        if isinstance(type_, pa.BaseExtensionType):
            type_ = type_.storage_type
        elif types.is_dictionary(type_):
            type_ = type_.value_type
        else:
            return type_


def fields_of(type_: DataType) -> Fields:
    """The names in a schema or a struct.

    Raises:
        ColumnsError: a name comes twice.
    """
    found: dict[str, tuple[str, ...] | None] = {}
    for field in type_:
        if field.name in found:
            raise ColumnsError(
                "ambiguous-columns",
                f"two columns are named {field.name!r}; rename or drop one",
                ambiguous=True,
            )
        inner = plain(field.type)
        found[field.name] = tuple(f.name for f in inner) if types.is_struct(inner) else None
    return found


def type_at(type_: DataType, path: Path) -> DataType:
    """The plain type at a path below a schema or a struct."""
    for name in path:
        type_ = plain(
            type_.field(name).type if isinstance(type_, pa.Schema) else plain(type_).field(name).type
        )
    return type_


def is_list(type_: DataType) -> bool:
    """Whether a plain type is any kind of list."""
    return bool(
        types.is_list(type_)
        or types.is_large_list(type_)
        or types.is_fixed_size_list(type_)
        or types.is_list_view(type_)
        or types.is_large_list_view(type_)
    )


def is_text(type_: DataType) -> bool:
    """Whether a plain type can hold texts; bytes must be UTF-8."""
    return bool(
        types.is_string(type_)
        or types.is_large_string(type_)
        or types.is_string_view(type_)
        or types.is_binary(type_)
        or types.is_large_binary(type_)
        or types.is_binary_view(type_)
        or types.is_fixed_size_binary(type_)
        or types.is_null(type_)
    )


def is_image(type_: DataType) -> bool:
    """Whether a plain type can hold images: addresses, paths, bytes, or structs of bytes and path."""
    if types.is_struct(type_):
        return all(field.name in ("bytes", "path") and is_text(plain(field.type)) for field in type_)
    return is_text(type_)


def is_identifier(type_: DataType) -> bool:
    """Whether a plain type can hold ids: texts and whole numbers."""
    return is_text(type_) or types.is_integer(type_) or (types.is_decimal(type_) and type_.scale == 0)


def is_number(type_: DataType) -> bool:
    """Whether a plain type can hold scores."""
    return bool(
        types.is_floating(type_) or types.is_integer(type_) or types.is_decimal(type_) or types.is_null(type_)
    )


def decoded(array: Array) -> Array:
    """The values themselves, without dictionary encoding, an extension's name or views."""
    while True:
        if isinstance(array.type, pa.BaseExtensionType):
            array = array.storage
        elif types.is_dictionary(array.type):
            array = array.dictionary_decode()
        elif types.is_string_view(array.type):
            array = array.cast(pa.large_string())
        elif types.is_binary_view(array.type):
            array = array.cast(pa.large_binary())
        else:
            return array


def at(array: Array, path: Path) -> Array:
    """The values at a path below a struct; null where a struct on the way is null."""
    array = decoded(array)
    for name in path:
        # A field by itself doesn't know of its struct's nulls.
        array = decoded(pc.struct_field(array, name) if array.null_count else array.field(name))
    return array


def strings(array: Array, *, missing: str | None = None) -> list[Any]:
    """Ids or texts as strings.

    Raises:
        UnicodeDecodeError: bytes that are not UTF-8.
    """
    array = decoded(array)
    kind = array.type
    if types.is_null(kind):
        return [missing] * len(array)
    if not types.is_string(kind) and not types.is_large_string(kind):
        if is_text(kind):
            return [missing if value is None else value.decode() for value in array.to_pylist()]
        array = array.cast(pa.large_string())
    if missing is not None and array.null_count:
        array = pc.fill_null(array, missing)
    values: list[Any] = array.to_pylist()
    return values


def column(array: Array, *, missing: str | None = None) -> Sequence[Any]:
    """Ids or texts as strings, which stay in the array where it holds nothing but strings.

    Raises:
        UnicodeDecodeError: bytes that are not UTF-8.
    """
    array = decoded(array)
    if not (types.is_string(array.type) or types.is_large_string(array.type)):
        return strings(array, missing=missing)
    if array.null_count:
        if missing is None:
            return strings(array)
        array = pc.fill_null(array, missing)
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        array.to_pylist()  # which says which text is wrong
        raise
    return Strings(array)


def images(array: Array) -> list[Any]:
    """Images as strings, as bytes, or as dictionaries of both.

    Raises:
        UnicodeDecodeError: a string that is not UTF-8.
    """
    values: list[Any] = decoded(array).to_pylist()
    return values


def texts(array: Array, what: str) -> Array:
    """Ids or texts as an Arrow array of strings.

    Raises:
        ColumnsError: they are of a type that can't hold any.
        pyarrow.ArrowException: bytes that are not UTF-8.
    """
    if not is_identifier(plain(array.type)):
        raise ColumnsError("wrong-type", f"{what} is of type {array.type}; write strings or whole numbers")
    return decoded(array).cast(pa.string())


def numbers(array: Array) -> tuple[Floats, NDArray[np.bool_] | None]:
    """Scores, NaN where missing, and which of them are infinite (None when none is).

    A NaN counts as missing, because that is how data frames write what they lack.
    """
    values: Floats = decoded(array).cast(pa.float64()).to_numpy(zero_copy_only=False)
    infinite = np.isinf(values)
    return values, infinite if infinite.any() else None


def lists(array: Array) -> tuple[Array, Positions]:
    """A list column as one flat array and n + 1 offsets into it; a null list is an empty one."""
    array = decoded(array)
    if types.is_null(array.type):
        return array.slice(0, 0), np.zeros(len(array) + 1, dtype=np.intp)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(array) + 1, dtype=np.intp)
    np.cumsum(lengths, out=offsets[1:])
    return array.flatten(), offsets


def runs(array: Array) -> Positions:
    """Where each run of equal neighbours ends; nulls are equal to each other, as are structs of equal parts."""
    array = decoded(array)
    if types.is_struct(array.type):
        bounds: Positions = np.full(min(len(array), 1), len(array), dtype=np.intp)
        for field in array.type:
            bounds = np.union1d(bounds, runs(at(array, (field.name,))))
        return bounds
    if types.is_null(array.type):
        return np.full(min(len(array), 1), len(array), dtype=np.intp)
    ends: Positions = pc.run_end_encode(array, run_end_type=pa.int64()).run_ends.to_numpy().astype(np.intp)
    return ends
