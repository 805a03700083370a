"""All data that flows between the stages. Every record is frozen.

Positions: a *document position* counts a query's candidates from 0 in first-stage order; it is what
arrays of documents hold. A *query position* counts the queries of the input from 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from batchrank.errors import Place

Positions: TypeAlias = NDArray[np.intp]
Floats: TypeAlias = NDArray[np.float64]
Verdict: TypeAlias = Literal["absolute", "absolute, noisy", "relative", "unknown"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One document that the first stage retrieved for a query.

    Attributes:
        id: the document's id; None takes the candidate's position in the list as given, from 0.
        text: what is sent to the model. A blank text is never sent: it is ranked last with no score.
        score: the first stage's score, higher is better; None when unknown.
    """

    id: str | None
    text: str
    score: float | None = None


@dataclass(frozen=True, eq=False)
class Query:
    """A query and its candidates, as columns of equal length n in first-stage order.

    Attributes:
        id: the query's id, unique in the input.
        text: the query itself, never blank.
        doc_ids: n ids, unique within the query.
        documents: n texts.
        first_stage_scores: n floats, never increasing, NaN where unknown; None when no candidate has one.
        place: where the query stands in the input.
    """

    id: str
    text: str
    doc_ids: Sequence[str]
    documents: Sequence[str]
    first_stage_scores: Floats | None = None
    place: Place = field(default=Place("<queries>", "query", 1))

    def __len__(self) -> int:
        return len(self.documents)

    @cached_property
    def sendable(self) -> Positions:
        """Positions of the documents that have a text: blank ones are rejected by the APIs."""
        blank = [i for i, text in enumerate(self.documents) if not text or text.isspace()]
        return np.delete(np.arange(len(self.documents), dtype=np.intp), blank)

    @classmethod
    def of(
        cls, id: str, text: str, candidates: Sequence[Candidate], *, place: Place | None = None
    ) -> "Query":
        """Make a query from candidates in any order.

        If every candidate has a score, first-stage order is by falling score (ties as given);
        otherwise it is the order given.
        """
        ids = [str(i) if c.id is None else c.id for i, c in enumerate(candidates)]
        return cls.from_columns(
            id, text, ids, [c.text for c in candidates], [c.score for c in candidates], place
        )

    @classmethod
    def from_columns(
        cls,
        id: str,
        text: str,
        doc_ids: Sequence[str],
        documents: Sequence[str],
        scores: Sequence[float | None] | Floats | None,
        place: Place | None = None,
    ) -> "Query":
        """Make a query from columns in any order; ``of`` tells which order results."""
        where = place or Place("<queries>", "query", 1)
        values = None if scores is None else np.asarray(scores, dtype=np.float64)
        if values is None or np.isnan(values).all():
            return cls(id, text, doc_ids, documents, None, where)
        if not np.isnan(values).any() and (values[1:] > values[:-1]).any():
            order = np.argsort(-values, kind="stable")
            doc_ids, documents = [doc_ids[i] for i in order], [documents[i] for i in order]
            values = values[order]
        return cls(id, text, doc_ids, documents, values, where)


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


@dataclass(frozen=True, slots=True)
class QueryCost:
    """What one query took, retries left out, so that it is the same on every run.

    Attributes:
        chunks: requests of the first pass.
        requests: answered requests in all.
        documents: documents in those requests; one sent twice counts twice.
        tokens: tokens billed, as the API reported them (as predicted where it reported none).
        cost: in the model card's currency; None when the card has no price.
    """

    chunks: int
    requests: int
    documents: int
    tokens: int
    cost: float | None


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
    """

    query_id: str
    doc_ids: Sequence[str]
    scores: Floats
    raw_scores: Floats
    first_stage_ranks: Positions
    first_stage_scores: Floats
    merge: Merged
    cost: QueryCost

    def __len__(self) -> int:
        return len(self.doc_ids)

    @classmethod
    def of(cls, query: Query, merged: Merged, cost: QueryCost) -> "Ranking":
        """Join a query with its merged order; documents that were never sent follow last."""
        sent = np.zeros(len(query), dtype=bool)
        sent[merged.order] = True
        unsent = np.flatnonzero(~sent)
        order = np.concatenate([merged.order, unsent])
        nothing = np.full(len(unsent), np.nan)
        first = query.first_stage_scores
        ids = query.doc_ids
        return cls(
            query_id=query.id,
            doc_ids=[ids[i] for i in order.tolist()],
            scores=np.concatenate([merged.scores, nothing]),
            raw_scores=np.concatenate([merged.raw_scores, nothing]),
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


@dataclass(frozen=True, slots=True)
class Request:
    """What one request asks; the same fields always make the same body.

    Attributes:
        model: the model's name as the endpoint knows it.
        query: the query's text.
        documents: the texts to be scored, in order.
        instruct: the ranking instruction, None for the model's own.
    """

    model: str
    query: str
    documents: Sequence[str]
    instruct: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A valid answer: every document of the request scored exactly once.

    Attributes:
        values: one finite score a document, in request order.
        tokens: tokens billed; None when the API didn't say, or said nonsense.
        request_id: the API's name for the request, empty when it gave none.
    """

    values: Floats
    tokens: int | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Anything but a valid answer.

    Attributes:
        status: the HTTP status, or None when no status line came.
        code: the API's error code; ``connection``, ``timeout`` or ``malformed`` for what isn't an API's error.
        message: what the API said, or what was wrong.
        retry_after: seconds the API asks to wait, None when it asks nothing.
        request_id: the API's name for the request, empty when it gave none.
    """

    status: int | None
    code: str
    message: str
    retry_after: float | None = None
    request_id: str = ""

    def __str__(self) -> str:
        status = "no answer" if self.status is None else f"HTTP {self.status}"
        name = f", request {self.request_id}" if self.request_id else ""
        return f"{status}, {self.code or 'no code'}: {self.message}{name}"
