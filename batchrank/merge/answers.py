"""Defines merge methods and the answers that they work with, and has the small generators that ask for answers."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from batchrank.data import Floats, Positions, Purpose
from batchrank.outcomes import Agreement, Chunk, Finding, Merged, Overlap, Scores, Verdict


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

    def split(self, documents: Positions) -> Sequence[Positions]:
        """Chunks of some of the documents, like ``chunks`` of all."""


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """Chunks to be sent together."""

    chunks: Sequence[Chunk]


@dataclass(frozen=True, slots=True, eq=False)
class Consult:
    """A question for the verdict; ``probe`` is the evidence of the probe, if this query had one."""

    probe: Overlap | None = None


@dataclass(frozen=True, slots=True)
class Noticed:
    """Tells how far earlier answers still hold; the reply says nothing.

    Attributes:
        finding: what was found; where the model has changed, its earlier answers are left aside from now on.
        audit: whether that is what a small old request was asked again for.
    """

    finding: Finding
    audit: bool


Step: TypeAlias = Round | Consult | Noticed
Reply: TypeAlias = "Sequence[Scores] | Verdict | None"
Method: TypeAlias = Generator[Step, Reply, Merged]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One answered request, best first; tied documents in first-stage order.

    Attributes:
        docs: document indices.
        values: their scores, never increasing.
        chunk: which chunk of its round was answered.
        whole: the answer that this is a part of, and that proves all that this does; None for a whole one.
    """

    docs: Positions
    values: Floats
    chunk: int = 0
    whole: "Answer | None" = None

    @classmethod
    def of(cls, docs: Positions, values: Floats, chunk: int = 0) -> "Answer":
        """Sort an answer."""
        # Mostly the documents are ascending: then a stable sort does the same, faster.
        ascending = bool((docs[1:] > docs[:-1]).all())
        order = np.argsort(-values, kind="stable") if ascending else np.lexsort((docs, -values))
        return cls(docs[order], values[order], chunk)

    def __len__(self) -> int:
        return len(self.docs)

    def only(self, kept: "NDArray[np.bool_]") -> "Answer":
        """Those of its documents that a mask over all documents keeps: a part, where that isn't all."""
        rows = kept[self.docs]
        return (
            self if rows.all() else Answer(self.docs[rows], self.values[rows], self.chunk, self.whole or self)
        )

    def starts(self) -> Positions:
        """Where each group of tied documents begins."""
        return np.flatnonzero(np.r_[True, self.values[1:] < self.values[:-1]])


class Pool:
    """The documents of one query's first pass: index <-> document position; and how many of them a request takes.

    What sharding planned with is not always what the API takes. Once a request came back in halves, all of its
    documents scored, it was too large: from then on no request is larger, in documents or tokens, than the largest that
    was answered. Where documents are missing, they were the fault, and nothing is learned of sizes.
    """

    def __init__(self, shards: Shards) -> None:
        self.shards = shards
        self._answered: list[Positions] = []
        self._halved = False
        self.positions: Positions = np.sort(
            np.concatenate([np.asarray(c, dtype=np.intp) for c in shards.chunks])
        )

    def __len__(self) -> int:
        return len(self.positions)

    def index(self, positions: Positions) -> Positions:
        """Indices of document positions."""
        return np.searchsorted(self.positions, positions)

    @property
    def limit(self) -> int:
        """The most documents in one request."""
        return max(map(len, self._answered)) if self._halved else self.shards.limit

    @property
    def asked(self) -> int:
        """How many documents were in the requests that were answered."""
        return sum(map(len, self._answered))

    @property
    def tokens(self) -> int | None:
        """The most tokens in one request, as far as answers told; None: what sharding planned with."""
        return max(map(self._tokens, self._answered)) if self._halved else None

    def fits(self, docs: Positions) -> bool:
        """Whether these documents fit one request."""
        positions = self.positions[docs]
        if len(docs) > self.limit or not self.shards.fits(positions):
            return False
        return self.tokens is None or self._tokens(positions) <= self.tokens

    def learn(self, chunks: Sequence[Chunk], reply: Sequence[Scores]) -> None:
        """Learn from a round's answers how large a request may be."""
        parts: dict[int, list[int]] = {}
        for scores in reply:
            parts.setdefault(scores.chunk, []).append(len(scores.documents))
        self._answered += [scores.documents for scores in reply if len(scores.documents)]
        halved = (len(part) > 1 and sum(part) == len(chunks[number]) for number, part in parts.items())
        self._halved = self._halved or any(halved)

    def _tokens(self, positions: Positions) -> int:
        return int(np.asarray(self.shards.sizes)[positions].sum())

    def chunk(self, docs: Positions, purpose: Purpose) -> Chunk:
        """One request of these documents, in first-stage order."""
        return Chunk(np.sort(self.positions[docs]), purpose)

    def answer(self, scores: Scores) -> Answer:
        """One answer, with indices."""
        return Answer.of(
            self.index(scores.documents), np.asarray(scores.values, dtype=np.float64), scores.chunk
        )


def ask(pool: Pool, chunks: Sequence[Chunk]) -> Generator[Step, Reply, list[Answer]]:
    """Send chunks and return the answers that came, empty ones left out; the pool learns from their sizes."""
    reply = yield Round(chunks)
    assert reply is not None and not isinstance(reply, str)
    pool.learn(chunks, reply)
    return [pool.answer(scores) for scores in reply if len(scores.documents)]


def consult(probe: Overlap | None = None) -> Generator[Step, Reply, Verdict]:
    """Ask for the verdict."""
    reply = yield Consult(probe)
    assert isinstance(reply, str)
    return reply


class FirstPass:
    """What the first pass told: each document stands in at most one answer (to a chunk, or to a half of one).

    Attributes:
        answers: the answers, those of the probe apart.
        probes: the probe's answers, without documents that no other answer holds.
        answer_of: for n documents the number of its answer, -1 for a document without a score.
        place: n places within the answer, from 0 for the best.
        quantile: n places as fractions of the answer's length, the middle of the place; NaN without a score.
        raw: n scores as answered, NaN for none.
        tiebreak: n ranks by quantile, then first-stage rank; unscored documents last, in first-stage order.
    """

    def __init__(self, n: int, answers: Sequence[Answer], probes: Sequence[Answer] = ()) -> None:
        self.answers = list(answers)
        self.answer_of: Positions = np.full(n, -1, dtype=np.intp)
        self.place: Positions = np.zeros(n, dtype=np.intp)
        self.quantile: Floats = np.full(n, np.nan)
        self.raw: Floats = np.full(n, np.nan)
        for number, answer in enumerate(self.answers):
            places = np.arange(len(answer))
            self.answer_of[answer.docs] = number
            self.place[answer.docs] = places
            self.quantile[answer.docs] = (places + 0.5) / len(answer)
            self.raw[answer.docs] = answer.values
        known = [(answer, self.answer_of[answer.docs] >= 0) for answer in probes]
        self.probes = [Answer(a.docs[keep], a.values[keep], a.chunk) for a, keep in known if keep.any()]

    def __len__(self) -> int:
        return len(self.answer_of)

    @cached_property
    def scored(self) -> Positions:
        """Indices of the documents that have a score."""
        return np.flatnonzero(self.answer_of >= 0)

    @cached_property
    def tiebreak(self) -> Positions:
        """Ranks by quantile, then first stage."""
        ranks = np.empty(len(self), dtype=np.intp)
        ranks[np.lexsort((np.arange(len(self)), self.quantile))] = np.arange(len(self))
        return ranks

    @cached_property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartile of all scores."""
        low, high = np.quantile(self.raw[self.scored], [0.25, 0.75])
        return float(low), float(high)

    def by(self, value: Floats) -> Positions:
        """All scored documents by falling value; ties by quantile, then first-stage rank."""
        scored = self.scored
        return scored[np.lexsort((self.tiebreak[scored], -value[scored]))]


def overlap(first: FirstPass, others: Sequence[Answer]) -> Overlap | None:
    """The documents of other requests, all of which the first pass has scored; None if there is none.

    What the first pass knows from a part of another answer says nothing: it may be the very same answer.
    """
    pairs, ones, twos = [], [], []
    parts = np.array([answer.whole is not None for answer in first.answers], dtype=bool)
    for number, other in enumerate(others):
        answer = other.only(~parts[first.answer_of]) if parts.any() else other
        pairs.append(first.answer_of[answer.docs] + number * len(first.answers))
        ones.append(first.raw[answer.docs])
        twos.append(answer.values)
    if not sum(map(len, pairs)):
        return None
    numbers = np.unique(np.concatenate(pairs), return_inverse=True)[1].astype(np.intp)
    return Overlap(numbers, np.concatenate(ones), np.concatenate(twos), first.quartiles)


def drift(one: Floats, two: Floats) -> tuple[float, float] | None:
    """Median and largest difference; None of nothing."""
    differences = np.abs(one - two)
    differences = differences[np.isfinite(differences)]
    return (float(np.median(differences)), float(differences.max())) if len(differences) else None


def merged(
    pool: Pool,
    first: FirstPass,
    order: Positions,
    value: Floats,
    *,
    method: str,
    certified: int = 0,
    verdict: Verdict = "unknown",
    drift: tuple[float, float] | None = None,
    evidence: Overlap | None = None,
    agreement: Agreement | None = None,
) -> Merged:
    """Put a ranking together: ``order`` holds the indices of all scored documents, best first.

    ``value`` is aligned with it: the scores to publish, flattened where they would contradict the order.
    """
    unscored = np.flatnonzero(first.answer_of < 0)
    everything = np.concatenate([order, unscored])
    scores = np.concatenate([np.minimum.accumulate(value), np.full(len(unscored), np.nan)])
    return Merged(
        pool.positions[everything], scores, first.raw[everything], certified, method, verdict, drift, evidence,
        agreement,
    )  # fmt: skip
