"""Tells what became of each query, and sums up a run: totals that a rerun repeats, a snapshot for whoever watches."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from batchrank.errors import Place, QueryError
from batchrank.outcomes import Failure, Ranking, Verdict
from batchrank.pipeline.prepare import Prepared

LOST = "document-lost"
"""The cause of dead letters about a document that no request was accepted with."""
DOCUMENT_CAUSES = frozenset({"missing-document", LOST})
"""Causes of dead letters about one document, whose query is ranked all the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of one query or bad record.

    Attributes:
        position: its place among all that was read.
        result: the ranking or the dead letter.
        part: its part's number, place: its place in it, from 0, and last: whether the part ends with it.
        lost: dead letters of documents in the ranking that could not be sent, or that no request was accepted with.
        truncated: texts of the query that were cut.
        unreadable: whether reading found the fault, so that reading again will find it again.
    """

    position: int
    result: Ranking | Failure
    part: int = 0
    place: int = 0
    last: bool = False
    lost: Sequence[Failure] = ()
    truncated: int = 0
    unreadable: bool = False

    @classmethod
    def of(cls, prepared: Prepared, result: Ranking | Failure, lost: Sequence[Failure] = ()) -> "Outcome":
        """What became of a query that was prepared; a failed one has no texts that were cut."""
        truncated = prepared.truncated if isinstance(result, Ranking) else 0
        return cls(prepared.position, result, prepared.part, prepared.place, prepared.last, lost, truncated)


@dataclass(slots=True)
class Completed:
    """What came out of ranking, written or not: items, their documents, those of rankings, the tokens behind these."""

    items: int = 0
    documents: int = 0
    ranked: int = 0
    tokens: int = 0

    def add(self, outcome: Outcome, documents: int) -> None:
        """Count one item of so many candidates."""
        self.items += 1
        self.documents += documents
        if isinstance(outcome.result, Ranking):
            self.ranked += documents
            self.tokens += outcome.result.cost.tokens

    def __add__(self, other: "Completed") -> "Completed":
        return Completed(
            self.items + other.items, self.documents + other.documents, self.ranked + other.ranked,
            self.tokens + other.tokens,
        )  # fmt: skip


def failure_record(place: Place, query_id: str | None, error: QueryError) -> Failure:
    """The dead letter of a query that can't be ranked."""
    return Failure(place, query_id, error.cause, str(error), error.attempts)


@dataclass(slots=True)
class Totals:
    """Sums over queries in input order; the same on every run of the same job, however often it was interrupted.

    Attributes:
        queries: queries ranked.
        failed: queries and records that could not be ranked.
        documents: candidates of the ranked queries.
        unscored: candidates without a score: blank, or refused by the API.
        refused: candidates that could not be sent, or that the API refused.
        lost: candidates that every request failed with, while requests without them succeeded.
        truncated: texts cut by the API beyond ``item_tokens`` (0 with an inexact tokenizer), or before they were sent.
        chunks: requests of the first passes.
        requests: answered requests in all.
        sent: documents in those requests.
        one_pass: documents that a single pass over each list sends.
        reused: documents that no request of this run held, because earlier runs' answers tell of them.
        agreed: pairs of documents that two answers to one query order alike, of ``compared`` that they order.
        tokens: tokens billed for those requests, whenever they were asked, and ``searches`` where those are billed.
        certified: queries proven exact to ``merge.top_k`` (or to their end).
        multi_chunk: queries that needed more than one chunk.
        halved: other queries whose request was halved.
        methods: queries by the method that made the ranking.
        verdicts: queries of more than one chunk by verdict.
        causes: failures by cause.
    """

    queries: int = 0
    failed: int = 0
    documents: int = 0
    unscored: int = 0
    refused: int = 0
    lost: int = 0
    truncated: int = 0
    chunks: int = 0
    requests: int = 0
    sent: int = 0
    one_pass: int = 0
    reused: int = 0
    agreed: int = 0
    compared: int = 0
    tokens: int = 0
    searches: int = 0
    certified: int = 0
    multi_chunk: int = 0
    halved: int = 0
    methods: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    causes: dict[str, int] = field(default_factory=dict)

    def add(self, ranking: Ranking, lost: Sequence[Failure], truncated: int, top_k: int) -> None:
        """Count one ranked query, the dead letters of its documents, and how many of its texts were cut."""
        cost, merge = ranking.cost, ranking.merge
        scored = int(np.isfinite(merge.scores).sum())
        self.queries += 1
        self.documents += len(ranking.scores)
        self.unscored += len(ranking.scores) - scored
        self.refused += len(lost)
        self.truncated += truncated
        self.chunks += cost.chunks
        self.requests += cost.requests
        self.sent += cost.documents
        self.one_pass += len(merge.order)
        self.reused += cost.reused
        if merge.agreement is not None:
            self.agreed += merge.agreement.alike
            self.compared += merge.agreement.pairs
        self.tokens += cost.tokens
        self.searches += cost.searches
        self.certified += merge.certified >= min(top_k, scored)
        _count(self.methods, merge.method)
        if cost.chunks > 1:
            self.multi_chunk += 1
            _count(self.verdicts, merge.verdict)
        self.halved += cost.chunks == 1 and merge.method != "single"
        for failure in lost:
            self.lost += failure.cause == LOST
            _count(self.causes, failure.cause)

    def fail(self, cause: str) -> None:
        """Count one query or record that could not be ranked, or one document that is missing from a ranking."""
        self.failed += cause not in DOCUMENT_CAUSES
        _count(self.causes, cause)

    def plus(self, other: "Totals") -> "Totals":
        """The sums of both, as of one part and the next; they may be counted up in another thread meanwhile."""
        return Totals(*(_sum(getattr(self, name), getattr(other, name)) for name in self.__slots__))

    def state(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)

    @property
    def items(self) -> int:
        """Queries and records, ranked or not."""
        return self.queries + self.failed

    @property
    def verdict(self) -> Verdict | None:
        """The verdict that most lists were merged by; None where none had one."""
        known = {name: count for name, count in self.verdicts.items() if name != "unknown"}
        return cast(Verdict, max(known, key=known.__getitem__)) if known else None

    @property
    def extra(self) -> float:
        """Documents paid for beyond one pass, as a share of one pass."""
        return self.sent / self.one_pass - 1 if self.one_pass else 0.0


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, int):
        return one + other
    both = one.copy()
    for name, count in other.copy().items():
        both[name] = both.get(name, 0) + count
    return both


def _count(table: dict[str, int], name: str) -> None:
    table[name] = table.get(name, 0) + 1


@dataclass(frozen=True, slots=True)
class Progress:
    """A snapshot of a running job.

    Attributes:
        queries: written so far; ``unfinished`` more are under way.
        failed: queries and records that could not be ranked.
        documents: documents in answered requests of this process.
        requests: requests sent by this process; ``in_flight`` of them have no answer yet.
        retries: requests that had to be repeated.
        reused: requests answered by the ledger.
        tokens: tokens spent by the run; ``possible_tokens`` of them may have been billed without a result.
        billed_tokens: tokens billed to this process.
        cost: the run's cost, what was possibly billed included; None without a price; ``currency`` names its unit.
        counted_tokens: tokens that count against the caps, which may hold for a day or for all that was ever paid.
        counted_cost: what they cost.
        possible_cost: the part of it that may have been billed without a result.
        rpm: requests a minute allowed, by all keys together.
        tpm: tokens a minute allowed, as well.
        quota_used: the part of the scarcer quota used in the last minute.
        elapsed: seconds since the start.
        share: the part of the input that is done with, by bytes.
        eta: seconds to go at the pace of this process so far, None while unknown.
        throttled: requests that were throttled (429).
        latency: answers by their latency, as ``batchrank.send.stats.LATENCY_BOUNDS`` divides it.
        latency_sum: seconds that all answers took together.
        gate: what holds queries back now, as ``Flow.gate`` tells; None for nothing.
        scarcer: which quota that is, ``rpm`` or ``tpm``.
        forecast: that the run won't be done in the time it was given, how far it will be, and why; else None.
        trouble: while nothing succeeds: for how long, and why; None while all is well.
        replicas: how each of several servers stands, as ``Replica.state`` tells; empty where there is one.
        keys: how each of several API keys stands, by its variable or file; empty where there is one.
        rankers: processes that rank beside the one that sends; None where that ranks itself.
        machines: machines that these are on.
    """

    queries: int
    failed: int
    unfinished: int
    documents: int
    requests: int
    in_flight: int
    retries: int
    reused: int
    tokens: int
    billed_tokens: int
    cost: float | None
    currency: str
    rpm: float
    tpm: float
    quota_used: float
    elapsed: float
    share: float
    eta: float | None
    throttled: int
    latency: tuple[int, ...]
    latency_sum: float
    possible_tokens: int = 0
    possible_cost: float | None = None
    counted_tokens: int = 0
    counted_cost: float | None = None
    gate: str | None = None
    scarcer: str = "rpm"
    forecast: str | None = None
    trouble: str | None = None
    replicas: Sequence[dict[str, Any]] = ()
    keys: Sequence[dict[str, Any]] = ()
    rankers: int | None = None
    machines: int | None = None
