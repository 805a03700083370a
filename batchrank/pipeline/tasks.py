"""Tasks that run beside a block, and errors that come out of task groups as they went in."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio

from batchrank.errors import BatchrankError


@asynccontextmanager
async def beside(task: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run a task for as long as the block lasts; the block's own error comes out bare, not in a group."""
    fault: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(task)
        try:
            yield
        except Exception as error:
            fault = error
        group.cancel_scope.cancel()
    if fault is not None:
        raise fault


@contextmanager
def bare() -> Iterator[None]:
    """Raise what a task group raises as the one error in it: a fault in the program before one meant for the user."""
    try:
        yield
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        leaf = next((error for error in leaves if not isinstance(error, BatchrankError)), leaves[0])
        raise leaf from leaf.__cause__


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
