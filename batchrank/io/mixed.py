"""How many texts, images and videos one request holds together.

Limits are told for each kind alone. The safe reading for a mixture is that the parts used of each limit add up to at
most 1. In whole numbers: a document of a kind weighs (least common multiple of all limits) / (the kind's limit), and a
request holds as much as that multiple.
"""

import math
from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from batchrank.content import Kind


class Shares:
    """What each kind of document takes of a request.

    Args:
        counts: most documents of each kind in a request that holds nothing else; a kind that is missing isn't taken.
    """

    def __init__(self, counts: Mapping[Kind, int]) -> None:
        self.counts = dict(counts)

    @cached_property
    def budget(self) -> int:
        """What a request holds."""
        return math.lcm(*self.counts.values())

    @cached_property
    def weights(self) -> Mapping[Kind, int]:
        """What a document of each kind takes of the budget."""
        return {kind: self.budget // most for kind, most in self.counts.items()}

    def of(self, kinds: Iterable[Kind]) -> NDArray[np.int64]:
        """The weight of each document.

        Raises:
            KeyError: a kind that isn't taken.
        """
        return np.fromiter((self.weights[kind] for kind in kinds), dtype=np.int64)

    def fits(self, kinds: Iterable[Kind]) -> bool:
        """Whether documents of these kinds make one request."""
        return int(self.of(kinds).sum()) <= self.budget
