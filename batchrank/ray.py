"""Reranks the rows of a Ray data set as a step of its pipeline.

Ray Data runs a step in as many actors as it likes, starts dead ones again and hands them the same batch once more. So
these only pass their batches on to one more actor, the account, which alone has the ledger, the limiter, the cap and
the key, and ranks all batches at the same time. A batch that comes again is answered from the ledger.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import anyio
import orjson
from anyio.abc import TaskGroup

from batchrank.errors import BatchrankError, JobError, MissingExtraError, install_line
from batchrank.job.config import Job
from batchrank.job.sections import Columns
from batchrank.ledger.database import in_use
from batchrank.pipeline.rerank import columns_of
from batchrank.pipeline.session import Session, session
from batchrank.pipeline.tables import rank_table, settled
from batchrank.pipeline.workers import unwrap_exception_groups

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

_BATCH = 64
"""Queries of a batch: enough of them for few calls, few enough that one that comes again is soon done."""
_BLOCKS = 4
"""Blocks that are ranked at the same time, some batches of each, so that some hundred requests can be in flight."""
_CPUS = 0.1
"""Processors that the actor which passes batches on takes: it waits nearly all the time."""
_CALLS = 1_000
"""Batches that the account takes at a time, more than there ever are."""
_IDLE = 2.0
"""Seconds without a batch after which the ledger is given free, for other programs to use."""
_RETRY = 0.2
"""Seconds between two tries to get it."""
_PATIENCE = 15.0
"""Seconds in which an account that is about to end has given the ledger free."""

_accounts: "WeakValueDictionary[bytes, Any]" = WeakValueDictionary()
"""The accounts of this process, by Ray's job and ours; each ends when no data set needs it any more."""


def rerank(
    dataset: "ray.data.Dataset",
    job: Job,
    *,
    columns: Columns | Mapping[str, str] | None = None,
    concurrency: int = _BLOCKS,
    batch_size: int = _BATCH,
) -> "ray.data.Dataset":
    """Rank the queries of a data set: one row a query, with the list of its candidates.

    Nothing is done until the data set that is returned is used. One actor on this node, the account, asks for all; it
    reads the key from its own environment, or from ``endpoint.api_key_file`` on this node. What a row's ranking is
    doesn't depend on other rows, nor on how Ray cuts and orders them: scores of different requests are taken for what
    the model's card declares, and where it declares nothing they are not compared.

    Args:
        dataset: queries, in the columns that files have.
        job: model, endpoint, merge method, limits, rate, budget, and a ledger on this node; its input and output are
            not used.
        columns: which column holds what, where its name doesn't tell, as ``input.columns`` in a job.
        concurrency: blocks of the data set that are ranked at the same time, up to four batches of each.
        batch_size: queries of a batch.

    Returns:
        One row a document, best first, in the columns of the Parquet output and ``failure``, as ``rerank_tables`` gives
        them. Executing it raises what stops a run, such as a cap.

    Raises:
        JobError: ``job`` is no ``Job``, or names no ledger.
        MissingExtraError: Ray isn't installed.
    """
    try:
        import ray.data
    except ImportError:
        raise MissingExtraError(f"batchrank.ray needs Ray: {install_line('ray')}") from None
    found = columns_of(columns, job)
    if not isinstance(dataset, ray.data.Dataset):
        raise JobError(f"ray.rerank: dataset is a {type(dataset).__name__}; give a ray.data.Dataset")
    if job.ledger_path is None:
        raise JobError(
            "ray.rerank: the job names no ledger, and Ray may ask for any batch again, which would be paid again; set "
            "ledger: to a file on a volume of this node"
        )
    account, told = _account(job)
    return dataset.map_batches(
        _Reranker,
        fn_constructor_kwargs={"account": account, "job": told, "columns": found},
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=1, max_tasks_in_flight_per_actor=2 * concurrency, max_concurrent_calls_per_actor=concurrency
        ),
        num_cpus=_CPUS,
    )


def _account(job: Job) -> tuple[Any, list[Any]]:
    """The actor that asks for a job, on this node, and what refers to the job; it lives as long as it is held here."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here, folder = ray.get_runtime_context(), str(Path.cwd())
    text = orjson.dumps([here.get_job_id(), folder, job.model_dump(mode="json")])
    key = blake2b(text).digest()
    if (account := _accounts.get(key)) is None:
        pipeline = uuid.uuid4().hex
        account = ray.remote(_Account).options(
            name=f"batchrank:{job.name or 'job'}:account-{pipeline[:8]}",
            num_cpus=0,
            max_concurrency=_CALLS,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(here.get_node_id(), soft=False),
        ).remote(pipeline, folder)  # fmt: skip
        _accounts[key] = account
    # Referred to, because Ray keeps and shows what actors are made with, and a job's headers may be secret.
    return account, [ray.put(job)]


class _Reranker:
    """What Ray Data makes of the step: hands batches to the account."""

    def __init__(self, account: Any, job: list[Any], columns: Columns) -> None:
        self._account = account
        self._job = job
        self._columns = columns

    async def __call__(self, batch: "pa.Table") -> AsyncIterator["pa.Table"]:
        """Rank one batch, while others are ranked."""
        found = await self._account.rank.remote(batch, self._job, self._columns)
        if isinstance(found, BatchrankError):
            raise found
        yield found


class _Account:
    """Ranks all batches of a job in one session, which is closed where none came for a while.

    Args:
        pipeline: tells the run, which goes on with all it has spent when this actor is started again.
        folder: from where relative paths in the job are told.
    """

    def __init__(self, pipeline: str, folder: str) -> None:
        self._pipeline = pipeline
        self._folder = folder
        self._serving: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[tuple[Session, TaskGroup]] | None = None
        self._over = asyncio.Event()
        self._closing: asyncio.TimerHandle | None = None
        self._waiting: set[asyncio.Future[pa.Table]] = set()

    async def rank(self, batch: "pa.Table", job: list[Any], columns: Columns) -> "pa.Table | BatchrankError":
        """The rankings of a batch, or what stopped the run."""
        known = await job[0]  # which never comes where Ray repeats a call of a pipeline that is over
        ranked: asyncio.Future[pa.Table] = asyncio.get_running_loop().create_future()
        self._waiting.add(ranked)
        try:
            ranks, group = await self._session(known)
            group.start_soon(self._rank, ranks, batch, columns, ranked)
            return await ranked
        except BatchrankError as error:
            return error
        finally:
            self._waiting.discard(ranked)
            if not self._waiting:
                self._rest()

    async def _rank(
        self, ranks: Session, batch: "pa.Table", columns: Columns, ranked: "asyncio.Future[pa.Table]"
    ) -> None:
        try:
            made = await rank_table(ranks, batch, columns)
            if not ranked.done():
                ranked.set_result(made)
        except BatchrankError as error:
            _tell(error, [ranked])

    async def _session(self, job: Job) -> tuple[Session, TaskGroup]:
        """The session at hand, or a new one once the last is closed, and what runs tasks in it.

        Raises:
            BatchrankError: it can't be opened.
        """
        if self._closing is not None:
            self._closing.cancel()
        while self._over.is_set() and self._serving is not None and not self._serving.done():
            await asyncio.wait([self._serving])
        if self._opened is None or self._serving is None or self._serving.done():
            self._over, self._opened = asyncio.Event(), asyncio.get_running_loop().create_future()
            self._serving = asyncio.create_task(self._serve(job))
        return await asyncio.shield(self._opened)

    def _rest(self) -> None:
        """Close the session soon; at once where it has stopped, as the next one may go on."""
        if self._opened is not None and self._opened.done() and self._opened.exception() is None:
            if self._opened.result()[0].reason is not None:
                self._over.set()
            else:
                self._closing = asyncio.get_running_loop().call_later(_IDLE, self._over.set)

    async def _serve(self, job: Job) -> None:
        """Hold a session until it is over; what it ends with early is told to all who wait."""
        assert self._opened is not None
        until = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            try:
                return await self._hold(job)
            except Exception as error:
                early = not self._opened.done() and str(error) == in_use(job.ledger_path)
                if not early or asyncio.get_running_loop().time() > until:
                    return _tell(error, [self._opened, *self._waiting])
            await asyncio.sleep(_RETRY)

    async def _hold(self, job: Job) -> None:
        try:
            os.chdir(self._folder)
        except OSError as error:
            raise JobError(
                f"ray.rerank: {self._folder}, from where relative paths in the job are told, is not on the node that "
                f"asks: {error}"
            ) from error
        with unwrap_exception_groups():
            async with (
                session(job, settled(job), pipeline=self._pipeline) as ranks,
                anyio.create_task_group() as group,
            ):
                assert self._opened is not None
                self._opened.set_result((ranks, group))
                if not self._waiting:  # whoever it was opened for is gone
                    self._rest()
                await self._over.wait()


def _tell(error: Exception, waiting: "Iterable[asyncio.Future[Any]]") -> None:
    """Let whoever waits know what went wrong, and nobody be told of who waits no longer."""
    for future in waiting:
        if not future.done():
            future.set_exception(error)
            future.exception()
