"""Everything a run sends with, put together from the job: endpoint, limiter, ledger, merge."""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from batchrank.errors import JobError
from batchrank.formats import OUTPUTS
from batchrank.job import Job
from batchrank.ledger import Ledger, Spent
from batchrank.limiter import Limiter
from batchrank.media import Shares
from batchrank.merge.verdict import Verdicts
from batchrank.pipeline.drive import Driver
from batchrank.pipeline.tasks import beside
from batchrank.pipeline.verdicts import SharedVerdicts
from batchrank.records import Request
from batchrank.send import Before, Budget, Dispatcher, Http, Places, Sender, Spend, Taken
from batchrank.shard import Limits, Media, Sharder
from batchrank.timeline import Timeline
from batchrank.tokens import counter
from batchrank.wire import CODECS


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """The parts of a run that live as long as it does."""

    job: Job
    sharder: Sharder
    sender: Sender
    dispatcher: Dispatcher
    limiter: Limiter
    places: Places
    spend: Spend
    verdicts: Verdicts
    driver: Driver
    ledger: Ledger


def sharder(job: Job) -> Sharder:
    """What shards queries for a job.

    Raises:
        MissingExtraError: the tokenizer needs an extra that isn't installed.
    """
    card = job.card
    limits = Limits(
        documents=card.documents,
        request_tokens=card.request_tokens,
        item_tokens=card.item_tokens,
        body_bytes=card.body_bytes,
        overhead_tokens=job.limits.overhead_tokens,
        headroom=job.limits.headroom,
    )
    media = Media(card.vision, Shares(card.counts), job.fps) if card.vision else None
    return Sharder(limits, counter(job.tokenizer), instruct=job.instruct, media=media)


@asynccontextmanager
async def engine(
    job: Job, shards: Sharder, ledger: Ledger, spent: Spent, verdicts: Verdicts
) -> AsyncIterator[Engine]:
    """Start everything a run needs; the ledger is already being served, the verdicts perhaps restored.

    Raises:
        JobError: no API key, a tokenizer that can't be read, or a cap on a cost that can't be known.
    """
    card, key = job.card, job.api_key()
    async with AsyncExitStack() as stack:
        url = await _emulated(job, stack) if job.emulated else job.url
        codec = CODECS[job.wire]
        codec.body(
            Request(card.name, "query", ["document"], job.instruct, job.fps)
        )  # a parameter it can't carry is told now
        http = await stack.enter_async_context(
            Http(
                url,
                codec,
                key="emulator" if job.emulated else key,
                headers=job.endpoint.headers,
                timeout=job.endpoint.timeout,
            )
        )
        limiter = Limiter(rpm=card.rpm, tpm=card.tpm, share=job.rate.part)
        concurrency = job.rate.concurrency
        places = Places(concurrency if isinstance(concurrency, int) else None)
        dispatcher = Dispatcher(limiter, places)
        spend = _spend(job, spent)
        sender = Sender(
            http=http,
            codec=codec,
            wire=job.wire,
            ledger=ledger,
            dispatcher=dispatcher,
            spend=spend,
            scope=f"{job.url}\n{job.wire}\n",
            model=card.name,
            instruct=job.instruct,
            fps=job.fps,
            attempts=job.retry.attempts,
            max_delay=job.retry.max_delay,
            outage=job.retry.outage,
            accepted=spent.answers > 0,
            rng=random.Random(),  # noqa: S311 jitter, not secrets
        )
        sender.counts.timeline = Timeline(
            documents=card.documents, tokens=card.request_tokens, rpm=card.rpm, tpm=card.tpm
        )
        exact = spend.capped or card.request_tokens * card.rpm > card.tpm
        texts = job.output is not None and OUTPUTS[job.output.format].texts
        driver = Driver(
            sender,
            SharedVerdicts(verdicts),
            job.merge.method,
            job.price,
            exact=exact,
            sample=shards.counter.exact and not exact,
            texts=texts,
            attempts=job.retry.attempts,
        )
        await stack.enter_async_context(beside(dispatcher.serve))
        yield Engine(job, shards, sender, dispatcher, limiter, places, spend, verdicts, driver, ledger)


def _spend(job: Job, spent: Spent) -> Spend:
    if job.budget.max_cost is not None and job.price is None:
        raise JobError(
            f"budget.max_cost: no price is known for {job.card.name}; set model.price or budget.max_tokens"
        )
    return Spend(
        job.price.dearest if job.price else None,  # a cap must hold whatever the requests hold
        Budget(job.budget.max_cost, job.budget.max_tokens, job.budget.max_requests),
        Before(
            tokens=Taken(spent.tokens, spent.unbilled, spent.lost, spent.ratio, spent.hidden),
            searches=Taken(spent.searches),
            requests=spent.requests,
        ),
    )


async def _emulated(job: Job, stack: AsyncExitStack) -> str:
    """Start an emulator of the job's model in this process; its scores are relative to the request, as documented."""
    from batchrank.emulator import Emulator, Settings, path

    settings = Settings(cards={job.card.name: job.card}, tokenizer=job.tokenizer, scores="relative")
    emulator = await stack.enter_async_context(Emulator(settings))
    return emulator.url + path(job.wire)
