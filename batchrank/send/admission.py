"""Whose turn it is: a free place first, then the limiter, oldest query first."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from batchrank.errors import BatchrankError
from batchrank.limiter.limiter import Admission, Limiter
from batchrank.send.places import Places

Priority = tuple[int, int, int]
"""Query position, round, chunk: the smallest goes first."""


@dataclass(order=True, slots=True)
class _Waiter:
    priority: Priority
    order: int
    tokens: int = field(compare=False)
    granted: asyncio.Event = field(compare=False)
    left: bool = field(default=False, compare=False)
    held: bool = field(default=False, compare=False)
    admission: Admission | None = field(default=None, compare=False)


class Turn:
    """A request's turn, and the place that it holds once it is granted."""

    def __init__(self, dispatcher: "Dispatcher", waiter: _Waiter) -> None:
        self._dispatcher = dispatcher
        self._waiter = waiter

    def announce(self) -> None:
        """Tell that the request is about to be sent, which is noted for the processes after this one."""
        if self._dispatcher.note is not None:
            self._dispatcher.note(self._admission.charged)

    def depart(self) -> None:
        """Tell that the request is sent now: it may have been held up since its turn came."""
        self._dispatcher.limiter.departed(self._admission)

    def settle(self, billed: int | None) -> None:
        """Tell what the answer says was billed, None where it says nothing."""
        self._dispatcher.limiter.settle(self._admission, billed)

    def unbilled(self) -> None:
        """Tell that the request was rejected, and cost nothing."""
        self._dispatcher.limiter.unbilled(self._admission)

    def leave(self) -> None:
        """Free the place for another request."""
        if self._waiter.held:
            self._waiter.held = False
            self._dispatcher.leave()

    @property
    def _admission(self) -> Admission:
        assert self._waiter.admission is not None
        return self._waiter.admission


class Dispatcher:
    """Gives turns to requests; ``serve`` runs in the run's task group.

    Args:
        limiter: decides when.
        places: decides how many at a time.
        note: told of each request that is about to be sent, and the tokens that it counts as.
    """

    def __init__(
        self, limiter: Limiter, places: Places, *, note: Callable[[int], None] | None = None
    ) -> None:
        self.limiter = limiter
        self.note = note
        self.places = places
        self._waiting: list[_Waiter] = []
        self._next: _Waiter | None = None
        self._order = count()
        self._changed = asyncio.Event()
        self._closed: BatchrankError | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, priority: Priority, tokens: int) -> AsyncIterator["Turn"]:
        """Wait for a turn, and hold a place until it is left, at the latest at the end of the block.

        Raises:
            BatchrankError: the one given to ``close``.
        """
        if self._closed is not None:
            raise self._closed
        waiter = _Waiter(priority, next(self._order), tokens, asyncio.Event())
        heapq.heappush(self._waiting, waiter)
        self._changed.set()
        turn = Turn(self, waiter)
        try:
            await waiter.granted.wait()
            if self._closed is not None:
                raise self._closed
            yield turn
        finally:
            waiter.left = True
            turn.leave()

    def answered(self, latency: float, tokens: int) -> None:
        """Learn that the answer to a request of so many tokens took so many seconds."""
        now, rate = asyncio.get_running_loop().time(), self.limiter.pace(tokens)
        self.places.succeeded(now, latency, rate, waiting=bool(self._waiting))

    def close(self, reason: BatchrankError) -> None:
        """Give no more turns: whoever waits, or comes later, gets the reason raised."""
        self._closed = self._closed or reason
        for waiter in [*self._waiting, *([self._next] if self._next else [])]:
            waiter.granted.set()  # the next one too, which may have a long pause of the limiter before it
        self._waiting.clear()
        self._changed.set()

    async def serve(self) -> None:
        """Give turns until cancelled or closed."""
        while self._closed is None:
            self._changed = asyncio.Event()
            if not self._waiting or self.places.busy >= self.places.limit:
                await self._changed.wait()
                continue
            waiter = heapq.heappop(self._waiting)
            if waiter.left:
                continue
            self.places.busy += 1
            self._next = waiter
            try:
                waiter.admission = await self.limiter.acquire(waiter.tokens)
            except BaseException:
                self.leave()
                raise
            self._next = None
            if waiter.left:
                self.leave()
            else:
                waiter.held = True
                waiter.granted.set()

    def leave(self) -> None:
        """One place less is taken."""
        self.places.busy -= 1
        self._changed.set()
