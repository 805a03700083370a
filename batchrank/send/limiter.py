"""Decides when a request may be sent, because requests and tokens of one account have to be charged together.

What it promises stands in ``quota``.
"""

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from batchrank.data import Rejection
from batchrank.send.budget import Bills
from batchrank.send.quota import INCIDENT, LEAST_RATE, PACE, PAUSE, SECOND, SLOWEST, TOLERANCE, Account
from batchrank.send.rate import Admission, Kind, Stats

if TYPE_CHECKING:
    from batchrank.send.connections import Key

_RAMP, _LONGEST_RAMP, _IDLE = 3.0, 60.0, 30.0
_CLOSED = 1 / 32
"""The part of the quota that is asked for while nothing is accepted."""


class Ramp:
    """Slow start: from a part of the quota to all of it within seconds, again after a rest."""

    def __init__(self, start: float) -> None:
        self.first = math.inf  # when the first request was admitted that is known of
        self._start, self._seconds = start, _RAMP
        self._accepted, self._closed = True, False
        self._began = self._last = self._refused_at = -math.inf

    def touch(self, now: float) -> None:
        """Tell that a request is admitted."""
        if now - self._last > _IDLE:
            self._began = now
            self.first = min(self.first, now)
        self._last = now

    def speed(self, now: float) -> float:
        """The part of the quota that is asked for now."""
        if self._closed:
            return min(_CLOSED, self._start)
        done = (now - self._began) / self._seconds
        return 1.0 if done >= 1 else self._start + (1 - self._start) * max(done, 0.0)

    def accepted(self, now: float, sent: float) -> None:
        """Learn that a request was accepted, which was sent at a time."""
        if not self._accepted and sent > self._began:
            self._accepted = True
            self._began = now if self._closed else self._began
            self._closed = False

    def again(self, now: float) -> bool:
        """Start over, from lower and for longer; whether this is news.

        Where nothing was accepted since the last time it was no growth that was refused: that teaches nothing.
        """
        if now - self._refused_at < INCIDENT:
            return False
        self._refused_at = self._began = now
        self._closed = not self._accepted
        if not self._closed:
            self._accepted = False
            self._start = max(self._start / 2, SLOWEST)
            self._seconds = min(self._seconds * 2, _LONGEST_RAMP)
        return True


_UNLIMITED = 1e15  # a minute: an account without a quota still has numbers to count with
_WASTE = 0.975
_SLOWEST_TOKENS = 1 / 16
"""The lowest speed of tokens, of which one request may take a second's."""
_LOST = 0.03
"""The part of a share that rounding may lose before it is told."""
_LONGEST_PAUSE = 60.0
_START, _START_REQUESTS = 0.25, 10.0


class Limiter:
    """Admits requests one after another, in the order of the calls; the module tells what it promises.

    Args:
        rpm: requests a minute that the account may send.
        tpm: tokens a minute that the account may send.
        share: the part of both that this process may use.
        before: what an earlier process sent in the last minute, as seconds ago and tokens; needs a running event loop.
    """

    ahead = 1

    def __init__(
        self,
        *,
        rpm: float,
        tpm: float,
        share: Fraction | float = 1,
        before: Sequence[tuple[float, int]] = (),
    ) -> None:
        self._share_lost = _lost(rpm, share)
        rpm, tpm = (min(float(quota * share), _UNLIMITED) for quota in (rpm, tpm))
        whole = math.floor(rpm / 60)
        # Of a share whole requests only, as long as there are any: each process that rounds up passes the quota by one.
        spaced = not whole if share != 1 else whole / SECOND < _WASTE * rpm / 60
        slowest = min(1.0, max(SLOWEST, LEAST_RATE / (rpm / 60)))
        pair = 0.0 if spaced else 60 / (rpm * PACE)
        self._requests = Account(rpm, math.ceil(rpm / 60) if spaced else whole, max(pair, TOLERANCE), slowest)
        self._tokens = Account(tpm, math.floor(tpm / 60), TOLERANCE, _SLOWEST_TOKENS)
        self._bills = Bills(math.floor(tpm / 60), math.floor(tpm))
        self._ramp = Ramp(min(1.0, max(_START, _START_REQUESTS / (rpm / 60))))
        self._paused_until = -math.inf
        self._admitted = [0, 0]
        self._waited = 0.0
        self._throttled: dict[Kind, int] = {"requests": 0, "tokens": 0, "growth": 0}
        self._refused = False
        self._order = asyncio.Lock()
        self._waiting: asyncio.Timeout | None = None
        for ago, tokens in sorted(before, reverse=True):
            now = asyncio.get_running_loop().time()
            self._ramp.first = min(self._ramp.first, now - ago)
            self._requests.restore(now - ago, now, 1)
            self._tokens.restore(now - ago, now, tokens)

    async def acquire(self, tokens: int) -> Admission:
        """Wait until a request may be sent; cancelled while waiting, it takes nothing.

        Args:
            tokens: what it is expected to take; it is charged what bills of such requests have been.
        """
        loop = asyncio.get_running_loop()
        async with self._order:
            now = loop.time()
            if self.delay(now, tokens) > 0:
                began = now
                await self.turn(tokens)
                now = loop.time()
                self._waited += now - began
            charged = self._bills.expected(tokens)
            self._ramp.touch(now)
            await self._requests.charge(now, 1, self._ramp.speed(now))
            await self._tokens.charge(now, charged)
            self._admitted[0] += 1
            self._admitted[1] += tokens
            return Admission(now, tokens, charged)

    def departed(self, admission: Admission) -> None:
        """Tell that a request is sent only now, so that it counts from now on."""
        now = asyncio.get_running_loop().time()
        if now > admission.at:
            self._requests.postpone(admission.at, now, 1)
            self._tokens.postpone(admission.at, now, admission.charged)
            admission.at = now

    def settle(self, admission: Admission, billed: int | None) -> None:
        """Correct the token account: the answer says what the request really took, or nothing about it (None).

        It counts from when the request was sent, as the API counted it, and delays or hastens what comes next.
        """
        now = asyncio.get_running_loop().time()
        if self._refused:
            for one in (self._requests, self._tokens, self._ramp):
                one.accepted(now, admission.at)
        self._correct(admission, self._bills.learn(admission.predicted, billed))

    def unbilled(self, admission: Admission) -> None:
        """Tell that a request was rejected: an API may count its prediction even so, the rest is given back."""
        self._correct(admission, min(admission.predicted, admission.charged))

    @property
    def notices(self) -> list[str]:
        """What the user should know about the share, and about bills."""
        found = [] if self._share_lost is None else [self._share_lost]
        if self._bills.absurd is not None:
            billed, predicted = self._bills.absurd
            found.append(
                f"an answer named {billed:,} tokens for a request of about {predicted:,}, which is not believed where "
                "rate.tpm is kept: the server's usage is wrong at times"
            )
        return found

    def throttled(
        self,
        kind: Kind,
        retry_after: float | None = None,
        *,
        sent: float | None = None,
        by: "Key | None" = None,
    ) -> None:
        """Slow down because the API refused a request.

        Args:
            kind: which limit it named.
            retry_after: seconds that it asked to wait; None if it didn't. Over a minute counts as a minute.
            sent: when the request was sent; None: just now.
            by: the key, which is the only one.
        """
        now = asyncio.get_running_loop().time()
        self._throttled[kind] += 1
        self._refused = True
        if kind == "growth":
            pause = PAUSE if self._ramp.again(now) else 0.0
        else:
            account = self._requests if kind == "requests" else self._tokens
            pause = account.slow_down(now, self._requests.second.total(now), now if sent is None else sent)
        if retry_after is not None and retry_after > 0:
            pause = min(retry_after, _LONGEST_PAUSE)
        self._paused_until = max(self._paused_until, now + pause)

    def refused(self, admission: Admission, why: Rejection, *, certain: bool) -> bool:
        """There is no other key."""
        return False

    def states(self) -> list[dict[str, Any]]:
        """There is one key, whose state is the run's."""
        return []

    def serving(self) -> list[str]:
        """There are not several keys."""
        return []

    def pace(self, tokens: int) -> float:
        """Requests a second that may be sent at most if each takes so many tokens, slowed down as they are now."""
        return min(self._requests.pace, self._tokens.pace / max(self._bills.expected(tokens), 1))

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

    def delay(self, now: float, tokens: int) -> float:
        """Seconds until pauses end and windows have room, none or less: now; infinite before buckets are drained."""
        if not (self._requests.bucket.is_drained() and self._tokens.bucket.is_drained()):
            return math.inf
        expected = self._bills.expected(tokens)
        windows = max(self._requests.delay(now, 1), self._tokens.delay(now, expected))
        return max(self._paused_until - now, windows)

    async def turn(self, tokens: int) -> None:
        """Wait for the pace, room in the windows and the end of pauses; all anew when tokens are given back.

        It takes nothing: ``acquire`` does, at once if it is called before anything else is.
        """
        loop = asyncio.get_running_loop()
        while (delay := self.delay(loop.time(), tokens)) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(None) as waiting:
                    self._waiting = waiting
                    try:
                        if delay < math.inf:
                            await asyncio.sleep(delay)
                        await self._requests.bucket.drained()
                        await self._tokens.bucket.drained()
                    finally:
                        if self._waiting is waiting:
                            self._waiting = None

    def _correct(self, admission: Admission, tokens: int) -> None:
        more, admission.charged = tokens - admission.charged, tokens
        self._tokens.correct(admission.at, more)
        if more < 0 and self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())


def _lost(rpm: float, share: Fraction | float) -> str | None:
    """What rounding makes of a share of the requests, in words; None where that is little."""
    part = float(rpm * share) / 60
    if share == 1 or not part < _UNLIMITED / 60:
        return None
    what = f"rate.share: {share} of {rpm:,g} requests a minute is {part:.3g} a second"
    if part < 1:
        return (
            f"{what}; of less than one request a second nothing can be left out, so processes that send at the same "
            "time may pass a second's quota together, though not the minute's; share it among fewer processes"
        )
    whole = math.floor(part)
    if 1 - whole / part <= _LOST:
        return None
    return (
        f"{what}, of which only {whole} are sent, as the shares together must not pass a second's quota: "
        f"{1 - whole / part:.0%} are lost; fewer processes with larger shares lose less"
    )
