"""Strings that stay an Arrow array until one is asked for: a Python object each would cost more than all else."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from batchrank.arrays import Positions


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

    def __len__(self) -> int:
        return len(self._array if self._order is None else self._order)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Strings": ...
    def __getitem__(self, index: int | slice) -> "str | Strings":
        if isinstance(index, slice):
            return Strings(self.array[index])
        found: str = self.array[int(index)].as_py()
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.tolist() == list(other)

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none either

    def __repr__(self) -> str:
        return repr(self.tolist())

    def tolist(self) -> list[str]:
        """All of them as Python strings."""
        values: list[str] = self.array.to_pylist()
        return values

    def take(self, positions: Positions) -> "Strings":
        """Those at the positions given, in that order; looked up when first needed, by whoever needs them."""
        taken = Strings(self.array)
        taken._order = np.asarray(positions)
        return taken

    def distinct(self) -> int:
        """How many different ones there are."""
        return len(self.array.unique())
