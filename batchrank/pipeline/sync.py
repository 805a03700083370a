"""``rerank`` for code without an event loop, or within one that it can't wait in: scripts and notebooks."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import aclosing, contextmanager

from anyio.from_thread import start_blocking_portal

from batchrank.job.config import Job
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure, Ranking
from batchrank.pipeline.rerank import rerank
from batchrank.read.memory import is_table
from batchrank.read.memory_ import Queries


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
        progress: whether to show a progress bar on stderr; by default where that is a terminal.

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

    shown = sys.stderr.isatty() if progress is None else progress
    with _bar(queries, shown) as count, start_blocking_portal() as portal:
        future = portal.start_task_soon(collect, count)
        try:
            return future.result()
        finally:
            future.cancel()  # for who was interrupted while waiting; one that is done can't be cancelled


@contextmanager
def _bar(queries: object, shown: bool) -> Iterator[Callable[[], None]]:
    """What counts a ranking, and shows how many there are."""
    if not shown:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    # How many queries a table of pairs has is known when it has been read.
    total = len(queries) if isinstance(queries, Sized) and not is_table(queries) else None
    columns = (TextColumn("queries"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("queries", total=total)
        yield lambda: bar.advance(task)
