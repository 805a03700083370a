"""Ranks streams of queries from memory with one engine: one ledger, one limiter and one cap for all of them.

Streams may be ranked at the same time. Each has a ``Flow`` of its own, so that none waits for its place behind another
one, and all of them share one bound of memory. That can't deadlock: a query that was admitted needs nothing but its
answers to be ranked and released, as ranking waits for no query of another stream, and where nothing is inside, the
next query is admitted, whatever its size.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import anyio
import anyio.to_thread

from batchrank.data import Query
from batchrank.errors import BatchrankError
from batchrank.job.config import Job
from batchrank.ledger.ledger import Ledger
from batchrank.merge.verdict import Verdicts
from batchrank.outcomes import Failure
from batchrank.pipeline.assemble import Engine, engine, opened_ledger, sharder
from batchrank.pipeline.parts import PartCutter, part_documents
from batchrank.pipeline.prepare import Prepared, Preparer
from batchrank.pipeline.stages import Flow, Reader
from batchrank.pipeline.summary import Outcome
from batchrank.pipeline.workers import MemoryBudget, unwrap_exception_groups

_DRAIN = 25.0
"""Seconds for answers in flight when a program stops early, as they are paid for; the same as a run's."""


class Session:
    """Ranks streams of queries; made by ``session``.

    Attributes:
        reason: why nothing more can be ranked; None while it can.
    """

    def __init__(self, parts: Engine) -> None:
        self._parts = parts
        self._preparer = Preparer(parts.job, parts.sharder)
        self._preparing = anyio.CapacityLimiter(1)  # what it prepares with serves one thread at a time
        self._memory = MemoryBudget(parts.fleet)
        self._position = 0
        self._flows: set[Flow] = set()
        self.reason: BatchrankError | None = None

    async def rank(
        self,
        found: AsyncGenerator[list[Query | Failure]],
        sink: Callable[[list[Outcome]], Awaitable[None]],
    ) -> None:
        """Rank a stream, and hand over what became of its queries and records, in its order.

        Two streams at a time need a verdict that was declared, as a measured one depends on the queries before.

        Raises:
            BatchrankError: nothing can be ranked, or the session had to stop; all its streams raise it.
        """
        driver = self._parts.driver
        reader = Reader(
            iter(()), self._preparer, PartCutter(part_documents(self._parts.job.output)),
            precompute=driver.precompute, ended=driver.verdicts.record_end,
        )  # fmt: skip
        flow = Flow(driver, sink, memory=self._memory, drain=_DRAIN)
        self._flows.add(flow)
        try:
            if self.reason is None:
                with unwrap_exception_groups():
                    async with aclosing(self._prepared(found, reader)) as prepared:
                        await flow.run(prepared)
                if flow.reason is not None:
                    self.stop(flow.reason)
        except (
            Exception
        ) as error:  # of who made the stream or takes the outcomes; what it holds is never given back
            self.stop(BatchrankError(f"ranking ended early: {error}"))
            raise
        finally:
            self._flows.discard(flow)
        if self.reason is not None:
            raise self.reason

    def stop(self, reason: BatchrankError) -> None:
        """Rank nothing more; what is in flight is drained. The first reason counts."""
        if self.reason is None:
            self.reason = reason
            for flow in self._flows:
                flow.stop(reason)

    async def _prepared(
        self, found: AsyncGenerator[list[Query | Failure]], reader: Reader
    ) -> AsyncGenerator[list[Prepared | Outcome]]:
        """Shard queries in a thread, in order; those that came first to the session are asked about first."""
        async for items in found:
            if items:
                first, self._position = self._position, self._position + len(items)

                def prepare(items: list[Query | Failure], first: int) -> list[Prepared | Outcome]:
                    return [reader.prepare(item, first + i) for i, item in enumerate(items)]

                prepared = await anyio.to_thread.run_sync(prepare, items, first, limiter=self._preparing)
                reader.tell()
                yield prepared


@asynccontextmanager
async def session(job: Job, verdicts: Verdicts, *, pipeline: str | None = None) -> AsyncIterator[Session]:
    """Start what ranks streams of queries.

    Args:
        job: the job; its ledger is used if it names one, else answers are kept in memory only.
        verdicts: whether scores of different requests can be compared.
        pipeline: tells whose run it is: opened again for the same one it is the same run, under the same cap. By
            default each session is a run of its own.

    Raises:
        LedgerError: the ledger can't be used.
        JobError: the job can't be run.
    """
    async with opened_ledger(job.ledger_path) as ledger:
        spent = await ledger.begin(await _run_number(ledger, pipeline))
        async with engine(job, sharder(job), ledger, spent, verdicts) as parts:
            yield Session(parts)


async def _run_number(ledger: Ledger, pipeline: str | None) -> int:
    """The number of a new run, or of the one that goes on."""
    number: int = await ledger.load("runs") or 0
    if pipeline is not None and number and await ledger.load("pipeline") == [pipeline, number]:
        return number
    await ledger.save("runs", number + 1)
    await ledger.save("pipeline", None if pipeline is None else [pipeline, number + 1])
    return number + 1
