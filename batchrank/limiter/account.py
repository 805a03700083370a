"""Counts the requests, or the tokens, of one quota, because a pace alone does not promise what any one second holds."""

import math
from collections import deque

from batchrank.limiter.bucket import Bucket

PACE = 0.985
SECOND = 1.015
TOLERANCE = 0.01
SLOWEST = 1 / 64
"""The lowest speed: of a quota that is no smaller than that."""
PAUSE = 1.0
"""Seconds to pause when the quota is smaller than told."""
INCIDENT = 2.0
"""Seconds within which refusals are one incident."""
_MINUTE = 60.05
_SLIGHTLY, _SLOWER = 0.97, 0.7
_MANY, _SHARE, _SPAN = 3, 0.1, 0.25
_HOLD = 2.0
_MOMENT = 0.1
_FAST, _CAREFUL, _NEAR = 0.03, 0.004, 0.9
LEAST_RATE = 0.2
"""Requests a second that are asked for at least, as one of them has to find out that the API takes requests again."""
_CLOSED = 2
"""Slow-downs in a row without any acceptance that tell of an API which takes nothing: one may precede its answer."""
_REOPENED = 1.0
"""Seconds in which the speed doubles once an API that refused everything takes again what it is known to have taken."""
_AGAIN = 20.0
"""Seconds after an incident in which another one shows where the quota ends, and so how carefully to come near it."""


class Account:
    """The requests, or the tokens, of one quota; ``speed`` is the part of it that the API last tolerated."""

    def __init__(self, per_minute: float, per_second: int, tolerance: float, slowest: float) -> None:
        self.speed = 1.0
        self._slowest = slowest
        self._rate = per_minute / 60 * PACE
        self._per_minute = per_minute
        self.bucket = Bucket(tolerance)
        self.second = _Window(SECOND, per_second, 0.002)
        self._minute = _Window(_MINUTE, math.floor(per_minute), 0.25)
        self._slowed_at = -math.inf
        self._refused_speed = 1.0
        self._refusals = 0
        self._sent = 0.0, 0.0
        self._cut = self._again = False
        self._accepted, self._in_vain = True, 0
        self._before = self._known = 1.0
        self._recovered_at = 0.0

    @property
    def pace(self) -> float:
        """What may be charged per second."""
        return self._rate * self.speed

    def delay(self, now: float, amount: int) -> float:
        """Seconds until the last second and minute have room for so much; none or less: now."""
        return max(window.delay(now, amount) for window in (self.second, self._minute))

    async def charge(self, now: float, amount: int, ramp: float = 1.0) -> None:
        """Charge so much, at ``ramp`` times the pace: at once where the bucket is drained."""
        self._recover(now)
        await self.bucket.fill(amount / (self.pace * ramp))
        for window in (self.second, self._minute):
            window.add(now, amount)

    def restore(self, then: float, now: float, amount: int) -> None:
        """Count what an earlier process was charged; of the pace, what its last request still takes."""
        self.bucket.correct(max(0.0, amount / self._rate - (now - then)))
        for window in (self.second, self._minute):
            window.add(then, amount)

    def correct(self, then: float, more: int) -> None:
        """Have what was charged at ``then`` be so much more, or less if negative: it slows, or hastens, what comes."""
        self.bucket.correct(more / self._rate)
        for window in (self.second, self._minute):
            window.amend(then, more)

    def postpone(self, admitted: float, now: float, amount: int) -> None:
        """Count what was charged at ``admitted`` as of now, because it was held up."""
        for window in (self.second, self._minute):
            window.amend(admitted, -amount)
            window.add(now, amount)

    def slow_down(self, now: float, requests: float, sent: float) -> float:
        """Seconds to pause: one incident refuses many requests that are on their way, and counts once.

        What was ``sent`` before the account was cut down says nothing new. A smaller quota refuses many of a second's
        ``requests``, and over a time: those that were held up on their way arrive, and are refused, in a bunch.
        """
        self._recover(now)
        self._recovered_at = now + _HOLD
        known = sent <= self._slowed_at
        if known and self._cut:
            return 0.0
        if not known and (self._cut or now - self._slowed_at >= INCIDENT):
            self._again = now - self._slowed_at < _AGAIN
            self._in_vain = 0 if self._accepted else self._in_vain + 1
            self._before = self.speed if self._accepted else self._before
            self._accepted = False
            self._refused_speed, self._refusals, self._sent, self._cut = self.speed, 0, (sent, sent), False
        self._refusals += 1
        self._sent = min(self._sent[0], sent), max(self._sent[1], sent)
        if self._refusals > 1:
            many = self._refusals >= max(_MANY, math.ceil(_SHARE * requests))
            if self._cut or not many or self._sent[1] - self._sent[0] < _SPAN:
                return 0.0
            self._cut = True
        self.speed = max(self._refused_speed * (_SLOWER if self._cut else _SLIGHTLY), self._slowest)
        self._known, self._slowed_at = self.speed, now
        return PAUSE if self._cut else _MOMENT

    def accepted(self, now: float, sent: float) -> None:
        """Learn that a request was accepted, which was sent at a time.

        An API that took nothing at all has no smaller quota than before: the speed of before is soon asked for again.
        """
        if self._accepted or sent <= self._slowed_at:
            return
        self._accepted = True
        if self._in_vain >= _CLOSED:
            self._again = self._cut = False
            self._known, self._recovered_at = self._before * _SLIGHTLY, now

    def used(self, now: float, elapsed: float) -> float:
        """The part of the quota used in the last minute, or in the seconds elapsed."""
        return self._minute.total(now) / (self._per_minute * elapsed / 60)

    def _recover(self, now: float) -> None:
        seconds = max(0.0, now - self._recovered_at)
        self._recovered_at += seconds
        if self.speed < self._known:
            self.speed = min(self._known, self.speed * 2 ** min(seconds / _REOPENED, 10.0))
            return
        near = self._again and self.speed >= _NEAR * self._refused_speed
        self.speed = min(1.0, self.speed + (_CAREFUL if near else _FAST) * seconds)


class _Window:
    """The sum of the last so many seconds, or a little more: what is added within ``grain`` seconds leaves together."""

    def __init__(self, length: float, allowance: int, grain: float) -> None:
        self._length, self._allowance, self._grain = length, allowance, grain
        self._cells: deque[list[float]] = deque()  # first added, last added, amount
        self._total = 0.0

    def total(self, now: float) -> float:
        while self._cells and now - self._cells[0][1] >= self._length:
            self._total -= self._cells.popleft()[2]
        return self._total

    def delay(self, now: float, amount: int) -> float:
        """Seconds until so much fits; what never fits waits until the window is empty."""
        excess, delay = self.total(now) + amount - self._allowance, 0.0
        for _, last, leaving in self._cells:
            if excess <= 0:
                break
            excess, delay = excess - leaving, last + self._length - now
        return delay

    def amend(self, then: float, more: int) -> None:
        """Have what was added at ``then`` be so much more, if it still counts."""
        for cell in reversed(self._cells):
            if cell[0] <= then <= cell[1]:
                cell[2] += more
                self._total += more
                return

    def add(self, now: float, amount: int) -> None:
        if not self._cells or now - self._cells[-1][0] >= self._grain:
            self._cells.append([now, now, 0])
        self._cells[-1][1] = now
        self._cells[-1][2] += amount
        self._total += amount
