"""Tells what a job would do and cost by reading its input once; sends nothing."""

import heapq
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from batchrank.data import Floats, Positions, Query
from batchrank.job.config import Job
from batchrank.merge.answers import Round
from batchrank.merge.methods import METHODS
from batchrank.merge.start import start
from batchrank.models import searches
from batchrank.outcomes import Scores
from batchrank.pipeline.preconditions import Preconditions
from batchrank.pipeline.prepare import Prepared
from batchrank.planning.survey import Survey, survey
from batchrank.read.base import Gauge
from batchrank.shard.chunks import QueryShards

_LARGEST = 5
"""Largest queries that are shown: they are what surprises on a bill."""
_GOLDEN = (5**0.5 - 1) / 2
"""Multiples of the golden ratio, modulo 1, are spread evenly and in no order: a scramble without a seed."""


@dataclass(slots=True)
class Bill:
    """What one merge method would send; tokens and searches as predicted, seconds at the full quota."""

    requests: int = 0
    documents: int = 0
    tokens: int = 0
    searches: int = 0
    cost: float | None = None
    seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Plan(Survey):
    """What a job would do.

    Attributes:
        tokens: tokens of one pass over all lists.
        exact: whether tokens are counted, not bounded by bytes; if not, nobody knows what would be cut.
        multi_chunk: queries of more than one chunk.
        largest: the largest lists: query id, documents, chunks, tokens.
        methods: what each merge method would send.
        currency: of the costs.
    """

    tokens: int = 0
    exact: bool = True
    multi_chunk: int = 0
    largest: list[dict[str, Any]] = field(default_factory=list)
    methods: dict[str, Bill] = field(default_factory=lambda: {name: Bill() for name in METHODS})
    currency: str | None = None
    forecast: "_Forecast" = field(default_factory=lambda: _Forecast())

    @property
    def rejected(self) -> dict[str, int]:
        """Queries and records that could not be ranked, by cause."""
        return {name: cause.count for name, cause in self.failed.items()}

    def add(self, query: Query, ready: Prepared) -> None:
        """Count one query, and what each merge method would send for it."""
        Survey.add(self, query, ready)
        known = ready.shards
        known.count()
        tokens = sum(known.tokens(chunk) for chunk in known.chunks)
        sendable = sum(map(len, known.chunks))
        self.tokens += tokens
        self.multi_chunk += len(known.chunks) > 1
        for name, bill in self.methods.items():
            requests, documents, searched = self.forecast.of(name, known, ready.top_k)
            bill.requests += requests
            bill.searches += searched
            bill.documents += documents
            bill.tokens += round(tokens * documents / sendable)
        entry = {"query_id": query.id, "documents": len(query), "chunks": len(known.chunks), "tokens": tokens}
        self.largest = heapq.nlargest(_LARGEST, [*self.largest, entry], key=lambda entry: entry["documents"])

    def price(self, job: Job) -> None:
        """Tell what it all costs, and how long it takes at the full quota."""
        card, price = job.card, job.price
        self.currency = price.currency if price else None
        for bill in self.methods.values():
            bill.cost = price.cost(bill.tokens, searches=bill.searches) if price else None
            bill.seconds = 60 / float(job.rate.part) * max(bill.requests / card.rpm, bill.tokens / card.tpm)

    def data(self) -> dict[str, Any]:
        """As plain data."""
        found = {name: getattr(self, name) for name in _TOLD}
        found["truncated"] = self.truncated if self.exact else None
        return found | {"methods": {name: asdict(bill) for name, bill in self.methods.items()}}


_TOLD = (
    "queries", "documents", "blank", "tokens", "exact", "chunks", "multi_chunk", "truncated", "rejected", "largest",
    "currency",
)  # fmt: skip


def plan(job: Job, gauge: Gauge | None = None) -> Plan:
    """Read a job's input and work out what running it would take.

    Args:
        job: the job; no key is needed.
        gauge: kept up to date while reading.

    Raises:
        JobError: the job has no input.
        InputError: the input as a whole is unusable.
    """
    ground = Preconditions(job)
    found = survey(ground, Plan(exact=ground.sharder.counter.exact), gauge=gauge)
    found.price(job)
    return found


class _Forecast:
    """Requests, documents and searches of each merge method, by the shape of the list."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, tuple[int, ...]], tuple[int, int, int]] = {}

    def of(self, method: str, shards: QueryShards, top_k: int) -> tuple[int, int, int]:
        """Requests, documents and searches that a list would take."""
        lengths = tuple(len(chunk) for chunk in shards.chunks)
        if len(lengths) == 1:
            return 1, lengths[0], searches(lengths[0])
        key = method, top_k, lengths
        if key not in self._known:
            self._known[key] = self._drive(method, shards, top_k)
        return self._known[key]

    def _drive(self, method: str, shards: QueryShards, top_k: int) -> tuple[int, int, int]:
        requests = documents = searched = 0
        merging = start(method, shards, top_k=top_k)
        reply: Any = None
        while True:
            try:
                step = merging.send(reply)
            except StopIteration:
                return requests, documents, searched
            reply = "relative"
            if isinstance(step, Round):
                requests += len(step.chunks)
                documents += sum(map(len, step.chunks))
                searched += sum(searches(len(chunk)) for chunk in step.chunks)
                reply = [Scores(c.documents, _scores(c.documents), i) for i, c in enumerate(step.chunks)]


def _scores(documents: Positions) -> Floats:
    """Made-up scores, consistent between requests: a scramble of the position, as if the first stage knew little."""
    scrambled: Floats = (documents.astype(np.float64) + 1) * _GOLDEN % 1.0
    return scrambled
