"""Defines the data that flows from merging to writing, every record frozen: scored chunks, rankings, failures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from batchrank.data import Content, Floats, Positions, Purpose, Query, taken
from batchrank.errors import Place

Verdict: TypeAlias = Literal["absolute", "absolute, noisy", "relative", "unknown"]
ABSOLUTE: frozenset[Verdict] = frozenset({"absolute", "absolute, noisy"})
"""Verdicts by which scores of different requests can be compared as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """The documents of one request.

    Attributes:
        documents: document positions, in the order in which they are sent; no position twice.
        purpose: why it is sent.
    """

    documents: Positions
    purpose: Purpose = "pass"

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


@dataclass(frozen=True, slots=True)
class Finding:
    """How far the answers of earlier runs still hold.

    Attributes:
        changed: whether the model no longer ranks as it did.
        noise: the share of pairs of documents that two new answers order differently.
        against: the share of pairs that old and new answers order differently.
        differs: whether the scores themselves differ, which matters where they are taken as absolute.
    """

    changed: bool
    noise: float = 0.0
    against: float = 0.0
    differs: bool = False


@dataclass(frozen=True, slots=True)
class Agreement:
    """Pairs of documents that at least two answers order; counted once for each two answers that do.

    Attributes:
        alike: how many they order alike.
        pairs: how many there are, at least 1.
    """

    alike: int
    pairs: int

    @property
    def share(self) -> float:
        """The share that is ordered alike."""
        return self.alike / self.pairs


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
        agreement: how far answers agree about the order; None where no two order the same documents.
        recalled: whether it rests on answers of earlier runs, taken document by document.
    """

    order: Positions
    scores: Floats
    raw_scores: Floats
    certified: int
    method: str
    verdict: Verdict = "unknown"
    drift: tuple[float, float] | None = None
    evidence: Overlap | None = None
    agreement: Agreement | None = None
    recalled: bool = False

    def scored(self, position: int) -> bool:
        """Whether the document at a position has a score."""
        return bool(np.isfinite(self.scores[self.order == position]).any())


@dataclass(frozen=True, slots=True)
class QueryCost:
    """What one query took, retries left out, so that it is the same on every run.

    Attributes:
        chunks: requests of the first pass.
        requests: answered requests in all.
        documents: documents in those requests; one sent twice counts twice.
        tokens: tokens billed, as the API reported them (as predicted where it reported none).
        cost: in the model card's currency; None when the card has no price.
        searches: searches billed for them, where the API bills those.
        reused: documents that no request of this run held, because earlier runs' answers tell of them.
        oldest: when the oldest answer was given that the ranking rests on, in seconds since 1970; None if it rests on
            this run's alone, or nobody knows.
    """

    chunks: int
    requests: int
    documents: int
    tokens: int
    cost: float | None
    searches: int = 0
    reused: int = 0
    oldest: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The final ranking of one query; all arrays are aligned and best first.

    Attributes:
        query_id: the query's id.
        doc_ids: all candidates' ids, best first.
        scores: never increasing; NaN for a document that was not scored (blank, or its request failed).
        raw_scores: the score as answered in the document's first request; NaN for none.
        first_stage_ranks: ranks from 1 in first-stage order.
        first_stage_scores: the first stage's scores, NaN where unknown.
        merge: how the ranking was made, from the merge method.
        cost: what it took.
        query: the query itself; None where no output asks for texts, so that they needn't be held.
        documents: the documents, likewise.
    """

    query_id: str
    doc_ids: Sequence[str]
    scores: Floats
    raw_scores: Floats
    first_stage_ranks: Positions
    first_stage_scores: Floats
    merge: Merged
    cost: QueryCost
    query: Content | None = None
    documents: Sequence[Content] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of(cls, query: Query, merged: Merged, cost: QueryCost, *, texts: bool = False) -> "Ranking":
        """Join a query with its merged order; documents that were never sent follow last."""
        if len(merged.order) == len(query.documents):
            ranking = cls._joined(query, merged, cost, merged.order, merged.scores, merged.raw_scores)
        else:
            ranking = cls._completed(query, merged, cost)
        if not texts:
            return ranking
        documents = taken(query.documents, ranking.first_stage_ranks - 1)
        return replace(ranking, query=query.text, documents=documents)

    @classmethod
    def _completed(cls, query: Query, merged: Merged, cost: QueryCost) -> "Ranking":
        sent = np.zeros(len(query), dtype=bool)
        sent[merged.order] = True
        unsent = np.flatnonzero(~sent)
        order = np.concatenate([merged.order, unsent])
        nothing = np.full(len(unsent), np.nan)
        scores, raw = (np.concatenate([part, nothing]) for part in (merged.scores, merged.raw_scores))
        return cls._joined(query, merged, cost, order, scores, raw)

    @classmethod
    def _joined(
        cls, query: Query, merged: Merged, cost: QueryCost, order: Positions, scores: Floats, raw: Floats
    ) -> "Ranking":
        first = query.first_stage_scores
        return cls(
            query_id=query.id,
            doc_ids=taken(query.doc_ids, order),
            scores=scores,
            raw_scores=raw,
            first_stage_ranks=order + 1,
            first_stage_scores=np.full(len(order), np.nan) if first is None else first[order],
            merge=merged,
            cost=cost,
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """A dead letter: one query, or one record of the input, that could not be ranked.

    Attributes:
        place: where in the input it stands.
        query_id: the query's id, None where it could not be read.
        cause: a short stable word: ``broken-json``, ``duplicate-query``, ``content-refused``, ...
        message: what happened, for a person.
        attempts: requests tried for it, 0 for a bad record.
    """

    place: Place
    query_id: str | None
    cause: str
    message: str
    attempts: int = 0
