"""The library's own way in: queries from memory, rankings as they come, in order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import aclosing

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectSendStream

from batchrank.errors import QueryError
from batchrank.job import Job
from batchrank.ledger import Ledger
from batchrank.merge.verdict import Verdicts
from batchrank.pipeline.content import Preparer
from batchrank.pipeline.drive import Prepared
from batchrank.pipeline.engine import engine, sharder
from batchrank.pipeline.flow import Flow, Outcome, Reader
from batchrank.pipeline.room import ROOM_BYTES, Room
from batchrank.pipeline.tasks import beside
from batchrank.records import Failure, Query, Ranking

_DRAIN = 25.0


async def rerank(
    queries: Iterable[Query] | AsyncIterable[Query],
    job: Job,
    *,
    on_failure: Callable[[Failure], None] | None = None,
) -> AsyncIterator[Ranking]:
    """Rank queries as they come, and yield their rankings in the same order.

    As many queries are under way as the rate, the concurrency and bounded memory allow. If the job names a ``ledger``
    or an output folder, its ledger is used, so that nothing is paid for twice; otherwise answers are kept in memory
    only. Nothing is written to the output folder. Leaving the loop early stops the run; what is in flight then is
    lost, unless there is a ledger to keep it.

    Args:
        queries: queries with ids of their own; read ahead, in the event loop.
        job: model, endpoint, merge method, limits, rate, budget.
        on_failure: told of each query (and each refused document) that can't be ranked, in order; without it the
            first query that fails raises.

    Yields:
        One ranking for each query that could be ranked.

    Raises:
        QueryError: a query can't be ranked, and there is no ``on_failure``.
        BatchrankError: nothing can be ranked, or the run had to stop: budget, outage.
    """
    send, receive = anyio.create_memory_object_stream[Outcome](0)
    running = asyncio.create_task(_run(queries, job, send))
    try:
        async with receive:
            async for outcome in receive:
                result = outcome.result
                for failure in [result] if isinstance(result, Failure) else result.refused:
                    if on_failure is not None:
                        on_failure(failure)
                    elif isinstance(result, Failure):
                        raise QueryError(failure.cause, f"query {failure.query_id!r}: {failure.message}")
                if not isinstance(result, Failure):
                    yield result.ranking
        await running
    finally:
        running.cancel()
        await asyncio.wait([running])
        _ = running.cancelled() or running.exception()  # told already, or of no interest to who left early


async def _run(
    queries: Iterable[Query] | AsyncIterable[Query], job: Job, send: MemoryObjectSendStream[Outcome]
) -> None:
    async def sink(outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            await send.send(outcome)

    ledger = await anyio.to_thread.run_sync(Ledger, job.ledger_path)
    try:
        async with send, beside(ledger.serve):
            spent = await ledger.begin(1 + (await ledger.load("runs") or 0))
            await ledger.save("runs", ledger.run)
            shards = sharder(job)
            async with engine(job, shards, ledger, spent, Verdicts(job.card.scores)) as parts:
                room = Room(ROOM_BYTES, 4 * parts.places.most, parts.places.ahead)
                flow = Flow(parts.driver, sink, room=room, drain=_DRAIN)
                batches = _prepared(
                    queries, Reader(iter(()), Preparer(job, shards), foresee=parts.driver.foresee)
                )
                async with aclosing(batches):
                    await flow.run(batches)
        if flow.reason is not None:
            raise flow.reason
    finally:
        ledger.close()


async def _prepared(
    queries: Iterable[Query] | AsyncIterable[Query], reader: Reader
) -> AsyncGenerator[list[Prepared | Outcome]]:
    """Shard queries in a thread, one at a time, so that none waits for another one to come."""
    position = 0
    if isinstance(queries, AsyncIterable):
        async for query in queries:
            yield [await anyio.to_thread.run_sync(reader.prepare, query, position)]
            position += 1
        return
    for query in queries:
        yield [await anyio.to_thread.run_sync(reader.prepare, query, position)]
        position += 1
