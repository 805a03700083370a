"""Decides which request goes next, once one more may be in flight and the limiter allows it."""

import asyncio
import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from batchrank.errors import BatchrankError
from batchrank.send.limiter import Admission, Limiter

_SMOOTHING = 0.1
"""The weight of the latest answer in the mean latency, so that one slow answer changes little."""
_MARGIN = 1.5
"""Times what the rate needs by the mean latency: latencies scatter, and slow answers must not hold the rate back."""
_LEAST = 4.0
"""Requests beyond that, so that a small need has some room too."""
_EPOCH = 0.1
"""Seconds that an epoch lasts at the least: in a shorter one the rate of answers is mostly chance."""
_ANSWERS = 10
"""Answers that an epoch has at the least, for the same reason."""
_BETTER = 1.05
"""Times the rate before, which more room has to bring: less is chance."""
_REST = 10.0
"""Seconds at the least until growth that brought nothing is tried again."""
_REST_EPOCHS = 50.0
"""Latencies at the least until then: growth takes two, so a server that can't do more is overloaded 4% of the time."""


class ConcurrencyLimit:
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

    Attributes:
        busy: requests in flight.
        limit: requests that may be in flight now.
        most: requests that may ever be in flight.
        queries: queries that may be under way, so that a request is always at hand and no more documents are held.

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
        self.most = fixed or most
        self._apply()

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
        if waiting:
            self._grow(now, rate)
        else:
            self._begin(now, growing=False)  # where there is little to do, the rate tells nothing
        self._apply()

    def _grow(self, now: float, rate: float) -> None:
        """Make room while requests wait, as far as the server copes."""
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
            self._apply()

    def _apply(self) -> None:
        self.limit = self._fixed or max(1, int(min(self._room, self._needed)))
        self.queries = self.limit + self.limit // 4 + 24

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


@dataclass(slots=True, eq=False)
class Slot:
    """A request's place in the queue; once it is granted, one of those in flight.

    Attributes:
        tokens: what the request is predicted to take.
        admission: what the limiter charged it; set when the slot is granted.
    """

    scheduler: "Scheduler"
    tokens: int
    granted: asyncio.Future[None]
    left: bool = False
    held: bool = False
    admission: Admission = field(init=False)

    def grant(self) -> None:
        """Let its request go on, if that still waits."""
        if not self.granted.done():
            self.granted.set_result(None)

    def release(self) -> None:
        """Let another request have it. Whoever waits for it, or holds it, must call this; again does no harm."""
        self.left = True
        if self.held:
            self.held = False
            self.scheduler.leave()


class Scheduler:
    """Gives slots to requests, those of the oldest query first; ``serve`` runs in the run's task group.

    Attributes:
        limiter: decides when.
        concurrency: decides how many at a time.
        note: told of each request that is about to be sent, and the tokens that it counts as.
    """

    def __init__(
        self, limiter: Limiter, concurrency: ConcurrencyLimit, *, note: Callable[[int], object] = bool
    ) -> None:
        self.limiter = limiter
        self.concurrency = concurrency
        self.note = note
        self._waiting: list[tuple[Priority, int, Slot]] = []
        self._next: Slot | None = None
        self._order = count()
        self._changed = asyncio.Event()
        self._closed: BatchrankError | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    @property
    def gate(self) -> str | None:
        """What the next request waits for: ``concurrency``, or ``rate``; None where none waits."""
        if self._next is not None:
            return "rate"
        return "concurrency" if self._waiting and self.concurrency.busy >= self.concurrency.limit else None

    async def slot(self, priority: Priority, tokens: int) -> Slot:
        """Wait for a slot; whoever gets it has to ``release`` it.

        Raises:
            BatchrankError: the one given to ``close``.
        """
        if self._closed is not None:
            raise self._closed
        slot = Slot(self, tokens, asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiting, (priority, next(self._order), slot))
        self._changed.set()
        try:
            await slot.granted
            if self._closed is not None:
                raise self._closed
        except BaseException:
            slot.release()
            raise
        return slot

    def answered(self, now: float, latency: float, tokens: int) -> None:
        """Learn that the answer to a request of so many tokens took so many seconds."""
        rate = self.limiter.pace(tokens)
        self.concurrency.succeeded(now, latency, rate, waiting=bool(self._waiting))

    def close(self, reason: BatchrankError) -> None:
        """Give no more slots: whoever waits, or comes later, gets the reason raised."""
        self._closed = self._closed or reason
        for slot in [*(slot for _, _, slot in self._waiting), *([self._next] if self._next else [])]:
            slot.grant()  # the next one too, which may have a long pause of the limiter before it
        self._waiting.clear()
        self._changed.set()

    async def serve(self) -> None:
        """Give slots until cancelled or closed."""
        while self._closed is None:
            self._changed = asyncio.Event()
            if not self._waiting or self.concurrency.busy >= self.concurrency.limit:
                await self._changed.wait()
                continue
            slot = heapq.heappop(self._waiting)[2]
            if slot.left:
                continue
            self.concurrency.busy += 1
            self._next = slot
            try:
                slot.admission = await self.limiter.acquire(slot.tokens)
            except BaseException:
                self.leave()
                raise
            self._next = None
            if slot.left:
                self.leave()
            else:
                slot.held = True
                slot.grant()

    def leave(self) -> None:
        """One request less is in flight."""
        self.concurrency.busy -= 1
        self._changed.set()
