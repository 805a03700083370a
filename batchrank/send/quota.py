"""Keeps requests, or tokens, within a quota: their pace, and their sums over the last second and minute.

**Promise.** With ``rpm`` and ``tpm`` the quota times the share, no one second holds more than rpm/60 requests or
tpm/60 tokens, and no one minute more than rpm and tpm (a second is any [t, t + 1), not only those of the clock).
Where that can't be kept:

1. A request of more tokens than tpm/60: it has the second before and after it to itself. One of more than tpm: the
   minute likewise.
2. rpm/60 is no whole number and its whole part wastes too much of it (2.5%): requests are evenly spaced, and a second
   holds the next whole number. The minute holds. Not so where the quota is shared: if each process rounded up, all
   together would pass it. There the whole part is sent and the rest is lost, which a notice tells; an account that
   processes ask for each request would lose nothing.
3. A share of less than one request a second: a second holds one all the same. The minute holds.

**Use.** A caller that always has a request ready gets 98% of the quota; at the least 97% of the requests where rpm/60
is no whole number (of the whole ones of a share), and 97% of the tokens where a request takes a fiftieth of tpm/60.
Larger ones use what whole requests fill of a second: two of 0.4 x tpm/60 are all that one second can hold.

**How.** Requests and tokens each pass a bucket of aiolimiter: one request's worth of time after another, with a
tolerance of one more request or 10 ms for timers that wake late. As a bucket admits its burst and its rate in one
second, the sums of the last second and minute stand beside it: they make the promise true by construction, and the
pace keeps them from ever filling up in a burst. The windows are a little longer than a second and a minute, because
requests arrive less evenly than they are sent.

A request may be held up between its admission and its departure; it is counted anew when it departs, and the promise
holds for departures as long as none is held up for more than a second.

**Bills.** The quota of tokens holds for what is billed: a request is charged what bills have been of their predictions,
ten times its prediction before the first, and its own bill corrects that. Bills that change at once pass the quota
for as long as their answers take. A usage that no request can have is not believed, and told.

**429s.** A few requests refused, for requests or for tokens, may be bad luck on the way to a server that counts
strictly: that account slows to 97%, and all pause for a moment. Where three or more are refused within two seconds,
which are also 10% of a second's requests and were not sent in a bunch (within a quarter of a second), the quota is
smaller than told: 70%, and a pause of a second. Two seconds after the last refusal it recovers, by 3% of the quota a
second; near the speed that was refused only by 0.4%, if it was refused in the 20 seconds before that as well. Growth
refused: back to the slow start of requests that every run begins with, from lower and for longer.
"""

import math
from collections import deque

from aiolimiter import AsyncLimiter

_LONGEST_DEBT = 60.0
"""Seconds that bills beyond their predictions delay at most: what a minute holds is all that a quota counts."""


class Bucket:
    """One ``AsyncLimiter``, and what bills changed since; for one caller at a time, as it lets small amounts go first.

    Args:
        tolerance: seconds that may be left in it when the next request goes: so much is ready at once after a rest.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._limiter = AsyncLimiter(tolerance, tolerance)
        self._owed = 0.0  # seconds that are to be put in yet; if negative, so many of those in it don't count

    def correct(self, seconds: float) -> None:
        """Have so many seconds more be in it, or fewer if negative: then who waits should wait anew."""
        owed = self._owed + seconds
        self._owed = owed if seconds < 0 else max(self._owed, min(owed, _LONGEST_DEBT))

    def is_drained(self) -> bool:
        """Whether no more is left than the tolerance."""
        if self._owed < 0 and self._limiter.has_capacity(self._limiter.max_rate + self._owed):
            self._limiter = AsyncLimiter(self._tolerance, self._tolerance)
            self._owed = 0.0  # all that was left is given back
        self._limiter.max_rate = self._tolerance - self._owed
        return self._owed <= 0 and self._limiter.has_capacity(0.0)

    async def drained(self) -> None:
        """Wait until it is drained."""
        while not self.is_drained():
            await self.fill(0.0)

    async def fill(self, seconds: float) -> None:
        """Put so many seconds in, and what is owed, once it is drained: at once where it is."""
        given_back, more = max(0.0, -self._owed), max(0.0, self._owed + seconds)
        self._limiter.max_rate = self._tolerance + given_back + more
        await self._limiter.acquire(more)
        self._owed += seconds - more


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
        return max(self.second.delay(now, amount), self._minute.delay(now, amount))

    async def charge(self, now: float, amount: int, ramp: float = 1.0) -> None:
        """Charge so much, at ``ramp`` times the pace: at once where the bucket is drained."""
        if self.speed < 1.0:
            self._recover(now)
        await self.bucket.fill(amount / (self._rate * self.speed * ramp))
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
            window.move(admitted, now, amount)

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
        if self._total + amount <= self._allowance:  # with what has left by now, it only is larger
            return 0.0
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

    def move(self, then: float, now: float, amount: int) -> None:
        """Have what was added at ``then`` count as added now."""
        last = self._cells[-1] if self._cells else None
        if last is not None and last[0] <= then <= last[1] and now - last[0] < self._grain:
            last[1] = now  # the same cell
            return
        self.amend(then, -amount)
        self.add(now, amount)

    def add(self, now: float, amount: int) -> None:
        if not self._cells or now - self._cells[-1][0] >= self._grain:
            self.total(now)  # so that no more cells are kept than a window has
            self._cells.append([now, now, 0])
        self._cells[-1][1] = now
        self._cells[-1][2] += amount
        self._total += amount
