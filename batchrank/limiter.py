"""Requests and tokens per second: the whole of the quota, and never more of it.

**Promise.** With ``rpm`` and ``tpm`` the quota times the share, no one second holds more than rpm/60 requests or
tpm/60 tokens, and no one minute more than rpm and tpm (a second is any [t, t + 1), not only those of the clock).
Where that can't be kept:

1. A request of more tokens than tpm/60: it has the second before and after it to itself. One of more than tpm: the
   minute likewise.
2. rpm/60 is no whole number and its whole part wastes too much of it (2.5%; 10% where the quota is shared, as other
   processes round too): requests are evenly spaced, and a second holds the next whole number. The minute holds.

**Use.** A caller that always has a request ready gets 98% of the quota; at the least 97% of the requests (90%
of a share) where rpm/60 is no whole number, and 97% of the tokens where a request takes a fiftieth of tpm/60.
Larger ones use what whole requests fill of a second: two of 0.4 x tpm/60 are all that one second can hold.

**How.** An admission must satisfy, for requests and for tokens: a pace (one request's worth of time after another,
with a tolerance of two requests or 10 ms for timers that wake late), and the sums of the last second and minute.
The sums make the promise true by construction; the pace keeps them from ever filling up in a burst. The windows are
a little longer than a second and a minute, because requests arrive less evenly than they are sent. A bucket alone,
such as aiolimiter's, admits burst + rate in a second: to promise as much it must give up 7% of 60 requests a second.
Nor can it charge two accounts at one time, correct an account or change its rate.

**429s.** One or two requests refused, for requests or for tokens, may be bad luck on the way to a server that counts
strictly: that account slows to 95%, and all pause for a moment. More of them within two seconds mean that the quota
is smaller than told: 70%, and a pause of a second. Two seconds after the last refusal it recovers, by 3% of the quota
a second up to near where it was refused, then by 1%. Growth refused: back to the slow start of requests that every
run begins with, from lower and for longer.
"""

import asyncio
import math
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Kind = Literal["requests", "tokens", "growth"]

_UNLIMITED = 1e15  # a minute: an account without a quota still has numbers to count with
_PACE = 0.985
_SECOND, _MINUTE = 1.02, 60.05
_TOLERANCE = 0.01
_LEAST_SLEEP = 0.001
_WASTE, _SHARED_WASTE = 0.975, 0.9
_SLIGHTLY, _SLOWER, _SLOWEST = 0.95, 0.7, 1 / 64
_MANY = 3
_INCIDENT, _HOLD = 2.0, 2.0
_MOMENT, _PAUSE, _LONGEST_PAUSE = 0.1, 1.0, 60.0
_FAST, _CAREFUL, _NEAR = 0.03, 0.01, 0.9
_START, _START_REQUESTS, _RAMP, _LONGEST_RAMP, _IDLE = 0.25, 10.0, 3.0, 60.0, 30.0


@dataclass(frozen=True, slots=True)
class Stats:
    """What a limiter has done so far.

    Attributes:
        requests: requests admitted.
        tokens: tokens admitted, as predicted.
        requests_used: the part of the request quota used in the last minute.
        tokens_used: the part of the token quota used in the last minute.
        waited: seconds that callers waited.
        throttled: how many answers refused a request, by kind.
        speed: the part of the quota that is asked for now, after slow start and refusals.
    """

    requests: int
    tokens: int
    requests_used: float
    tokens_used: float
    waited: float
    throttled: dict[Kind, int]
    speed: float


class Limiter:
    """Admits requests one after another, in the order of the calls; the module tells what it promises.

    Args:
        rpm: requests a minute that the account may send.
        tpm: tokens a minute that the account may send.
        share: the part of both that this process may use.
    """

    def __init__(self, *, rpm: float, tpm: float, share: Fraction | float = 1) -> None:
        rpm, tpm = (min(float(quota * share), _UNLIMITED) for quota in (rpm, tpm))
        whole = math.floor(rpm / 60)
        spaced = whole / _SECOND < (_WASTE if share == 1 else _SHARED_WASTE) * rpm / 60
        pair = 0.0 if spaced else 60 / (rpm * _PACE)
        self._requests = _Account(rpm, math.ceil(rpm / 60) if spaced else whole, max(pair, _TOLERANCE))
        self._tokens = _Account(tpm, math.floor(tpm / 60), _TOLERANCE)
        self._ramp = _Ramp(min(1.0, max(_START, _START_REQUESTS / (rpm / 60))))
        self._paused_until = -math.inf
        self._admitted = [0, 0]
        self._waited = 0.0
        self._throttled: dict[Kind, int] = {"requests": 0, "tokens": 0, "growth": 0}
        self._order = asyncio.Lock()
        self._waiter: asyncio.Future[None] | None = None

    async def acquire(self, tokens: int) -> None:
        """Return when a request of so many tokens may be sent. Cancelled while waiting, it takes nothing."""
        loop = asyncio.get_running_loop()
        async with self._order:
            now = began = loop.time()
            while (delay := self._delay(now, tokens)) > 0:
                await self._sleep(loop, max(delay, _LEAST_SLEEP))
                now = loop.time()
            self._waited += now - began
            self._ramp.touch(now)
            self._requests.charge(now, 1, self._ramp.speed(now))
            self._tokens.charge(now, tokens)
            self._admitted[0] += 1
            self._admitted[1] += tokens

    def settle(self, predicted: int, billed: int) -> None:
        """Correct the token account: the answer says what the request really took.

        Tokens billed beyond the prediction count from now on. Those billed below it speed up the next requests,
        but are not taken out of the second in which they were admitted.
        """
        now = asyncio.get_running_loop().time()
        self._tokens.correct(now, billed - predicted)
        if billed < predicted:
            self._wake()

    def throttled(self, kind: Kind, retry_after: float | None = None) -> None:
        """Slow down because the API refused a request.

        Args:
            kind: which limit it named.
            retry_after: seconds that it asked to wait; None if it didn't. Over a minute counts as a minute.
        """
        now = asyncio.get_running_loop().time()
        self._throttled[kind] += 1
        if kind == "growth":
            pause = _PAUSE if self._ramp.again(now) else 0.0
        else:
            pause = (self._requests if kind == "requests" else self._tokens).slow_down(now)
        if retry_after is not None and retry_after > 0:
            pause = min(retry_after, _LONGEST_PAUSE)
        self._paused_until = max(self._paused_until, now + pause)

    def pace(self, tokens: int) -> float:
        """Requests a second that may be sent at most if each takes so many tokens, slowed down as they are now."""
        return min(self._requests.pace, self._tokens.pace / max(tokens, 1))

    def stats(self) -> Stats:
        """What happened so far."""
        now = asyncio.get_running_loop().time()
        elapsed = min(max(now - self._ramp.first, 1.0), 60.0)
        return Stats(
            requests=self._admitted[0],
            tokens=self._admitted[1],
            requests_used=self._requests.used(now, elapsed),
            tokens_used=self._tokens.used(now, elapsed),
            waited=self._waited,
            throttled=dict(self._throttled),
            speed=self._ramp.speed(now) * min(self._requests.speed, self._tokens.speed),
        )

    def _delay(self, now: float, tokens: int) -> float:
        return max(self._paused_until - now, self._requests.delay(now, 1), self._tokens.delay(now, tokens))

    async def _sleep(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._waiter = loop.create_future()
        timer = loop.call_later(seconds, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Account:
    """The requests, or the tokens, of one quota; ``speed`` is the part of it that the API last tolerated."""

    def __init__(self, per_minute: float, per_second: int, tolerance: float) -> None:
        self.speed = 1.0
        self._rate = per_minute / 60 * _PACE
        self._per_minute = per_minute
        self._tolerance = tolerance
        self._second = _Window(_SECOND, per_second, 0.002)
        self._minute = _Window(_MINUTE, math.floor(per_minute), 0.25)
        self._due = -math.inf
        self._refused_at = -math.inf
        self._refused_speed = 1.0
        self._refusals = 0
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
        if self.speed < 1:
            self._recover(now)
        self._due = max(self._due, now) + amount / (self._rate * self.speed * ramp)
        self._second.add(now, amount)
        self._minute.add(now, amount)

    def correct(self, now: float, more: int) -> None:
        self._due = (max(self._due, now) if more > 0 else self._due) + more / self._rate
        if more > 0:
            self._second.add(now, more)
            self._minute.add(now, more)

    def slow_down(self, now: float) -> float:
        """Seconds to pause: one incident refuses many requests that are on their way, and counts once."""
        self._recover(now)
        self._recovered_at = now + _HOLD
        if now - self._refused_at >= _INCIDENT:
            self._refused_at, self._refused_speed, self._refusals = now, self.speed, 0
        self._refusals += 1
        if self._refusals not in (1, _MANY):
            return 0.0
        slower, pause = (_SLIGHTLY, _MOMENT) if self._refusals == 1 else (_SLOWER, _PAUSE)
        self.speed = max(self._refused_speed * slower, _SLOWEST)
        return pause

    def used(self, now: float, elapsed: float) -> float:
        return self._minute.total(now) / (self._per_minute * elapsed / 60)

    def _recover(self, now: float) -> None:
        if now > self._recovered_at:
            pace = _FAST if self.speed < _NEAR * self._refused_speed else _CAREFUL
            self.speed = min(1.0, self.speed + pace * (now - self._recovered_at))
            self._recovered_at = now


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

    def add(self, now: float, amount: int) -> None:
        if self._cells and now - self._cells[-1][0] < self._grain:
            self._cells[-1][1] = now
            self._cells[-1][2] += amount
        else:
            self._cells.append([now, now, amount])
        self._total += amount


class _Ramp:
    """Slow start: from a part of the quota to all of it within seconds, again after a rest."""

    def __init__(self, start: float) -> None:
        self.first = math.inf
        self._start, self._seconds = start, _RAMP
        self._began = self._last = self._refused_at = -math.inf

    def touch(self, now: float) -> None:
        """Tell that a request is admitted."""
        if now - self._last > _IDLE:
            self._began = now
            self.first = min(self.first, now)
        self._last = now

    def speed(self, now: float) -> float:
        done = (now - self._began) / self._seconds
        return 1.0 if done >= 1 else self._start + (1 - self._start) * max(done, 0.0)

    def again(self, now: float) -> bool:
        """Start over, from lower and for longer; whether this is news."""
        if now - self._refused_at < _INCIDENT:
            return False
        self._refused_at = self._began = now
        self._start = max(self._start / 2, _SLOWEST)
        self._seconds = min(self._seconds * 2, _LONGEST_RAMP)
        return True
