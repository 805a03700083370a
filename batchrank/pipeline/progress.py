"""A running job as those who watch it see it, gathered from its parts."""

from batchrank.pipeline.assemble import Engine
from batchrank.pipeline.summary import Progress, Totals


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
