"""Turns decoded Arrow columns into ids, texts and scores for Python and numpy, a whole batch at once.

Types here are those of ``plain``: no dictionary, view or extension comes so far.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.types as types
from numpy.typing import NDArray

from batchrank.data import Floats, Positions
from batchrank.errors import Place
from batchrank.io.strings import Strings
from batchrank.read.base import ColumnsError, later
from batchrank.read.names import Fields, Path
from batchrank.read.values import (
    unnamed,
)

Array: TypeAlias = Any  # pyarrow has no type hints
DataType: TypeAlias = Any


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
        found[field.name] = tuple(f.name for f in field.type) if types.is_struct(field.type) else None
    return found


def type_at(type_: DataType, path: Path) -> DataType:
    """The type at a path below a schema or a struct."""
    for name in path:
        type_ = type_.field(name).type
    return type_


def is_text(type_: DataType) -> bool:
    """Whether a plain type can hold texts; bytes must be UTF-8."""
    return bool(
        types.is_string(type_)
        or types.is_large_string(type_)
        or types.is_binary(type_)
        or types.is_large_binary(type_)
        or types.is_null(type_)
    )


def is_image(type_: DataType) -> bool:
    """Whether a plain type can hold images: addresses, paths, bytes, or structs of bytes and path."""
    if types.is_struct(type_):
        return all(field.name in ("bytes", "path") and is_text(field.type) for field in type_)
    return is_text(type_)


def is_identifier(type_: DataType) -> bool:
    """Whether a plain type can hold ids: texts and whole numbers."""
    return is_text(type_) or types.is_integer(type_) or (types.is_decimal(type_) and type_.scale == 0)


def is_number(type_: DataType) -> bool:
    """Whether a plain type can hold scores."""
    return bool(
        types.is_floating(type_) or types.is_integer(type_) or types.is_decimal(type_) or types.is_null(type_)
    )


def is_list(type_: DataType) -> bool:
    """Whether a type is any kind of list."""
    return bool(
        types.is_list(type_)
        or types.is_large_list(type_)
        or types.is_fixed_size_list(type_)
        or types.is_list_view(type_)
        or types.is_large_list_view(type_)
    )


def candidate_type(kind: DataType, name: str) -> DataType:
    """The type of one candidate, from a list of them or a struct of lists.

    Raises:
        ColumnsError: it is neither.
    """
    if is_list(kind):
        return kind.value_type
    if types.is_struct(kind) and kind.num_fields and all(is_list(field.type) for field in kind):
        return pa.struct([pa.field(field.name, field.type.value_type) for field in kind])
    raise ColumnsError(
        "wrong-type", f"the candidates ({name}) are of type {kind}; write lists, or a struct of lists"
    )


def is_list_of_ids(kind: DataType) -> bool:
    """Whether a plain type can hold lists of ids."""
    return types.is_null(kind) or (is_list(kind) and is_identifier(kind.value_type))


def is_list_of_texts(kind: DataType) -> bool:
    """Whether a plain type can hold lists of texts."""
    return types.is_null(kind) or (is_list(kind) and is_text(kind.value_type))


def require(
    type_: DataType, path: Path | None, what: str, allowed: Callable[[DataType], bool], wanted: str
) -> None:
    """Refuse a column of a type that can't hold what it should.

    Raises:
        ColumnsError: it can't; the message names column and type.
    """
    if path and not allowed(kind := type_at(type_, path)):
        raise ColumnsError("wrong-type", f"{what} ({'.'.join(path)}) is of type {kind}; write {wanted}")


def at(array: Array, path: Path) -> Array:
    """The values at a path below a struct; null where a struct on the way is null."""
    import pyarrow.compute as pc

    for name in path:
        # A field by itself doesn't know of its struct's nulls.
        array = pc.struct_field(array, name) if array.null_count else array.field(name)
    return array


def strings(array: Array, *, missing: str | None = None) -> list[Any]:
    """Ids or texts as strings.

    Raises:
        UnicodeDecodeError: bytes that are not UTF-8.
    """
    import pyarrow.compute as pc

    kind = array.type
    if types.is_null(kind):
        return [missing] * len(array)
    if types.is_binary(kind) or types.is_large_binary(kind):
        return [missing if value is None else value.decode() for value in array.to_pylist()]
    if not types.is_string(kind) and not types.is_large_string(kind):
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
    import pyarrow.compute as pc

    if not (types.is_string(array.type) or types.is_large_string(array.type)):
        return strings(array, missing=missing)
    if array.null_count:
        if missing is None:
            return strings(array)
        array = pc.fill_null(array, missing)
    _check_utf8(array)
    return Strings(array)


def _check_utf8(array: Array) -> None:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        array.to_pylist()  # which says which text is wrong
        raise


def images(array: Array) -> list[Any]:
    """Images as strings, as bytes, or as dictionaries of both.

    Raises:
        UnicodeDecodeError: a string that is not UTF-8.
    """
    values: list[Any] = array.to_pylist()
    return values


def texts(array: Array) -> Array:
    """Ids or texts as an Arrow array of strings.

    Raises:
        UnicodeDecodeError: bytes that are not UTF-8.
    """
    try:
        array = array.cast(pa.string())
    except pa.ArrowInvalid:
        strings(array)  # which says which text is wrong
        raise
    _check_utf8(array)
    return array


def numbers(array: Array) -> tuple[Floats, NDArray[np.bool_] | None]:
    """Scores, NaN where missing, and which of them are infinite (None when none is).

    A NaN counts as missing, because that is how data frames write what they lack.
    Whole numbers beyond 2**53 are rounded.
    """
    values: Floats = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    infinite = np.isinf(values)
    return values, infinite if infinite.any() else None


def nameless(ids: Array) -> NDArray[np.bool_] | None:
    """Which ids are null or empty; None when none is."""
    import pyarrow.compute as pc

    sized = is_text(ids.type) and not pa.types.is_null(ids.type)
    lengths = pc.binary_length(ids) if sized else None
    if not ids.null_count and (lengths is None or pc.min(lengths).as_py() != 0):
        return None
    wrong = ids.is_null()
    if lengths is not None:
        wrong = pc.or_(wrong, pc.fill_null(pc.equal(lengths, 0), False))
    found: NDArray[np.bool_] = wrong.to_numpy(zero_copy_only=False)
    return found if found.any() else None


def refuse_nameless(wrong: NDArray[np.bool_], place: Place, *, whole: bool) -> None:
    """Refuse a document whose id is null or empty.

    Raises:
        QueryError: there is one; the message names it.
    """
    if wrong.any():
        raise unnamed(which(int(wrong.argmax()), place, whole=whole))


def which(number: int, place: Place, *, whole: bool) -> str:
    """How messages call a document of the record at a place, or of the rows from there on, counted from 0."""
    return f"candidate {number + 1} of the list" if whole else str(later(place, number))


def runs(array: Array) -> Positions:
    """Where each run of equal neighbours ends; nulls are equal to each other, as are structs of equal parts."""
    import pyarrow.compute as pc

    if types.is_struct(array.type):
        bounds: Positions = np.full(min(len(array), 1), len(array), dtype=np.intp)
        for field in array.type:
            bounds = np.union1d(bounds, runs(at(array, (field.name,))))
        return bounds
    if types.is_null(array.type):
        return np.full(min(len(array), 1), len(array), dtype=np.intp)
    ends: Positions = pc.run_end_encode(array, run_end_type=pa.int64()).run_ends.to_numpy().astype(np.intp)
    return ends
