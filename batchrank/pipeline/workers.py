"""Runs a job's tasks: the workers that rank queries, the memory that bounds them, and tasks in the background."""

import asyncio
import ctypes
import gc
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from batchrank.errors import BatchrankError
from batchrank.pipeline.prepare import Prepared


class WorkerPool:
    """Tasks that rank one query after another; starting a task for each would cost as much as sending it."""

    def __init__(self, rank: Callable[[Prepared], Awaitable[None]]) -> None:
        self._rank = rank
        self._queue: deque[Prepared] = deque()
        self._idle: list[asyncio.Event] = []
        self._dismissed = False

    def hand(self, prepared: Prepared, group: TaskGroup) -> None:
        """Have a query ranked now, by a task that has nothing to do or by a new one."""
        self._queue.append(prepared)
        if self._idle:
            self._idle.pop().set()
        else:
            group.start_soon(self._work)

    def dismiss(self) -> None:
        """There is no more: let the tasks end."""
        self._dismissed = True
        for event in self._idle:
            event.set()

    async def _work(self) -> None:
        while self._queue or not self._dismissed:
            if self._queue:
                await self._rank(self._queue.popleft())
            else:
                event = asyncio.Event()
                self._idle.append(event)
                await event.wait()


MEMORY_BYTES = 48 * 2**20
"""Documents between reading and writing: enough to keep hundreds of requests in flight, whatever the input's size."""
_FINISHED_PER_SLOT = 4
"""As output is ordered, a slow query makes later ones wait: this many for each that may be without a ranking."""


class Needs(Protocol):
    """What tells how many queries should be under way."""

    @property
    def queries(self) -> int:
        """As many as keep every server busy."""

    @property
    def most(self) -> int:
        """What that may ever be."""


class MemoryBudget:
    """Admits queries while their documents and their number stay within bounds, in the order they come.

    A query larger than the whole room is admitted when the room is empty.

    Args:
        needs: tells how many queries may be inside without a ranking yet.
    """

    def __init__(self, needs: Needs) -> None:
        self._most = _FINISHED_PER_SLOT * needs.most
        self._needs = needs
        self.weight = 0
        self.queries = 0
        self.unranked = 0
        self._waiting: deque[asyncio.Event] = deque()

    @property
    def gate(self) -> str | None:
        """What the next query waits for: ``queries``, or the ``memory`` of their documents; None where none waits."""
        if not self._waiting:
            return None
        full = self.unranked >= self._needs.queries or self.queries >= self._most
        return "queries" if full else "memory"

    async def acquire(self, weight: int) -> None:
        """Wait until there is room, and take it."""
        while self.queries and (
            self.weight + weight > MEMORY_BYTES
            or self.queries >= self._most
            or self.unranked >= self._needs.queries
        ):
            event = asyncio.Event()
            self._waiting.append(event)
            await event.wait()
        self.weight += weight
        self.queries += 1
        self.unranked += 1

    def shrink(self, weight: int) -> None:
        """Give back what a query no longer needs now that it is ranked."""
        self.weight -= weight
        self.unranked -= 1
        if self._waiting:
            self._waiting.popleft().set()

    def release(self, weight: int) -> None:
        """Give back the rest."""
        self.weight -= weight
        self.queries -= 1
        if self._waiting:
            self._waiting.popleft().set()


@asynccontextmanager
async def background_task(task: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run a task for as long as the block lasts; the block's own error comes out as it is, not in a group."""
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
def unwrap_exception_groups() -> Iterator[None]:
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


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def settle_process() -> None:
    """Set this process up for texts and answers that come and go by the thousand.

    1. The garbage collector would look at each answer's objects again and again.
    2. A worker thread in the midst of Python code would hold up the event loop for up to 5 ms at a time.
    3. glibc would keep what one burst took; it is told by the numbers in its malloc.h.
    """
    sys.setswitchinterval(0.0002)
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_M_TRIM_THRESHOLD, 1 << 24), (_M_MMAP_THRESHOLD, 1 << 22), (_M_ARENA_MAX, 2)):
            mallopt(option, value)
