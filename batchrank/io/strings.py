"""Holds texts as Arrow has them, because most of them are sent and never looked at one by one."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from batchrank.data import Positions


class Strings(Sequence[str]):
    """A sequence of strings over an Arrow array of them.

    Args:
        array: of type string or large_string, without nulls, valid UTF-8.
    """

    __slots__ = ("_array", "_order")

    def __init__(self, array: Any) -> None:
        self._array = array
        self._order: Positions | None = None

    @property
    def array(self) -> Any:
        """The Arrow array."""
        if self._order is not None:
            self._array, self._order = self._array.take(self._order), None
        return self._array

    @property
    def source(self) -> tuple[Any, Positions | None]:
        """The Arrow array that they come from, and their places in it; None for all of it."""
        return self._array, self._order

    def __len__(self) -> int:
        return len(self._array if self._order is None else self._order)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Strings": ...
    def __getitem__(self, index: int | slice) -> "str | Strings":
        array = self._array if self._order is None else self.array
        if isinstance(index, slice):
            return Strings(array[index])
        found: str = array[int(index)].as_py()
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.tolist() == list(other)

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none either

    def __repr__(self) -> str:
        return repr(self.tolist())

    def __reduce__(self) -> "tuple[type[Strings], tuple[Any]]":
        """Only what is meant goes to another process: a slice would take along all that it was cut from."""
        return Strings, (self.array.take(np.arange(len(self))),)

    def tolist(self) -> list[str]:
        """All of them as Python strings."""
        values: list[str] = (self._array if self._order is None else self.array).to_pylist()
        return values

    def take(self, positions: Positions) -> "Strings":
        """Those at the positions given, in that order; looked up when first needed, by whoever needs them."""
        taken = Strings(self._array if self._order is None else self.array)
        taken._order = np.asarray(positions)
        return taken
