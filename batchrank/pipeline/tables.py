"""Ranks Arrow tables of queries for programs, and gives a table of rankings for each.

A pipeline may cut its data in tables as it likes, hand them over in any order, and again after a fault. So what is
ranked never depends on other tables: scores of different requests are taken for what the model's card declares, and
where it declares nothing they are not compared, while ``rerank`` measures that on the first queries.
"""

from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing, closing
from itertools import chain
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from anyio.from_thread import start_blocking_portal
from anyio.streams.memory import MemoryObjectSendStream

from batchrank.data import Query
from batchrank.errors import InputError
from batchrank.job.config import Job
from batchrank.job.sections import Columns
from batchrank.merge.verdict import Verdicts
from batchrank.outcomes import Failure
from batchrank.pipeline.rerank import columns_of, read
from batchrank.pipeline.session import Session, session
from batchrank.pipeline.summary import Outcome
from batchrank.pipeline.workers import unwrap_exception_groups
from batchrank.read.memory import ArrowStream, Memory, is_table
from batchrank.write.rows import result_table

if TYPE_CHECKING:
    import pyarrow as pa


def rerank_tables(
    tables: Iterable[ArrowStream], job: Job, *, columns: Columns | Mapping[str, str] | None = None
) -> Iterator["pa.Table"]:
    """Rank tables of queries as they come, and yield a table of rankings for each, in the same order.

    Many queries are under way at a time, those of the next tables too. What a row's ranking is doesn't depend on the
    rows and tables before it, so that the same rows in other tables give the same. The ledger is used as in ``rerank``.

    Args:
        tables: Arrow tables, or what hands itself over as one (a data frame, a record batch): each row a query with the
            list of its candidates, in the columns that files have. Gone through in another thread, a little ahead.
        job: model, endpoint, merge method, limits, rate, budget.
        columns: as in ``rerank``.

    Yields:
        One row a document, best first, in the columns of the Parquet output: ``query_id``, ``doc_id``, ``rank``,
        ``score``, ``raw_score``, ``first_stage_rank``, ``first_stage_score``, ``certified``. A query that can't be
        ranked, and a document that can't be scored, has a row of its own, with all null but ``query_id`` and
        ``failure``: its cause and message.

    Raises:
        InputError: no tables were given, or one of pairs, or one whose columns don't tell what is what.
        JobError: ``job`` is no ``Job``, or one that can't be run.
        LedgerError: the ledger can't be used.
        BatchrankError: nothing can be ranked, or the run had to stop: budget, outage.
    """
    found = columns_of(columns, job)
    if is_table(tables) or isinstance(tables, str | bytes) or not isinstance(tables, Iterable):
        raise InputError(
            f"rerank_tables: tables is a {type(tables).__name__}; give an iterable of Arrow tables, such as [table]"
        )
    return _pulled(tables, job, found)


def _pulled(tables: Iterable[object], job: Job, columns: Columns) -> Iterator["pa.Table"]:
    """What an event loop in a thread of its own makes, taken from there one after the other."""
    send, receive = anyio.create_memory_object_stream[Any](0)
    with start_blocking_portal() as portal:
        running = portal.start_task_soon(_run, tables, job, columns, send)
        try:
            while True:
                try:
                    made = portal.call(receive.receive)
                except anyio.EndOfStream:
                    break
                yield made
            running.result()
        finally:
            running.cancel()
            portal.call(receive.aclose)


async def _run(
    tables: Iterable[object], job: Job, columns: Columns, send: MemoryObjectSendStream[Any]
) -> None:
    made = _Gathered(send)
    with closing(Memory(columns, whole=True)) as memory:
        async with send, aclosing(_read(tables, memory, made)) as found:
            with unwrap_exception_groups():
                async with session(job, settled(job)) as ranks:
                    await ranks.rank(found, made.take)


async def _read(
    tables: Iterable[Any], memory: Memory, made: "_Gathered"
) -> AsyncGenerator[list[Query | Failure]]:
    given = iter(tables)
    while (table := await anyio.to_thread.run_sync(next, given, None)) is not None:
        if not is_table(table):
            raise InputError(f"rerank_tables: tables holds a {type(table).__name__}; give Arrow tables")
        items = 0
        async with aclosing(read(table, memory)) as rows:
            async for found in rows:
                items += len(found)
                yield found
        await made.end(items)


class _Gathered:
    """Gathers what became of the queries of each table, and sends one table for it once nothing of it is missing."""

    def __init__(self, send: MemoryObjectSendStream[Any]) -> None:
        self._send = send
        self._outcomes: list[Outcome] = []
        self._items: deque[int] = deque()
        self._turn = anyio.Lock()

    async def take(self, outcomes: list[Outcome]) -> None:
        """Take what became of the next queries and records."""
        self._outcomes += outcomes
        await self._flush()

    async def end(self, items: int) -> None:
        """Learn that a table has ended, and how many queries and records it held."""
        self._items.append(items)
        await self._flush()

    async def _flush(self) -> None:
        async with self._turn:
            while self._items and len(self._outcomes) >= self._items[0]:
                items = self._items.popleft()
                outcomes, self._outcomes = self._outcomes[:items], self._outcomes[items:]
                await self._send.send(await anyio.to_thread.run_sync(_table, outcomes))


async def rank_table(ranks: Session, table: "pa.Table", columns: Columns) -> "pa.Table":
    """Rank one table in a session that ranks others at the same time, whose verdicts are ``settled``.

    Raises:
        BatchrankError: as ``Session.rank`` does.
    """
    outcomes: list[Outcome] = []

    async def take(some: list[Outcome]) -> None:
        outcomes.extend(some)

    with closing(Memory(columns, whole=True)) as memory:
        async with aclosing(read(table, memory)) as found:
            await ranks.rank(found, take)
    return await anyio.to_thread.run_sync(_table, outcomes)


def settled(job: Job) -> Verdicts:
    """Verdicts that no query has a part in: what the model's card declares, else that scores can't be compared."""
    return Verdicts("relative" if job.card.scores == "unknown" else job.card.scores)


def _table(outcomes: list[Outcome]) -> "pa.Table":
    return result_table(chain.from_iterable((outcome.result, *outcome.lost) for outcome in outcomes))
