"""Ranks queries from memory for programs, with an event loop or without one, and yields rankings as they come."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping, Sized
from contextlib import aclosing, contextmanager
from typing import cast

import anyio
import anyio.to_thread
from anyio.from_thread import start_blocking_portal
from anyio.streams.memory import MemoryObjectSendStream
from pydantic import ValidationError

from batchrank.bars import Bar, drawing_console, working
from batchrank.data import Query
from batchrank.errors import JobError, QueryError
from batchrank.job.config import Job
from batchrank.job.sections import Columns
from batchrank.merge.verdict import Verdicts
from batchrank.outcomes import Failure, Ranking
from batchrank.pipeline.session import session
from batchrank.pipeline.summary import Outcome
from batchrank.pipeline.workers import unwrap_exception_groups
from batchrank.read.memory import Memory, Queries, Record, is_table, refuse_single


async def rerank(
    queries: Queries,
    job: Job,
    *,
    on_failure: Callable[[Failure], None] | None = None,
    columns: Columns | Mapping[str, str] | None = None,
) -> AsyncGenerator[Ranking]:
    """Rank queries as they come, and yield their rankings in the same order.

    As many queries are under way as the rate, the concurrency and bounded memory allow. If the job names a ``ledger``
    or an output folder, its ledger is used, so that nothing is paid for twice; otherwise answers are kept in memory
    only. Nothing is written to the output folder. Leaving the loop early stops the run; what is in flight then is
    lost, unless there is a ledger to keep it.

    What is given is checked as a file's records are: each query has an id of its own, a text and candidates with
    different ids. In a table, and in dicts, what holds what is told by the same names as in files.

    Args:
        queries: ``Query`` objects, or dicts with the keys of a JSON line: a query with its candidates, or one pair of
            query and document after the other, those of a query together. Any iterable or async iterable, read ahead
            in the event loop; or a table of such records, read ahead in a thread: a pandas or Polars data frame, an
            Arrow table or reader, a DuckDB relation, a data set of Hugging Face's.
        job: model, endpoint, merge method, limits, rate, budget.
        on_failure: told of each query (and each refused document) that can't be ranked, in order; without it the
            first query that fails raises.
        columns: which column or key holds what, where its name doesn't tell, as ``input.columns`` in a job:
            ``{"query": "question"}``. By default those of the job's input.

    Yields:
        One ranking for each query that could be ranked.

    Raises:
        QueryError: a query can't be ranked, and there is no ``on_failure``.
        InputError: ``queries`` is no collection of queries, or the table's columns don't tell what is what.
        JobError: ``job`` is no ``Job``, or one that can't be run.
        LedgerError: the ledger can't be used.
        BatchrankError: nothing can be ranked, or the run had to stop: budget, outage.
    """
    memory = Memory(columns_of(columns, job))
    refuse_single(queries)
    send, receive = anyio.create_memory_object_stream[Outcome](0)
    running = asyncio.create_task(_run(read(queries, memory), job, send))
    try:
        async with receive:
            async for outcome in receive:
                _tell_failures(outcome, on_failure)
                if not isinstance(outcome.result, Failure):
                    yield outcome.result
        await running
    finally:
        running.cancel()
        await asyncio.wait([running])
        _ = running.cancelled() or running.exception()  # told already, or of no interest to who left early
        memory.close()


def _tell_failures(outcome: Outcome, on_failure: Callable[[Failure], None] | None) -> None:
    """Tell of a query that can't be ranked, and of its documents that can't; where nobody listens the former raises."""
    result = outcome.result
    for failure in [result] if isinstance(result, Failure) else outcome.lost:
        if on_failure is not None:
            on_failure(failure)
        elif isinstance(result, Failure):
            raise _error(failure)


def columns_of(given: Columns | Mapping[str, str] | None, job: Job) -> Columns:
    """What holds what: as the caller says, else as the job does.

    Raises:
        JobError: the caller gave neither columns nor a job.
    """
    if not isinstance(job, Job):
        raise JobError(
            f"rerank: job is a {type(job).__name__}; make a batchrank.Job, or load_job() a job file"
        )
    if given is None:
        return Columns() if job.input is None else job.input.columns
    if not isinstance(given, Columns | Mapping):
        raise JobError(
            f"rerank: columns is a {type(given).__name__}; give a dict such as {{'query': 'question'}}"
        )
    try:
        return given if isinstance(given, Columns) else Columns.model_validate(dict(given))
    except ValidationError as error:
        names = ", ".join(str(fault["loc"][0]) for fault in error.errors() if fault["loc"])
        known = ", ".join(Columns.model_fields)
        raise JobError(f"rerank: columns: {names}: each key is one of {known}, each value a name") from None


def _error(failure: Failure) -> QueryError:
    where = f"query {failure.query_id!r}" if failure.query_id is not None else str(failure.place)
    return QueryError(failure.cause, f"{where}: {failure.message}", attempts=failure.attempts)


async def _run(
    batches: AsyncGenerator[list[Query | Failure]], job: Job, send: MemoryObjectSendStream[Outcome]
) -> None:
    """Rank what comes; whatever happens, the stream is closed, so that nobody waits for it for ever."""

    async def sink(outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            await send.send(outcome)

    async with send, aclosing(batches):
        with unwrap_exception_groups():
            async with session(job, Verdicts(job.card.scores)) as ranks:
                await ranks.rank(batches, sink)


async def read(queries: Queries, memory: Memory) -> AsyncGenerator[list[Query | Failure]]:
    """What was given as queries and failures, a little at a time, so that none waits for another one to come."""
    if is_table(queries):
        rows = memory.table(queries)
        while (found := await anyio.to_thread.run_sync(next, rows, None)) is not None:
            yield found
        return
    if isinstance(queries, AsyncIterable):
        async for query in queries:
            yield memory.take(query)
    else:
        for query in cast(Iterable[Record], queries):
            yield memory.take(query)
    yield memory.end()


def rerank_sync(
    queries: Queries,
    job: Job,
    *,
    on_failure: Callable[[Failure], None] | None = None,
    columns: Columns | Mapping[str, str] | None = None,
    progress: bool | None = None,
) -> list[Ranking]:
    """Rank queries and return all rankings, in the order of the queries: ``rerank`` without ``async``.

    The work is done by an event loop in a thread of its own, so that this can be called from anywhere, also in a
    notebook, where an event loop runs already. Ctrl-C, or the notebook's stop button, ends the run.

    Args:
        queries: as in ``rerank``; an iterable is gone through in that other thread.
        job: as in ``rerank``.
        on_failure: as in ``rerank``; called in that other thread.
        columns: as in ``rerank``.
        progress: whether to show a progress bar on stderr or in the notebook; by default where that is a terminal, or
            there is a notebook.

    Returns:
        One ranking for each query that could be ranked.

    Raises:
        BatchrankError: as ``rerank`` does, and never in a group.
    """

    async def collect(count: Callable[[], None]) -> list[Ranking]:
        found: list[Ranking] = []
        async with aclosing(rerank(queries, job, on_failure=on_failure, columns=columns)) as rankings:
            async for ranking in rankings:
                found.append(ranking)
                count()
        return found

    with _counted(queries, progress) as count, start_blocking_portal() as portal:
        future = portal.start_task_soon(collect, count)
        try:
            return future.result()
        finally:
            future.cancel()  # for who was interrupted while waiting; one that is done can't be cancelled


@contextmanager
def _counted(queries: object, wanted: bool | None) -> Iterator[Callable[[], None]]:
    """What counts a ranking, and shows how many there are."""
    # How many queries a table of pairs has is known when it has been read.
    total = len(queries) if isinstance(queries, Sized) and not is_table(queries) else 0
    done = 0

    def count() -> None:
        nonlocal done
        done += 1

    def look() -> Bar:
        return (
            Bar("queries", done / total, f"{done:,}/{total:,}")
            if total
            else Bar("queries", None, f"{done:,}")
        )

    with working(drawing_console(wanted), look, after=0):
        yield count
