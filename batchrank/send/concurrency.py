"""Tells how many requests one server may have in flight: as many as the rate needs, or as it copes with."""

import math

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
        adapts: whether it goes by what the server shows, as ``auto`` does.

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
        self.adapts = fixed is None
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

    def fix(self, number: int) -> None:
        """Set another fixed number."""
        self._fixed, self.adapts = number, False
        self.most = max(self.most, number)
        self._apply()

    def succeeded(
        self, now: float, latency: float, rate: float, *, waiting: bool, share: float = 1.0
    ) -> None:
        """Learn from an answer.

        Args:
            now: the time, seconds.
            latency: how long it took, seconds.
            rate: requests a second that the quota allows.
            waiting: whether requests wait for their turn.
            share: the part of that rate which is the server's; beyond it the quota doesn't tell what it copes with.
        """
        if not self.adapts:
            return
        self._latency += (_SMOOTHING if self._latency else 1.0) * (latency - self._latency)
        self._lowest = min(self._lowest, self._latency)
        self._needed = min(self._most, _LEAST + _MARGIN * rate * self._latency)
        if waiting:
            self._grow(now, rate * share)
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
