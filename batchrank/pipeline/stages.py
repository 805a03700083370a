"""Runs the four stages in one task group, with everything between them bounded, so that any input needs little memory.

Reading and sharding run ahead in a thread, sending and merging in a task a query, writing in input order in another
thread. What can hold a query back on its way, in this order; ``Flow.gate`` tells which one does now:

1. ``memory``: documents between reading and writing take at most ``MEMORY_BYTES`` (``MemoryBudget``).
2. ``queries``: those without a ranking are at most a few more than may be in flight, those without a place in the
   output four times as many (``MemoryBudget``).
3. ``concurrency``: requests in flight, ``rate.concurrency`` (``ConcurrencyLimit``); the oldest query goes first.
4. ``rate``: requests and tokens a second and a minute, ``rate.rpm`` and ``rate.tpm`` (``Limiter``).
5. ``budget``: what is in flight could pass a cap, ``budget.*``, together with the next request (``Spend``).
6. ``outage``: so much failed in a row that only probes are sent (``OutageDetector``).

A merge may wait as well: for the verdict, which depends on earlier queries of its part and of part 0 only.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import anyio.to_thread
from anyio.abc import TaskGroup

from batchrank.data import Query
from batchrank.errors import BatchrankError, QueryError
from batchrank.outcomes import Failure
from batchrank.pipeline.parts import PartCutter, Spot
from batchrank.pipeline.prepare import OVERHEAD_BYTES, Prepared, Preparer
from batchrank.pipeline.rank import Driver
from batchrank.pipeline.summary import Completed, Outcome, failure_record
from batchrank.pipeline.workers import MemoryBudget, WorkerPool

_BATCH_DOCUMENTS = (250, 4_000)
"""Documents read at a time: few at first, so that requests leave soon; then more, as each turn of a thread costs."""
_BATCH_SECONDS = 0.05
"""Seconds after which a batch is passed on although it isn't full, so that slow input doesn't delay requests."""
_RANKED_BYTES = 120
"""What a document of a finished ranking holds in memory: its id, and its share of the columns."""
_LINGER = 0.02
"""Seconds that finished queries wait for company on their way to the writer's thread."""


class Reader:
    """Reads and shards ahead, in worker threads.

    Args:
        items: what there is to rank, from the beginning of a part.
        preparer: makes them ready to be sent.
        cutter: cuts them into parts.
        position: the first item's position.
        precompute: does ahead what sending would otherwise do; see ``Driver.precompute``.
        ended: is told of each part that ends, with its number of multi-chunk queries; see ``Verdicts.record_end``.
    """

    def __init__(
        self,
        items: Iterator[Query | Failure],
        preparer: Preparer,
        cutter: PartCutter,
        *,
        position: int = 0,
        precompute: Callable[[Prepared], None] | None = None,
        ended: Callable[[int, int], None] | None = None,
    ) -> None:
        self._precompute = precompute
        self._cutter = cutter
        self._ended = ended
        self._ends: list[tuple[int, int]] = []
        self._batch = _BATCH_DOCUMENTS[0]
        self._items = items
        self._preparer = preparer
        self._position = position
        self._multi_chunk_index = 0
        self.exhausted = False

    @property
    def read(self) -> int:
        """Items read so far, those of earlier processes included."""
        return self._position

    async def batches(self) -> AsyncIterator[list[Prepared | Outcome]]:
        """What was read, in order, a little at a time."""
        batch: list[Prepared | Outcome] | None = None
        while batch is None or batch:
            batch = await anyio.to_thread.run_sync(self._next, abandon_on_cancel=True)
            self.tell()
            if batch:
                yield batch

    def tell(self) -> None:
        """Tell which parts have ended since the last time; in the event loop, while reading is done in a thread."""
        ends, self._ends = self._ends, []
        if self._ended is not None:
            for part, count in ends:
                self._ended(part, count)

    def _next(self) -> list[Prepared | Outcome]:
        batch: list[Prepared | Outcome] = []
        self._batch = min(2 * self._batch, _BATCH_DOCUMENTS[1])
        documents, started = 0, time.monotonic()
        for item in self._items:
            position, self._position = self._position, self._position + 1
            batch.append(self.prepare(item, position))
            documents += len(item.documents) if isinstance(item, Query) else 0
            if documents >= self._batch or time.monotonic() - started > _BATCH_SECONDS:
                break
        else:
            if not self.exhausted:
                self._ends.append((self._cutter.part, self._multi_chunk_index))
            self.exhausted = True
        return batch

    def prepare(self, item: Query | Failure, position: int) -> Prepared | Outcome:
        """Prepare the next item; what can't be prepared becomes a dead letter."""
        spot = self._cutter.cut(item)
        ready = self._prepare(item, position, spot)
        if spot.last:
            self._ends.append((spot.part, self._multi_chunk_index))
            self._multi_chunk_index = 0
        return ready

    def _prepare(self, item: Query | Failure, position: int, spot: Spot) -> Prepared | Outcome:
        if isinstance(item, Failure):
            return Outcome(position, item, *spot, unreadable=True)
        try:
            prepared = self._preparer.prepare(item, position)
        except QueryError as error:
            return Outcome(position, failure_record(item.place, item.id, error), *spot)
        prepared.part, prepared.place, prepared.last = spot
        prepared.preceding = self._multi_chunk_index
        if len(prepared.shards.chunks) > 1:
            prepared.multi_chunk_index = self._multi_chunk_index
            self._multi_chunk_index += 1
        if self._precompute is not None:
            self._precompute(prepared)
        prepared.weigh()
        return prepared


class Flow:
    """Moves queries from a reader through the driver to a sink, where they arrive in the order in which they came.

    Args:
        driver: ranks one query.
        sink: takes outcomes, in that order, a few at a time.
        memory: how much may be under way.
        drain: seconds that requests in flight are given once the run has to stop.
    """

    def __init__(
        self,
        driver: Driver,
        sink: Callable[[list[Outcome]], Awaitable[None]],
        *,
        memory: MemoryBudget,
        drain: float,
    ) -> None:
        self._driver = driver
        self._sink = sink
        self._memory = memory
        self._drain = drain
        self._next = 0
        self._done: dict[int, tuple[Outcome, int]] = {}
        self._changed = asyncio.Event()
        self._ended = False
        self._broken = False
        self.admitted = 0
        self.admitted_documents = 0
        self.completed = Completed()
        self._workers = WorkerPool(self._rank)
        self._stopping = asyncio.Event()
        self._admission = anyio.CancelScope()
        self.reason: BatchrankError | None = None

    @property
    def unfinished(self) -> int:
        """Queries under way, finished ones that wait for their turn included."""
        return self._memory.queries

    @property
    def gate(self) -> str | None:
        """What holds queries back now, the last on their way first; None for nothing: there is no more to read yet."""
        return self._driver.sender.gate or self._memory.gate

    def stop(self, reason: BatchrankError, *, drain: float | None = None) -> None:
        """Admit nothing more; what is in flight is drained, then ``run`` returns. The first reason counts.

        Args:
            reason: why.
            drain: seconds that requests in flight are given; None for what this was made with.
        """
        if self.reason is None:
            self.reason = reason
            self._drain = self._drain if drain is None else drain
            self._driver.stop(reason)
            self._stopping.set()
            self._admission.cancel()

    async def run(self, batches: AsyncIterator[list[Prepared | Outcome]]) -> None:
        """Run until the input is exhausted or the run was stopped; parts of the input may be missing from it."""
        async with anyio.create_task_group() as writing:
            writing.start_soon(self._write)
            try:
                async with anyio.create_task_group() as ranking:
                    ranking.start_soon(self._deadline, ranking.cancel_scope)
                    async with anyio.create_task_group() as queries:
                        with self._admission:
                            await self._admit(batches, queries)
                        self._workers.dismiss()
                    ranking.cancel_scope.cancel()
            finally:
                self._ended = True
                self._changed.set()

    async def _admit(self, batches: AsyncIterator[list[Prepared | Outcome]], queries: TaskGroup) -> None:
        send, receive = anyio.create_memory_object_stream[list[Prepared | Outcome]](1)

        async def read_ahead() -> None:
            async with send:
                try:
                    async for batch in batches:
                        await self._driver.recall([item for item in batch if isinstance(item, Prepared)])
                        await send.send(batch)
                except BatchrankError as error:
                    self.stop(error)

        async with anyio.create_task_group() as reading, receive:
            reading.start_soon(read_ahead)
            async for batch in receive:
                for item in batch:
                    weight = item.weight if isinstance(item, Prepared) else OVERHEAD_BYTES
                    await self._memory.acquire(weight)
                    sequence, self.admitted = self.admitted, self.admitted + 1
                    if isinstance(item, Prepared):
                        item.sequence = sequence
                        self.admitted_documents += len(item.query.documents)
                        self._workers.hand(item, queries)
                    else:
                        self._memory.shrink(0)
                        self.completed.add(item, 0)
                        self._finish(sequence, item, weight)

    async def _rank(self, prepared: Prepared) -> None:
        query = prepared.source
        try:
            outcome = await self._driver.rank(prepared)
        except QueryError as error:
            outcome = Outcome.of(prepared, failure_record(query.place, query.id, error))
        except BatchrankError as error:
            self.stop(error)
            return
        kept = prepared.weight
        if not self._driver.texts:  # its documents are dropped with this task
            kept = min(kept, _RANKED_BYTES * len(query.documents))
        self._memory.shrink(prepared.weight - kept)
        self.completed.add(outcome, len(query.documents))
        self._finish(prepared.sequence, outcome, kept)

    def _finish(self, sequence: int, outcome: Outcome, weight: int) -> None:
        self._done[sequence] = (outcome, weight)
        if sequence == self._next:
            self._changed.set()

    async def _deadline(self, ranking: anyio.CancelScope) -> None:
        await self._stopping.wait()
        await anyio.sleep(self._drain)
        ranking.cancel()

    async def _write(self) -> None:
        while True:
            await self._changed.wait()
            if not self._ended:
                await asyncio.sleep(_LINGER)
            self._changed = asyncio.Event()
            ready: list[Outcome] = []
            weights: list[int] = []
            while entry := self._done.pop(self._next, None):
                ready.append(entry[0])
                weights.append(entry[1])
                self._next += 1
            if ready:
                if not self._broken:
                    await self._deliver(ready)
                for weight in weights:
                    self._memory.release(weight)
            elif self._ended:
                return
            if self._ended or self._next in self._done:
                self._changed.set()

    async def _deliver(self, ready: list[Outcome]) -> None:
        try:
            await self._sink(ready)
        except BatchrankError as error:
            self._broken = True  # what comes later may not be written either, or a gap would look like order
            self.stop(error)
        for outcome in ready:
            if outcome.last:
                self._driver.forget(outcome.part)
