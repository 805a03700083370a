"""What goes to a merge method and comes back from it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from batchrank.arrays import Floats, Positions

Verdict: TypeAlias = Literal["absolute", "absolute, noisy", "relative", "unknown"]


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """The documents of one request.

    Attributes:
        documents: document positions, in the order in which they are sent; no position twice.
        purpose: why it is sent: ``pass`` (the first pass over all documents), ``probe``, ``hub``, ``repair``.
    """

    documents: Positions
    purpose: Literal["pass", "probe", "hub", "repair"] = "pass"

    def __len__(self) -> int:
        return len(self.documents)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The answer to one request: ``values[i]`` is the relevance of document ``documents[i]``.

    Attributes:
        documents: document positions in request order. A chunk that the API found too large comes back as
            several ``Scores``, whose values can't be compared with each other.
        values: finite floats, higher is more relevant.
        chunk: which chunk of the round this answers, from 0.
    """

    documents: Positions
    values: Floats
    chunk: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """Scores of the same documents in two requests: what comparability is judged by.

    Attributes:
        pair: which pair of requests each row stems from, counted from 0.
        first: the scores in the first-pass request.
        second: the scores in the probe or hub.
        quartiles: the lower and upper quartile of all first-pass scores, the yardstick of differences.
    """

    pair: Positions
    first: Floats
    second: Floats
    quartiles: tuple[float, float]

    def __len__(self) -> int:
        return len(self.pair)


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """What a merge method returns: one ranking of a query's sendable documents.

    Attributes:
        order: document positions, best first; those that never got a score last, in first-stage order.
        scores: aligned with ``order``, never increasing; NaN where there is no score.
        raw_scores: aligned with ``order``: the score as answered in the first request; NaN for none.
        certified: the first so many documents are proven to stand in the order of the model's answers.
        method: ``single``, ``hub``, ``full``, ``rrf``, ``raw`` (``hub (fallback)``: the hub was lost).
        verdict: whether scores of different requests were found comparable.
        drift: median and largest difference of a document's score between requests, on the output scale;
            None when no document was in two requests.
        evidence: the documents that a hub shares with the first pass, for the pooled verdict; None without a hub.
    """

    order: Positions
    scores: Floats
    raw_scores: Floats
    certified: int
    method: str
    verdict: Verdict = "unknown"
    drift: tuple[float, float] | None = None
    evidence: Overlap | None = None

    def scored(self, position: int) -> bool:
        """Whether the document at a position has a score."""
        return bool(np.isfinite(self.scores[self.order == position]).any())
