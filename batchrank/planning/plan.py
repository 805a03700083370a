"""Tells what a job would do and cost by reading its input once; sends nothing."""

import heapq
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from batchrank.data import Query
from batchrank.job.config import Job
from batchrank.merge.methods import METHODS
from batchrank.pipeline.preconditions import Preconditions
from batchrank.pipeline.prepare import Prepared
from batchrank.planning.bill import Bill, Forecast, Net
from batchrank.planning.net import Tonight
from batchrank.planning.regions import Region, afresh, elsewhere, region_of
from batchrank.planning.survey import Survey, Watch, survey, unwatched

_LARGEST = 5
"""Largest queries that are shown: they are what surprises on a bill."""


@dataclass(slots=True, kw_only=True)
class Plan(Survey):
    """What a job would do.

    Attributes:
        tokens: tokens of one pass over all lists.
        exact: whether tokens are counted, neither estimated nor bounded by bytes.
        estimated: whether they are estimated; if they are bounded by bytes, nobody knows what would be cut.
        multi_chunk: queries of more than one chunk.
        largest: the largest lists: query id, documents, chunks, tokens.
        methods: what each merge method would send.
        currency: of the costs.
        net: what tonight's run would send, given what the ledger knows; None where that isn't known.
        notice: why it isn't, for the user; None where there is no ledger yet.
        regions: what the job's method costs in each region where the model is served, the job's own first.
    """

    tokens: int = 0
    exact: bool = True
    estimated: bool = False
    multi_chunk: int = 0
    largest: list[dict[str, Any]] = field(default_factory=list)
    methods: dict[str, Bill] = field(default_factory=lambda: {name: Bill() for name in METHODS})
    currency: str | None = None
    net: Net | None = None
    notice: str | None = None
    forecast: Forecast = field(default_factory=Forecast)
    tonight: Tonight | None = None
    elsewhere: dict[str, Tonight] = field(default_factory=dict)
    regions: list[Region] = field(default_factory=list)

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
        for other in self.elsewhere.values():
            other.add(afresh(ready))
        if self.tonight is not None:
            self.tonight.add(ready)
        self.largest = heapq.nlargest(_LARGEST, [*self.largest, entry], key=lambda entry: entry["documents"])

    def price(self, job: Job) -> None:
        """Tell what it all costs, and how long it takes at the full quota."""
        (rpm, tpm), price = job.quota, job.price
        self.currency = price.currency if price else None
        net, whole = self.net, self.methods[job.merge.method]
        if net is not None:
            net.saved_tokens = max(0, whole.tokens - net.tokens)
            searches = max(0, whole.searches - net.searches)
            net.saved_cost = price.cost(net.saved_tokens, searches=searches) if price else None
        for bill in [*self.methods.values(), *([] if net is None else [net])]:
            bill.cost = price.cost(bill.tokens, searches=bill.searches) if price else None
            bill.seconds = 60 / float(job.rate.part) * max(bill.requests / rpm, bill.tokens / tpm)

    def compare(self, job: Job) -> None:
        """Tell what the job would cost in each region."""
        bill = self.methods[job.merge.method]
        known = self.net is not None  # else what seems to be known of the others is no more to be relied on
        nets = {region_of(job): self.net}
        nets |= {name: there.net if known else None for name, there in self.elsewhere.items()}
        self.regions = [Region.of(job, name, bill, net) for name, net in nets.items()]

    def data(self) -> dict[str, Any]:
        """As plain data."""
        found = {name: getattr(self, name) for name in _TOLD}
        found["truncated"] = self.truncated if self.exact or self.estimated else None
        found["net"] = None if self.net is None else asdict(self.net)
        found["regions"] = [region.data() for region in self.regions]
        return found | {"methods": {name: asdict(bill) for name, bill in self.methods.items()}}


_TOLD = (
    "queries", "documents", "blank", "tokens", "exact", "estimated", "chunks", "multi_chunk", "truncated", "rejected",
    "largest", "currency", "notice",
)  # fmt: skip


def plan(job: Job, *, net: bool = True, watch: Watch = unwatched) -> Plan:
    """Read a job's input and work out what running it would take.

    Args:
        job: the job; no key is needed.
        net: whether to tell also what tonight's run would take, given what the job's ledger knows; that is only looked
            at.
        watch: shows how far reading has come.

    Raises:
        JobError: the job has no input.
        InputError: the input as a whole is unusable.
    """
    ground = Preconditions(job)
    counter = ground.sharder.counter
    found = Plan(exact=counter.exact and not counter.estimate, estimated=counter.estimate)
    if not net:
        survey(ground, found, watch=watch)
    else:
        with Tonight(ground, found.forecast) as found.tonight, ExitStack() as stack:
            for name, other in elsewhere(job).items():
                there = Tonight(Preconditions(other), found.forecast)
                found.elsewhere[name] = stack.enter_context(there)
            survey(ground, found, watch=watch)
            for rehearsed in (found.tonight, *found.elsewhere.values()):
                rehearsed.end()
            found.net, found.notice = found.tonight.net, found.tonight.notice
    found.price(job)
    found.compare(job)
    return found
