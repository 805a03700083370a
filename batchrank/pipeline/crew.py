"""The tasks that rank queries."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from anyio.abc import TaskGroup

from batchrank.pipeline.rank import Prepared


class Crew:
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
