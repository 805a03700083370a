"""Whose turn it is: a free place first, then the limiter, oldest query first."""

import asyncio
import heapq
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from batchrank.errors import BatchrankError
from batchrank.limiter import Limiter

Priority = tuple[int, int, int]
"""Query position, round, chunk: the smallest goes first."""
_SMOOTHING = 0.1
_MARGIN, _LEAST = 1.5, 4.0
_QUEUED = 2.0
_FORGETTING = 1.001
"""How fast the fastest answer is forgotten, per answer: a server may have become slower for good."""


@dataclass(order=True, slots=True)
class _Waiter:
    priority: Priority
    order: int
    tokens: int = field(compare=False)
    granted: asyncio.Event = field(compare=False)
    left: bool = field(default=False, compare=False)
    held: bool = field(default=False, compare=False)


class Places:
    """How many requests may be in flight, and how many are.

    With a fixed number it is that. ``auto`` keeps to Little's law: a rate needs rate x latency requests in flight, and
    more of them would only wait. Both are measured, as is whether the server copes:

    1. It grows by one with each answer that comes while requests wait for a place, so that it doubles in the
       time of one answer. Once the server has struggled, it grows by one in that time.
    2. It stops at what the rate needs, and a margin.
    3. It stops where answers take twice as long as the fastest did: there the server makes requests queue.
    4. A time-out or a broken connection takes 30% off, once in the time of one answer.

    Args:
        fixed: so many, always; None for ``auto``.
        start: where ``auto`` starts.
        most: where it ends.
    """

    def __init__(self, fixed: int | None, *, start: int = 16, most: int = 512) -> None:
        self._fixed = fixed
        self._most = most
        self._room = float(fixed or start)
        self._needed = float(most)
        self._threshold = float(most)
        self._latency: float | None = None
        self._fastest = math.inf
        self._struggled_at = -math.inf
        self.busy = 0
        self.crowded = False

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return self._fixed or max(1, int(min(self._room, self._needed)))

    @property
    def most(self) -> int:
        """Requests that may ever be in flight."""
        return self._fixed or self._most

    def succeeded(self, latency: float, rate: float) -> None:
        """Learn that an answer came after so many seconds, and how many requests a second the quota allows."""
        old = self._latency
        self._latency = latency if old is None else old + _SMOOTHING * (latency - old)
        self._fastest = min(self._fastest * _FORGETTING, self._latency)
        self._needed = _LEAST + _MARGIN * rate * self._latency
        if self.crowded and self._latency <= _QUEUED * self._fastest and self._room < self._needed:
            step = 1.0 if self._room < self._threshold else 1.0 / self._room
            self._room = min(self._most, self._room + step)

    def struggled(self, now: float) -> None:
        """Learn that the server did not cope: a time-out or a broken connection."""
        if now - self._struggled_at >= (self._latency or 0.0):
            self._struggled_at = now
            self._room = self._threshold = max(1.0, 0.7 * min(self._room, self._needed))


class Dispatcher:
    """Gives turns to requests; ``serve`` runs in the run's task group."""

    def __init__(self, limiter: Limiter, places: Places) -> None:
        self.limiter = limiter
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
    async def turn(self, priority: Priority, tokens: int) -> AsyncIterator[None]:
        """Wait for a turn, and hold a place for the length of the block.

        Raises:
            BatchrankError: the one given to ``close``.
        """
        if self._closed is not None:
            raise self._closed
        waiter = _Waiter(priority, next(self._order), tokens, asyncio.Event())
        heapq.heappush(self._waiting, waiter)
        self._changed.set()
        try:
            await waiter.granted.wait()
        except BaseException:
            waiter.left = True
            if waiter.held:
                self._leave()
            raise
        if self._closed is not None:
            waiter.left = True
            if waiter.held:
                self._leave()
            raise self._closed
        try:
            yield
        finally:
            self._leave()

    def answered(self, latency: float, tokens: int) -> None:
        """Learn that the answer to a request of so many tokens took so many seconds."""
        self.places.succeeded(latency, self.limiter.pace(tokens))

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
            self.places.crowded = bool(self._waiting) and self.places.busy >= self.places.limit
            if not self._waiting or self.places.busy >= self.places.limit:
                await self._changed.wait()
                continue
            waiter = heapq.heappop(self._waiting)
            if waiter.left:
                continue
            self.places.busy += 1
            self._next = waiter
            try:
                await self.limiter.acquire(waiter.tokens)
            except BaseException:
                self._leave()
                raise
            self._next = None
            if waiter.left:
                self._leave()
            else:
                waiter.held = True
                waiter.granted.set()

    def _leave(self) -> None:
        self.places.busy -= 1
        self._changed.set()
