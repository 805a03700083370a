"""Decides which request goes next and how many are in flight: a free place first, then the limiter."""

import asyncio
import heapq
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from batchrank.errors import BatchrankError
from batchrank.limiter.limiter import Admission, Limiter

_SMOOTHING = 0.1
_MARGIN, _LEAST = 1.5, 4.0
_EPOCH, _ANSWERS = 0.1, 10
_BETTER = 1.05
_REST, _REST_EPOCHS = 10.0, 50.0


class Places:
    """How many requests may be in flight, and how many are.

    With a fixed number it is that. ``auto`` keeps to Little's law, by which a rate needs rate x latency requests in
    flight, and otherwise goes by what the server shows. While requests wait for their turn:

    1. What the quota's rate needs at the lowest latency seen, and a margin, is granted at once, as the quota says
       that the server copes; if the need alone is more than ``most``, the quota tells nothing.
    2. Beyond, room is doubled in the time of one answer, and kept if that brings more answers a second in the
       next; else it is taken back, as requests would only queue in the server, and tried again after a while.
    3. A time-out or a broken connection takes 30% off, once in the time of one answer. From then on 1 doesn't hold, and
       room grows by one at a time.

    Never more than what the rate needs at the latency of now, and a margin.

    Args:
        fixed: so many, always; None for ``auto``.
        start: where ``auto`` starts.
        most: where it ends.
        room: connections that the system lets this process open, which neither of them passes.
    """

    def __init__(
        self, fixed: int | None, *, start: int = 16, most: int = 512, room: float = math.inf
    ) -> None:
        self._fixed = fixed = None if fixed is None else int(min(fixed, room))
        self._most = most = int(min(most, room))
        self._room = self._before = float(min(fixed or start, most))
        self._needed = float(most)
        self._latency, self._lowest = 0.0, math.inf
        self._struggled_at: float | None = None
        self._growing = False
        self._rest_until = -math.inf
        self._began, self._answers = -math.inf, 0
        self._rate = 0.0
        self.busy = 0

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return self._fixed or max(1, int(min(self._room, self._needed)))

    @property
    def most(self) -> int:
        """Requests that may ever be in flight."""
        return self._fixed or self._most

    def ahead(self) -> int:
        """Queries that may be under way, so that a request is always at hand and no more documents are held."""
        return self.limit + self.limit // 4 + 24

    def succeeded(self, now: float, latency: float, rate: float, *, waiting: bool) -> None:
        """Learn from an answer.

        Args:
            now: the time, seconds.
            latency: how long it took, seconds.
            rate: requests a second that the quota allows.
            waiting: whether requests wait for their turn.
        """
        self._latency += (_SMOOTHING if self._latency else 1.0) * (latency - self._latency)
        self._lowest = min(self._lowest, self._latency)
        self._needed = min(self._most, _LEAST + _MARGIN * rate * self._latency)
        if not waiting:
            self._begin(now, growing=False)  # where there is little to do, the rate tells nothing
            return
        need = rate * self._lowest
        granted = min(self._most, _LEAST + _MARGIN * need)
        if self._struggled_at is None and need < self._most and self._room < granted:
            self._room = granted
            self._begin(now, growing=False)
        self._answers += 1
        if self._growing:
            self._room = min(
                self._room + (1.0 if self._struggled_at is None else 1 / self._room), self._needed
            )
        if self._answers >= _ANSWERS and now - self._began >= max(self._latency, _EPOCH):
            self._judge(now)

    def struggled(self, now: float) -> None:
        """Learn that the server did not cope: a time-out or a broken connection."""
        if self._struggled_at is None or now - self._struggled_at >= self._latency:
            self._struggled_at = now
            self._room = max(1.0, 0.7 * min(self._room, self._needed))
            self._rate = 0.0
            self._begin(now, growing=False)

    def _judge(self, now: float) -> None:
        """End an epoch: after one of growth measure, after one of measuring decide."""
        if self._growing:
            self._begin(now, growing=False)
            return
        rate = self._answers / (now - self._began)
        if self._room > self._before and self._struggled_at is None and rate < _BETTER * self._rate:
            self._room, self._rest_until = self._before, now + max(_REST, _REST_EPOCHS * self._latency)
        else:
            self._rate = rate
        self._before = self._room
        self._begin(now, growing=now >= self._rest_until and self._room < self._needed)

    def _begin(self, now: float, *, growing: bool) -> None:
        self._began, self._answers, self._growing = now, 0, growing


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
