"""Hours of traffic in virtual time, with storms, restarts, refusals and bills that nobody predicted."""

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from functools import partial

from limiter_traffic import Admission, fullest, now

from batchrank.send.limiter import Limiter
from batchrank.send.rate import Admission as Charge
from batchrank.send.rate import Kind

MINUTE = 60.0
LATENCY = 0.8
TROUBLE = 0.7
"""The part of the time in which something is wrong now and then; in the rest all is well."""
STORM = 90.0


@dataclass
class Soak:
    """One account for some hours.

    Args:
        rpm: requests a minute.
        tpm: tokens a minute.
        tokens: what a request is billed on average.
        ratio: what is billed of what was predicted, give or take a twentieth.
        seconds: how long it goes on.
    """

    rpm: float
    tpm: float
    tokens: float
    ratio: float
    seconds: float
    rng: random.Random = field(default_factory=lambda: random.Random(14))
    sent: list[Admission] = field(default_factory=list)
    refused: int = 0
    restarts: int = 0

    def __post_init__(self) -> None:
        self.predicted = self.tokens / self.ratio
        self._left: deque[tuple[float, Charge]] = deque()

    async def run(self) -> None:
        """Always have a request ready."""
        self._began = now()
        self._well = self._began + TROUBLE * self.seconds
        limiter, storm, restart = self._limiter(), self._next(600), self._next(400)
        while now() < self._began + self.seconds:
            await self._send(limiter, storming=storm <= now() < storm + STORM and now() < self._well)
            if now() > storm + STORM:
                storm = self._next(600)
            if restart < now() < self._well:
                limiter, restart, self.restarts = self._limiter(), self._next(400), self.restarts + 1

    async def _send(self, limiter: Limiter, *, storming: bool) -> None:
        admission = await limiter.acquire(round(self.predicted * self.rng.uniform(0.5, 1.5)))
        self._left.append((now(), admission))
        bill = max(1, round(admission.predicted * self.ratio * self.rng.uniform(0.95, 1.05)))
        loop = asyncio.get_running_loop()
        chance = 0.001 if now() < self._well else 0.0
        if storming or self.rng.random() < chance:
            kind: Kind = self.rng.choice(["requests", "tokens"])
            self.refused += 1
            self.sent.append((now(), 0))
            loop.call_later(0.1, partial(_refuse, limiter, kind, admission))
        else:
            self.sent.append((now(), bill))
            loop.call_later(LATENCY, partial(limiter.settle, admission, bill))

    def _limiter(self) -> Limiter:
        """A new process: it knows of the last minute what was charged for it."""
        while self._left and now() - self._left[0][0] >= MINUTE:
            self._left.popleft()
        before = [(now() - at, charge.charged) for at, charge in self._left]
        return Limiter(rpm=self.rpm, tpm=self.tpm, before=before)

    def _next(self, mean: float) -> float:
        return now() + self.rng.uniform(0.5, 1.5) * mean

    def over(self) -> list[str]:
        """Where a quota was passed by more than one request."""
        one, found = max(tokens for _, tokens in self.sent), []
        for span, rpm in ((1.0, max(1.0, -(-self.rpm // 60))), (MINUTE, self.rpm)):
            requests, tokens = fullest(self.sent, span)
            if requests > rpm:
                found.append(f"{requests} requests in {span:g} s, allowed are {rpm:g}")
            if tokens > self.tpm * span / 60 + one:
                found.append(f"{tokens:,} tokens in {span:g} s, allowed are {self.tpm * span / 60:,.0f}")
        return found

    def used(self) -> float:
        """The part of the scarcer quota that was used where all was well, five minutes after it wasn't."""
        start, end = self._well + 300, self._began + self.seconds
        well = [tokens for at, tokens in self.sent if start <= at < end]
        minutes = (end - start) / 60
        return max(len(well) / (self.rpm * minutes), sum(well) / (self.tpm * minutes))


def _refuse(limiter: Limiter, kind: Kind, admission: Charge) -> None:
    limiter.unbilled(admission)
    limiter.throttled(kind, sent=admission.at)
