"""The arrays that records are made of."""

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Positions: TypeAlias = NDArray[np.intp]
Floats: TypeAlias = NDArray[np.float64]
_Item = TypeVar("_Item")


def taken(items: Sequence[_Item], positions: Positions) -> Sequence[_Item]:
    """Those at the positions given, in that order; by the sequence's own ``take`` where it has one."""
    take: Callable[[Positions], Sequence[_Item]] | None = getattr(items, "take", None)
    return take(positions) if take else list(map(items.__getitem__, positions.tolist()))
