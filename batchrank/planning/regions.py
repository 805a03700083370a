"""Compares what a job would cost in each region where its model is served, net of what the ledger knows there.

An answer counts in the region that gave it, as nobody promises that regions answer alike; so what tonight saves in one
region isn't saved in another.
"""

from dataclasses import dataclass, replace
from typing import Any

from batchrank.job.config import Job
from batchrank.job.sections import Workspace
from batchrank.models import Price, vendor
from batchrank.pipeline.prepare import Prepared
from batchrank.planning.bill import Bill, Net
from batchrank.send.stats import Meter


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
            name == region_of(job),
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


def region_of(job: Job) -> str:
    """The region that a job names, or its vendor's own."""
    named = job.endpoint.region
    region = named.region if isinstance(named, Workspace) else named
    return region or vendor(job.card.vendor).default_region


def elsewhere(job: Job) -> dict[str, Job]:
    """The same job in each other region where its model is served; none where the job names an address of its own."""
    if job.endpoint.urls or job.endpoint.url not in (None, "emulator"):
        return {}
    names = job.card.regions or tuple(vendor(job.card.vendor).hosts)
    named = job.endpoint.region
    found: dict[str, Job] = {}
    for name in names:
        if name != region_of(job):
            there = named.model_copy(update={"region": name}) if isinstance(named, Workspace) else name
            endpoint = job.endpoint.model_copy(update={"region": there})
            found[name] = job.model_copy(update={"endpoint": endpoint})
    return found


def afresh(ready: Prepared) -> Prepared:
    """A prepared query as if nobody had looked anything up for it, so that it can be rehearsed for another region."""
    return replace(
        ready, whole=None, meter=Meter(chunks=len(ready.shards.chunks)), earlier=[], oldest=0, refused={}, question=0,
        contents=None, aside=False,
    )  # fmt: skip
