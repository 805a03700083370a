"""Tells what a job would do and cost by reading its input once, in each region that its model has; sends nothing.

An answer counts in the region that gave it, as nobody promises that regions answer alike; so what tonight saves in one
region isn't saved in another.
"""

import heapq
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from batchrank.data import Query
from batchrank.job.config import Job
from batchrank.job.servers import Workspace
from batchrank.merge.methods import METHODS
from batchrank.models import Price, vendor
from batchrank.pipeline.preconditions import Preconditions
from batchrank.pipeline.prepare import Prepared
from batchrank.planning.bill import Bill, Forecast, Net
from batchrank.planning.net import Tonight
from batchrank.planning.survey import Survey, Watch, survey, unwatched
from batchrank.send.stats import Meter

_LARGEST = 5
"""Largest queries that are shown: they are what surprises on a bill."""


@dataclass(frozen=True, slots=True)
class Region:
    """What a job would cost in one region.

    Attributes:
        name: the region's.
        ours: whether it is the job's.
        price: what the model costs there; None where no price is known.
        cost: what the job's merge method costs there; None without a price.
        net_cost: the same net of the ledger; None where there is none, or it can't be looked at.
        net_tokens: the tokens of that.
    """

    name: str
    ours: bool
    price: Price | None
    cost: float | None
    net_cost: float | None
    net_tokens: int | None

    @classmethod
    def of(cls, job: Job, name: str, bill: Bill, net: Net | None) -> "Region":
        """The comparison's row of a region.

        Args:
            job: the job.
            name: the region's.
            bill: what its merge method sends, wherever that is.
            net: what it would send there, given what the ledger knows.
        """
        price = job.card.price(name)
        return cls(
            name,
            name == _region_of(job),
            price,
            None if price is None else price.cost(bill.tokens, searches=bill.searches),
            None if price is None or net is None else price.cost(net.tokens, searches=net.searches),
            None if net is None else net.tokens,
        )

    def data(self) -> dict[str, Any]:
        """As plain data."""
        known = {name: getattr(self, name) for name in ("cost", "net_cost", "net_tokens")}
        price = None if self.price is None else self.price.model_dump()
        return {"region": self.name, "this_job": self.ours, "price": price} | known


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
            other.add(_afresh(ready))
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
        nets = {_region_of(job): self.net}
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
            for name, other in _elsewhere(job).items():
                there = Tonight(Preconditions(other), found.forecast)
                found.elsewhere[name] = stack.enter_context(there)
            survey(ground, found, watch=watch)
            for rehearsed in (found.tonight, *found.elsewhere.values()):
                rehearsed.end()
            found.net, found.notice = found.tonight.net, found.tonight.notice
    found.price(job)
    found.compare(job)
    return found


def _region_of(job: Job) -> str:
    """The region that a job names, or its vendor's own."""
    return job.region or vendor(job.card.vendor).default_region


def _elsewhere(job: Job) -> dict[str, Job]:
    """The same job in each other region where its model is served; none where the job names an address of its own."""
    if job.endpoint.urls or job.endpoint.url not in (None, "emulator"):
        return {}
    names = job.card.regions or tuple(vendor(job.card.vendor).hosts)
    named = job.endpoint.region
    found: dict[str, Job] = {}
    for name in names:
        if name != _region_of(job):
            there = named.model_copy(update={"region": name}) if isinstance(named, Workspace) else name
            endpoint = job.endpoint.model_copy(update={"region": there})
            found[name] = job.model_copy(update={"endpoint": endpoint})
    return found


def _afresh(ready: Prepared) -> Prepared:
    """A prepared query as if nobody had looked anything up for it, so that it can be rehearsed for another region."""
    return replace(
        ready, whole=None, meter=Meter(chunks=len(ready.shards.chunks)), earlier=[], oldest=0, refused={}, question=0,
        contents=None, aside=False,
    )  # fmt: skip
