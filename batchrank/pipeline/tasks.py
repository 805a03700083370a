"""Tasks that run beside a block."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio


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
