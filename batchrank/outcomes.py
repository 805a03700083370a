"""What is written: rankings, and what could not be ranked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from batchrank.arrays import Floats, Positions, taken
from batchrank.content import Content
from batchrank.data import Query
from batchrank.errors import Place
from batchrank.merging import Merged


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
    """

    chunks: int
    requests: int
    documents: int
    tokens: int
    cost: float | None
    searches: int = 0


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
        return len(self.doc_ids)

    @classmethod
    def of(cls, query: Query, merged: Merged, cost: QueryCost, *, texts: bool = False) -> "Ranking":
        """Join a query with its merged order; documents that were never sent follow last."""
        ranking = cls._complete(query, merged, cost)
        if not texts:
            return ranking
        documents = taken(query.documents, ranking.first_stage_ranks - 1)
        return replace(ranking, query=query.text, documents=documents)

    @classmethod
    def _complete(cls, query: Query, merged: Merged, cost: QueryCost) -> "Ranking":
        if len(merged.order) == len(query):
            return cls._joined(query, merged, cost, merged.order, merged.scores, merged.raw_scores)
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
