"""Nights in a row in the simulated world: a list that changes a little, and the answers that earlier nights left."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from merge_world import FAMILIES, Outcome, Shards, drive, stratified

from batchrank.data import Floats, Positions
from batchrank.merge.answers import Noticed
from batchrank.merge.reuse import Earlier
from batchrank.merge.start import start
from batchrank.merge.verdict import Verdicts
from batchrank.outcomes import Chunk, Overlap, Verdict


@dataclass
class Kept:
    """An answer as a ledger keeps it: the documents' names and scores in request order."""

    names: Positions
    values: Floats
    purpose: Any
    run: int


@dataclass
class Night:
    """What came of one night.

    Attributes:
        outcome: the merged ranking and what it took.
        exact: whether the top k is the true one.
        documents: documents asked tonight.
        share: these, as a share of the list.
        noticed: what was told of earlier answers.
    """

    outcome: Outcome
    exact: bool
    documents: int
    requests: int
    share: float
    noticed: list[Noticed]
    ranks: Positions

    @property
    def certified(self) -> int:
        return self.outcome.merged.certified


@dataclass
class World:
    """One question over many nights.

    Args:
        n: documents a night.
        family: how scores depend on their request.
        limit: the most documents in a request.
    """

    n: int
    family: str = "logistic"
    seed: int = 0
    limit: int = 500
    noise: float = 0.0
    kept: list[Kept] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.r = np.random.default_rng([self.seed, self.n, 7])
        self.relevance = self._drawn(self.n)
        self.tonight = np.arange(self.n)
        self.run = 0
        self.levels: int | None = None

    def true(self) -> Floats:
        """Tonight's true relevance, in as many levels as the model tells apart."""
        y = self.relevance[self.tonight]
        if self.levels is None:
            return y
        return np.asarray(np.floor((y + 8) / 16 * self.levels) / self.levels * 16 - 8)

    def _drawn(self, count: int) -> Floats:
        return np.asarray(self.r.normal(size=count) + 2 * (self.r.random(count) < 0.05))

    def replace(self, share: float) -> None:
        """Take some documents out, put as many new ones in, and shuffle the first stage's order."""
        count = round(share * self.n)
        gone = self.r.choice(self.n, count, replace=False)
        fresh = np.arange(len(self.relevance), len(self.relevance) + count)
        self.relevance = np.r_[self.relevance, self._drawn(count)]
        self.tonight = self.r.permutation(np.r_[np.delete(self.tonight, gone), fresh])

    def earlier(self) -> list[Earlier]:
        """What earlier nights told of tonight's documents."""
        where = np.full(len(self.relevance), -1)
        where[self.tonight] = np.arange(len(self.tonight))
        found = []
        for kept in self.kept:
            positions = where[kept.names]
            here = positions >= 0
            same = bool(here.all() and (np.diff(positions) > 0).all())
            found.append(Earlier(positions[here], kept.values[here], kept.purpose, kept.run, same))
        return found

    def answer(self, chunk: Chunk, number: int) -> list[tuple[Positions, Floats]]:
        """The API's answer, kept."""
        names = self.tonight[chunk.documents]
        y = self.true()[chunk.documents]
        if self.noise:
            y = y + self.noise * self.r.normal(size=len(y))
        values = FAMILIES[self.family](y, self.r)
        self.fresh.append(Kept(names, values, chunk.purpose, self.run))
        return [(chunk.documents, values)]

    def night(
        self,
        k: int,
        *,
        method: str = "hub",
        declared: Any = "relative",
        reuse: bool = True,
        shards: Shards | None = None,
        audit: bool = False,
        noise: float | None = None,
        respond: Callable[..., Any] | None = None,
    ) -> Night:
        """Rank tonight's list; what was answered is known from the next night on."""
        self.run += 1
        self.fresh: list[Kept] = []
        verdicts = Verdicts(declared)
        probe = verdicts.carries_probe(0)
        earlier = self.earlier() if reuse else []
        noticed: list[Noticed] = []

        def verdict(overlap: Overlap | None) -> Verdict:
            verdicts.record_probe(0, 0, overlap)
            found = verdicts.at(0, 0)
            assert found is not None
            return found

        merging = start(
            method, shards or stratified(len(self.tonight), self.limit, self.seed + self.run),
            top_k=k, probe=probe, earlier=earlier, audit=self.run if audit else None, noise=noise,
        )  # fmt: skip
        outcome = drive(merging, respond or self.answer, verdict, noticed)
        self.kept += self.fresh
        true = np.argsort(-self.relevance[self.tonight], kind="stable")
        rank = np.empty(len(true), dtype=np.intp)
        rank[true] = np.arange(len(true))
        ranks = rank[outcome.merged.order]
        exact = bool((ranks[:k] == np.arange(min(k, len(ranks)))).all())
        return Night(
            outcome,
            exact,
            outcome.documents,
            outcome.requests,
            outcome.documents / len(self.tonight),
            noticed,
            ranks,
        )
