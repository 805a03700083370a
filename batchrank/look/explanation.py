"""Defines what is told of one document of a ranking: what was sent of its text, and the requests that put it there."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from batchrank.data import Query
from batchrank.job.config import Job
from batchrank.pipeline.prepare import Prepared
from batchrank.shard.long import too_long
from batchrank.tokens import counter

Proof = Literal[
    "request",
    "chain",
    "tie",
    "comparable",
    "estimate",
    "raw",
    "fusion",
    "contradiction",
    "unscored",
    "unknown",
]
"""What tells that one document stands above another: one request's scores; several requests', each of which has one
above the next; equal scores; raw scores of two requests that the run found comparable. The others prove nothing: an
estimate, raw scores that may not be comparable, a fusion of ranks, answers that contradict each other, no score,
answers that are not known."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent of a document.

    Attributes:
        characters: characters of the text that was sent, of all passages together; None for an image or a video.
        cut_to: the same, where the text was cut before it was sent, as the API would refuse it; None where it wasn't.
        tokens: tokens after which the API cuts a text.
        cut: whether the API cuts it; None where tokens are only bounded, and it may.
        passages: how many passages it was split into, 1 for a whole text.
    """

    characters: int | None
    cut_to: int | None
    tokens: int
    cut: bool | None
    passages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A request of the query.

    Attributes:
        number: what the explanation calls it, from 1.
        purpose: why it was asked.
        round: its round and ``chunk`` in it, from 1; None where only an earlier run's answer is known.
        chunks: how many chunks that round had, asked for the same purpose.
        documents: how many documents it held; those that are still candidates, where an earlier run asked.
        rank: the document's rank in it, from 1, and its ``score``; None where it wasn't in it.
        run: the run that asked, and ``earlier`` whether that is not the one that wrote the output.
        at: when it was answered, ISO 8601, UTC; None where nobody knows.
        tokens: tokens billed.
        request_id: the API's name for it.
        key: what the ledger knows it by.
        server: the address of the server that answered it, and ``key_name`` the name of the variable or file that the
            API key was from; None where nobody knows, or there was no key.
    """

    number: int
    purpose: str
    round: int | None
    chunk: int | None
    chunks: int | None
    documents: int
    rank: int | None
    score: float | None
    run: int
    earlier: bool
    at: str | None
    tokens: int | None
    request_id: str | None
    key: str | None
    server: str | None
    key_name: str | None


@dataclass(frozen=True, slots=True)
class Fact:
    """A document scored above another in one request; or the same, if it is a ``tie``."""

    request: int
    upper: str
    upper_score: float
    lower: str
    lower_score: float
    tie: bool


@dataclass(frozen=True, slots=True)
class Order:
    """Why one document stands above another.

    Attributes:
        upper: the one above, its rank, and its score in the output.
        lower: the one below, likewise.
        proof: the kind of proof.
        chain: the facts that prove it, from the upper to the lower one.
        evidence: where there is no proof, what requests say that held both.
    """

    upper: str
    upper_rank: int
    upper_score: float | None
    lower: str
    lower_rank: int
    lower_score: float | None
    proof: Proof
    chain: Sequence[Fact] = ()
    evidence: Sequence[Fact] = ()


@dataclass(slots=True, kw_only=True)
class Explanation:
    """Why a document stands where it does.

    Attributes:
        before: its rank in the first stage, from 1.
        certified: how many documents, from the top, are proven to stand where they do.
        replayed: whether the query was ranked again from the ledger, with the ranking that was written.
        orders: why it stands below its upper neighbour, above its lower one, and what else was asked for.
        refused: how requests with it were refused, whose halves were asked instead.
        attempts: how tries of requests with it failed that were made again.
        unscored: why it has no score.
        sent: what was sent of its text.
        reused: documents of the query that no request of the run held, as earlier answers tell of them; the ``oldest``
            of those, ISO 8601, UTC.
    """

    query_id: str
    query: str | None
    doc_id: str
    rank: int
    documents: int
    before: int | None
    score: float | None
    raw_score: float | None
    certified: int
    top_k: int | None
    method: str | None
    verdict: str | None
    replayed: bool = False
    requests: list[Held] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)
    unscored: str | None = None
    sent: Sent | None = None
    reused: int | None = None
    oldest: str | None = None
    notes: list[str] = field(default_factory=list)

    def data(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def sent(prepared: Prepared, position: int, job: Job | None, read: Query | None) -> Sent | None:
    """What was sent of the document at a position of the first stage; ``read`` is the query as it was read."""
    if job is None:
        return None
    query = prepared.query
    places = [position]
    if prepared.passages is not None:
        places = np.flatnonzero(prepared.passages.owners == position).tolist()
    texts = [text for text in (query.documents[place] for place in places) if isinstance(text, str)]
    count = counter(job.tokenizer)
    long = np.isin(places, too_long(query, count, job.card.item_tokens)).any()
    size = sum(map(len, texts)) if texts else None
    original = None if read is None else read.documents[position]
    shorter = size is not None and len(places) == 1 and isinstance(original, str) and len(original) > size
    return Sent(
        characters=size,
        cut_to=size if shorter else None,
        tokens=job.card.item_tokens,
        cut=bool(long) if count.exact or not long else None,
        passages=len(places),
    )
