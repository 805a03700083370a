"""The requests, or the tokens, of one quota: their pace, and their sums over the last second and minute."""

import math
from collections import deque

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
_LONGEST_DEBT = 60.0
"""Seconds that bills beyond their predictions delay at most: what a minute holds is all that a quota counts."""
LEAST_RATE = 0.2
"""Requests a second that are asked for at least, as one of them has to find out that the API takes requests again."""
_CLOSED = 2
"""Slow-downs in a row without any acceptance after which the API takes nothing at all: with one, the first acceptance
may still be on its way."""
_REOPENED = 1.0
"""Seconds in which the speed doubles once an API that refused everything takes requests again: it is known what it took
before."""
_AGAIN = 20.0
"""Seconds after an incident in which another one shows where the quota ends, and so how carefully to come near it."""


class Account:
    """The requests, or the tokens, of one quota; ``speed`` is the part of it that the API last tolerated."""

    def __init__(self, per_minute: float, per_second: int, tolerance: float, slowest: float) -> None:
        self.speed = 1.0
        self._slowest = slowest
        self._rate = per_minute / 60 * PACE
        self._per_minute = per_minute
        self._tolerance = tolerance
        self._second = _Window(SECOND, per_second, 0.002)
        self._minute = _Window(_MINUTE, math.floor(per_minute), 0.25)
        self._due = -math.inf
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
        """Seconds until so much may be charged; none or less: now."""
        return max(
            self._due - self._tolerance - now,
            self._second.delay(now, amount),
            self._minute.delay(now, amount),
        )

    def charge(self, now: float, amount: int, ramp: float = 1.0) -> None:
        """Charge so much, at ``ramp`` times the pace."""
        if self.speed < 1:
            self._recover(now)
        self._due = max(self._due, now) + amount / (self._rate * self.speed * ramp)
        self._second.add(now, amount)
        self._minute.add(now, amount)

    def correct(self, then: float, now: float, more: int) -> None:
        """Have what was charged at ``then`` be so much more, or less if negative: it slows, or hastens, what comes."""
        due = (max(self._due, now) if more > 0 else self._due) + more / self._rate
        self._due = max(self._due, min(due, now + _LONGEST_DEBT)) if more > 0 else due
        self._second.amend(then, more)
        self._minute.amend(then, more)

    def recent(self, now: float) -> float:
        """What was charged in the last second."""
        return self._second.total(now)

    def postpone(self, admitted: float, now: float, amount: int) -> None:
        """Count what was charged at ``admitted`` as of now, because it was held up."""
        self._second.move(admitted, now, amount)
        self._minute.move(admitted, now, amount)

    def slow_down(self, now: float, requests: float, sent: float) -> float:
        """Seconds to pause: one incident refuses many requests that are on their way, and counts once.

        What was sent before the account was cut down says nothing new.

        Args:
            now: the time, seconds.
            requests: how many were sent in the last second.
            sent: when the refused request was sent; those that were held up on the way arrive in a bunch, which a
                smaller quota is told from by the time between the first and the last.
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
        if self._refusals == 1:
            return self._slow(now, _SLIGHTLY, _MOMENT)
        many = self._refusals >= max(_MANY, math.ceil(_SHARE * requests))
        if self._cut or not many or self._sent[1] - self._sent[0] < _SPAN:
            return 0.0
        self._cut = True
        return self._slow(now, _SLOWER, PAUSE)

    def accepted(self, now: float, sent: float) -> None:
        """Learn that a request was accepted, which was sent at a time.

        Where nothing was through several slow-downs, the API took nothing at all, so its quota is no smaller than
        before: then the speed of before is soon asked for again.
        """
        if self._accepted or sent <= self._slowed_at:
            return
        self._accepted = True
        if self._in_vain >= _CLOSED:
            self._again = self._cut = False
            self._known, self._recovered_at = self._before * _SLIGHTLY, now

    def _slow(self, now: float, factor: float, pause: float) -> float:
        self.speed, self._slowed_at = max(self._refused_speed * factor, self._slowest), now
        self._known = self.speed
        return pause

    def used(self, now: float, elapsed: float) -> float:
        """The part of the quota used in the last minute, or in the seconds elapsed."""
        return self._minute.total(now) / (self._per_minute * elapsed / 60)

    def _recover(self, now: float) -> None:
        if now <= self._recovered_at:
            return
        seconds, self._recovered_at = now - self._recovered_at, now
        if self.speed < self._known:
            self.speed = min(self._known, self.speed * 2 ** min(seconds / _REOPENED, 10.0))
            return
        near = self._again and self.speed >= _NEAR * self._refused_speed
        self.speed = min(1.0, self.speed + (_CAREFUL if near else _FAST) * seconds)


class _Window:
    """The sum of the last so many seconds, never less than it really is.

    What is added within ``grain`` seconds leaves together, with the last of it.
    """

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
        excess = self.total(now) + amount - self._allowance
        if excess <= 0 or not self._cells:
            return 0.0
        for _, last, leaving in self._cells:
            excess -= leaving
            if excess <= 0:
                return last + self._length - now
        return self._cells[-1][1] + self._length - now

    def move(self, then: float, now: float, amount: int) -> None:
        """Have what was added at ``then`` count from now on."""
        self.amend(then, -amount)
        self.add(now, amount)

    def amend(self, then: float, more: int) -> None:
        """Have what was added at ``then`` be so much more, if it still counts."""
        for cell in reversed(self._cells):
            if cell[0] <= then <= cell[1]:
                cell[2] += more
                self._total += more
                return

    def add(self, now: float, amount: int) -> None:
        if self._cells and now - self._cells[-1][0] < self._grain:
            self._cells[-1][1] = now
            self._cells[-1][2] += amount
        else:
            self._cells.append([now, now, amount])
        self._total += amount
