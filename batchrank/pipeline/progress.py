"""Tells how far a run is, and what the rest of it would take, for whoever watches."""

import math
from dataclasses import dataclass

from batchrank.job.sections import Budget
from batchrank.models import Price
from batchrank.pipeline.assemble import Engine
from batchrank.pipeline.summary import Progress, Totals


@dataclass(frozen=True, slots=True)
class Done:
    """How far a run has come.

    Attributes:
        items: queries and bad records dealt with.
        read: those read so far.
        share: the part of the input that was read, 0 when its size is unknown.
        tokens: tokens of the requests behind the items dealt with, whenever they were asked and paid.
        spent: tokens this run has taken, and ``possible`` ones that may have been billed without a result.
        saved: tokens it was saved by answers of earlier runs.
        documents: documents in requests that this process had answered, and ``billed`` the tokens for them.
        per_item: documents of an item, on average.
        cost: what the tokens spent cost; None without a price.
    """

    items: int
    read: int
    share: float
    tokens: int
    spent: int
    saved: int
    documents: int
    billed: int
    per_item: float
    cost: float | None = None
    possible: int = 0

    @property
    def rest(self) -> int | None:
        """Tokens to go, None when nothing tells. Answers of earlier runs are expected to save what they did so far."""
        if not self.read or not self.share:
            return None
        total = max(self.read / self.share, self.read)
        ahead = max(0, self.spent + self.saved - self.tokens) if self.items else self.spent
        if self.items and self.tokens:
            each = self.tokens / self.items
        elif self.documents:
            each = self.per_item * self.billed / self.documents
        else:
            return None
        paid = self.spent / (self.spent + self.saved) if self.spent + self.saved else 1.0
        return round(max(0.0, each * (total - self.items) - ahead) * paid)


_TOMORROW = "run the job again after midnight UTC, and it goes on"


def next_step(done: Done, price: Price | None, budget: Budget, cap: str) -> str:
    """What to do at a cap, for the user; a job with a cap for each day is told how many days it still takes."""
    if budget.per != "day":
        return f"raise {cap}, and run the job again: it goes on where it stopped"
    rest = done.rest
    if not rest:
        return _TOMORROW
    days = [0.0 if budget.max_tokens is None else rest / budget.max_tokens]
    if budget.max_cost is not None and price is not None:
        days.append(_more(done, price, rest) / budget.max_cost)
    left = math.ceil(max(days))
    return f"{_TOMORROW}; at this cap it takes about {left:,} more day{'s' * (left > 1)}"


def rest_of(done: Done, price: Price | None) -> str:
    """What going on would take, for the user."""
    rest = done.rest
    if rest is None:
        return "too little is done, or the input's size is unknown, so what the rest would take can't be told"
    total = done.spent + done.possible + rest
    if price is None or done.cost is None:
        return f"the rest of the input would take about {rest:,} tokens more: about {total:,} tokens in all"
    more = _more(done, price, rest)
    return (
        f"the rest of the input would take about {more:,.4f} {price.currency} more ({rest:,} tokens): "
        f"about {done.cost + more:,.4f} {price.currency} ({total:,} tokens) in all"
    )


def _more(done: Done, price: Price, rest: int) -> float:
    """What the rest will cost; where searches are billed, as much for each token as what is done did."""
    return (
        price.cost(rest)
        if price.search is None
        else (done.cost or 0.0) * rest / max(done.spent + done.possible, 1)
    )


def snapshot(parts: Engine, totals: Totals, unfinished: int, share: float, elapsed: float) -> Progress:
    """How a run stands.

    Args:
        parts: what it sends with.
        totals: what it has written.
        unfinished: queries under way.
        share: the part of the input that is done with.
        elapsed: seconds since it began.
    """
    counts, limiter, spend, card = parts.sender.counts, parts.limiter.stats(), parts.spend, parts.job.card
    return Progress(
        queries=totals.queries,
        failed=totals.failed,
        unfinished=unfinished,
        documents=counts.documents,
        requests=counts.requests,
        in_flight=parts.places.busy,
        retries=sum(counts.retries.values()),
        reused=counts.reused_requests,
        tokens=spend.tokens,
        billed_tokens=counts.tokens,
        cost=spend.cost,
        currency=parts.job.price.currency if parts.job.price else "",
        rpm=card.rpm,
        tpm=card.tpm,
        quota_used=max(limiter.requests_used, limiter.tokens_used),
        elapsed=elapsed,
        share=share,
        eta=elapsed * (1 - share) / share if share > 0.001 else None,
        throttled=counts.timeline.throttled,
        latency=tuple(counts.timeline.latency),
        latency_sum=counts.timeline.latency_sum,
        possible_tokens=spend.possible_tokens,
        possible_cost=spend.possible_cost,
        counted_tokens=spend.counted_tokens,
        counted_cost=spend.counted_cost,
        trouble=parts.sender.trouble(),
    )
