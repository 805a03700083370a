"""Puts together all that a run sends with, as its job says: endpoint, limiter, ledger, merge."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio.to_thread
import orjson

from batchrank.errors import JobError
from batchrank.io.media import Media, Shares
from batchrank.job.config import Job
from batchrank.ledger.access import Access
from batchrank.ledger.departures import Departures
from batchrank.ledger.ledger import Ledger
from batchrank.ledger.state import Spent
from batchrank.merge.verdict import Verdicts
from batchrank.models import searches
from batchrank.pipeline.endpoint import api_keys, encoder, fleet, rate_limiter
from batchrank.pipeline.rank import Driver
from batchrank.pipeline.shared import Recollector, SharedVerdicts
from batchrank.pipeline.workers import background_task
from batchrank.send.admission import Scheduler
from batchrank.send.budget import Before, Budget, Taken
from batchrank.send.fleet import Fleet
from batchrank.send.gateway import Gateway
from batchrank.send.rate import RateLimiter
from batchrank.send.requests import Past
from batchrank.send.sender import Sender
from batchrank.send.spend import Spend
from batchrank.send.stats import Timeline
from batchrank.shard.chunks import Sharder
from batchrank.shard.sizes import Limits
from batchrank.tokens import counter
from batchrank.write.formats import holds_texts

_WRAPPER_BYTES = 1024
"""Bytes of a request's body besides query, documents, instruct and what a job adds; the formats need far fewer."""


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """The parts of a run that live as long as it does."""

    job: Job
    sharder: Sharder
    gateway: Gateway
    sender: Sender
    scheduler: Scheduler
    limiter: RateLimiter
    fleet: Fleet
    spend: Spend
    verdicts: Verdicts
    driver: Driver
    ledger: Ledger


def sharder(job: Job) -> Sharder:
    """What shards queries for a job.

    Raises:
        MissingExtraError: the tokenizer needs an extra that isn't installed.
        JobError: the fields that a job adds leave no room for a request.
    """
    card = job.card
    extra = len(orjson.dumps(job.endpoint.body)) if job.endpoint.body else 0
    if _WRAPPER_BYTES + extra >= card.body_bytes:
        raise JobError(
            f"endpoint.body: takes {extra:,} bytes, and a request may have limits.body_bytes: {card.body_bytes:,}"
        )
    limits = Limits(
        documents=card.documents,
        request_tokens=card.request_tokens,
        item_tokens=card.item_tokens,
        body_bytes=card.body_bytes,
        overhead_tokens=job.limits.overhead_tokens,
        headroom=job.limits.headroom,
    )
    media = Media(card.vision, Shares(card.counts), job.fps) if card.vision else None
    return Sharder(
        limits,
        counter(job.tokenizer, card.tokenizer),
        instruct=job.said_instruct,
        template=job.template,
        wrapper_bytes=_WRAPPER_BYTES + extra,
        media=media,
    )


@asynccontextmanager
async def opened_ledger(path: Path | None, *, salvage: bool = False) -> AsyncIterator[Ledger]:
    """A ledger that is served while the block runs, and closed after it; ``salvage`` as ``Ledger`` has it.

    Raises:
        LedgerError: it can't be opened.
    """
    ledger = await anyio.to_thread.run_sync(partial(Ledger, path, salvage=salvage))
    try:
        async with background_task(ledger.serve):
            yield ledger
    finally:
        ledger.close()


@asynccontextmanager
async def engine(
    job: Job,
    shards: Sharder,
    ledger: Ledger,
    spent: Spent,
    verdicts: Verdicts,
    *,
    past: Past | None = None,
    scope: str = "",
) -> AsyncIterator[Engine]:
    """Start everything a run needs; the ledger is already being served, the verdicts perhaps restored.

    Args:
        job: the job.
        shards: shards its queries.
        ledger: what was paid for.
        spent: what earlier processes of the run have spent.
        verdicts: whether scores of different requests can be compared, part by part.
        past: which answers of earlier runs may be used; None where there is none.
        scope: what tells the job's state in the ledger.

    Raises:
        JobError: no API key, a tokenizer that can't be read, or a cap on a cost that can't be known.
    """
    every_key = api_keys(job)
    async with AsyncExitStack() as stack:
        urls = [await _emulated(job, stack)] if job.emulated else job.urls
        servers, wire = fleet(job, urls, every_key[0])
        for replica in servers.replicas:
            await stack.enter_async_context(replica.http)
        departures = Departures(ledger)
        rate = await stack.enter_async_context(rate_limiter(job, every_key, await departures.load()))

        scheduler = Scheduler(rate, servers)
        per = job.budget.per
        spend = _spend(job, spent, None if per == "run" else await ledger.spent(per))
        encodes = encoder(job, wire, legacy=ledger.legacy)
        gateway = _gateway(
            job, ledger, scheduler, spend,
            harmless=encodes.harmless(), accepted=spent.answers > 0, note=departures.note,
        )  # fmt: skip
        sender = Sender(encoder=encodes, wire=job.wire, ledger=ledger, gateway=gateway, counts=gateway.counts)
        driver = await ranker(
            job, shards, ledger, sender, SharedVerdicts(verdicts),
            counted=gateway.counted, past=past, scope=scope,
        )  # fmt: skip
        await stack.enter_async_context(background_task(scheduler.serve))
        await stack.enter_async_context(background_task(gateway.reviver.serve))
        yield Engine(job, shards, gateway, sender, scheduler, rate, servers, spend, verdicts, driver, ledger)


def _gateway(
    job: Job,
    ledger: Ledger,
    scheduler: Scheduler,
    spend: Spend,
    *,
    harmless: bytes,
    accepted: bool,
    note: Callable[[int, str], None],
) -> Gateway:
    """What sends requests and counts what becomes of them."""
    gateway = Gateway(
        wire=job.wire,
        harmless=harmless,
        ledger=ledger,
        scheduler=scheduler,
        spend=spend,
        attempts=job.retry.attempts,
        max_delay=job.retry.max_delay,
        outage=job.retry.outage,
        accepted=accepted,
        rng=random.Random(),  # noqa: S311 jitter, not secrets
        note=note,
    )
    rpm, tpm = job.quota
    gateway.counts.timeline = Timeline(
        documents=job.card.documents, tokens=job.card.request_tokens, rpm=rpm, tpm=tpm
    )
    return gateway


async def ranker(
    job: Job,
    shards: Sharder,
    ledger: Access,
    sender: Sender,
    verdicts: SharedVerdicts,
    *,
    counted: bool,
    past: Past | None,
    scope: str,
) -> Driver:
    """What ranks a job's queries, with whatever it sends by.

    Args:
        job: the job.
        shards: shards its queries.
        ledger: what was paid for.
        sender: gives chunks their scores.
        verdicts: the run-wide verdict.
        counted: whether a cap holds that tokens count against.
        past: as in ``engine``.
        scope: as in ``engine``.
    """
    card = job.card
    exact = counted or card.request_tokens * card.rpm > card.tpm
    return Driver(
        sender, verdicts, job.merge.method, job.price,
        exact=exact, sample=shards.counter.exact and not exact,
        texts=holds_texts(job.output),
        attempts=job.retry.attempts,
        recollector=None if past is None else await _recollector(job, ledger, sender, past, scope),
    )  # fmt: skip


async def _recollector(
    job: Job, ledger: Access, sender: Sender, past: Past, scope: str
) -> Recollector | None:
    """What finds answers of earlier runs document by document, as far as the job wants that."""
    sender.recall.past = past
    if not job.reuse.documents:
        return None
    recollector = Recollector(ledger, sender.encoder, sender.recall, job.reuse.audit, f"reuse/{scope}/")
    await recollector.restore()
    return recollector


def refuse_unknown_cost(job: Job) -> None:
    """Refuse a cap on a cost that can't be known.

    Raises:
        JobError: the model has no price.
    """
    if job.budget.max_cost is not None and job.price is None:
        raise JobError(
            f"budget.max_cost: no price is known for {job.card.name}; set model.price or budget.max_tokens"
        )


def _spend(job: Job, spent: Spent, counted: Spent | None) -> Spend:
    refuse_unknown_cost(job)
    own = job.budget
    return Spend(
        job.price.dearest if job.price else None,  # a cap must hold whatever the requests hold
        Budget(own.max_cost, own.max_tokens, own.max_requests, own.per),
        _before(spent),
        None if counted is None else _before(counted, spent),
    )


def _before(spent: Spent, known: Spent | None = None) -> Before:
    """What was taken earlier; the worst bill is that of ``known`` too, as a day begins without any."""
    ratios = [one.ratio for one in (spent, known or spent) if one.ratio is not None]
    hidden = [one.hidden for one in (spent, known or spent) if one.hidden is not None]
    worst = max(ratios, default=None), max(hidden, default=None)
    return Before(
        tokens=Taken(spent.tokens, spent.unbilled, spent.lost, *worst),
        searches=_searches(spent, known or spent),
        requests=spent.requests,
    )


def _searches(spent: Spent, known: Spent) -> Taken:
    """What was taken in searches: a request is expected to be billed as one for each hundred documents begun."""
    lost = Counter[tuple[int, int]]()
    for (_, documents), count in spent.lost.items():
        lost[searches(documents), documents] += count
    both = spent.searches, known.searches
    ratio = max((one.ratio for one in both if one.ratio is not None), default=None)
    hidden = max((one.hidden for one in both if one.hidden is not None), default=None)
    return Taken(spent.searches.billed, spent.searches.unbilled, dict(lost), ratio, hidden)


async def _emulated(job: Job, stack: AsyncExitStack) -> str:
    """Start an emulator of the job's model in this process; its scores are relative to the request, as documented."""
    from batchrank.emulator.app import Emulator
    from batchrank.emulator.endpoints import path
    from batchrank.emulator.settings import Settings

    settings = Settings(cards={job.card.name: job.card}, tokenizer=job.tokenizer, scores="relative")
    emulator = await stack.enter_async_context(Emulator(settings))
    return emulator.url + path(job.wire)
