"""What a merge method is: a generator that yields steps and returns one ranking.

A method knows no I/O. Whoever drives it (the pipeline, a simulation, a test) answers each step:

1. ``Round``: send the chunks, all at once; answer with their ``Scores``, in chunk order. A chunk that
   was split comes back as several ``Scores``; one that failed is missing.
2. ``Consult``: tell the run-wide verdict on comparability; answer with it.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from batchrank.arrays import Positions
from batchrank.merging import Chunk, Merged, Overlap, Scores, Verdict


class Shards(Protocol):
    """What a merge method may ask of sharding, for one query."""

    @property
    def chunks(self) -> Sequence[Positions]:
        """The first pass: disjoint, stratified by first-stage rank, each within the limits, all that is sent."""

    @property
    def limit(self) -> int:
        """The most documents in one request."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Tokens that each document position adds to a request."""

    def fits(self, documents: Positions) -> bool:
        """Whether these documents fit one request."""


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """Chunks to be sent together."""

    chunks: Sequence[Chunk]


@dataclass(frozen=True, slots=True, eq=False)
class Consult:
    """A question for the run-wide verdict; ``probe`` is the evidence of the probe, if this query had one."""

    probe: Overlap | None = None


Step: TypeAlias = Round | Consult
Method: TypeAlias = Generator[Step, "Sequence[Scores] | Verdict", Merged]
