"""What the limiter makes of refusals: each kind in its own way, bad luck told from a smaller quota."""

import asyncio
from collections import deque
from functools import partial
from typing import Literal

import pytest
from limiter_traffic import MANY, now, rate, saturate

from batchrank.send.limiter import Limiter
from batchrank.send.rate import Admission

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind, other", [("requests", "tokens"), ("tokens", "requests")])
async def test_a_refusal_slows_its_own_account(kind: Literal["requests", "tokens"], other: str) -> None:
    """A 429 for requests slows requests alone, one for tokens tokens alone; both recover within half a minute."""
    # 100 requests and 1,000,000 tokens a second: which binds depends on the tokens of a request
    limiter = Limiter(rpm=6000, tpm=60_000_000)
    bound = {"requests": 1, "tokens": 20_000}
    full = {"requests": 98.5, "tokens": 49.25}
    await saturate(limiter, 1, 5)
    for i in range(30):  # all of one incident
        limiter.throttled(kind, sent=now() - 0.01 * i)
    began = now()
    await limiter.acquire(1)
    assert 0.9 < now() - began < 1.2
    assert await rate(limiter, bound[kind]) == pytest.approx(0.7 * full[kind], rel=0.06)
    assert await rate(limiter, bound[other], 2) == pytest.approx(full[other], rel=0.05)
    await saturate(limiter, 1, 25)
    assert await rate(limiter, bound[kind], 2) == pytest.approx(full[kind], rel=0.05)
    assert limiter.stats().throttled[kind] == 30


async def test_a_bunch_of_refusals_is_bad_luck() -> None:
    """Requests that were held up on their way arrive, and are refused, together: that hardly slows a run."""
    limiter = Limiter(rpm=6000, tpm=MANY)
    await saturate(limiter, 1, 5)
    for i in range(30):
        limiter.throttled("requests", sent=now() - 0.005 * i)
    assert await rate(limiter, seconds=5) > 93


async def test_retry_after_is_waited_for() -> None:
    """A pause that the API asks for is kept, up to a minute; nonsense is ignored."""
    limiter = Limiter(rpm=6000, tpm=MANY)
    await limiter.acquire(1)
    for asked, waited in [(7.5, 7.5), (1e9, 60), (float("nan"), 0.1), (-3, 0.1)]:
        await asyncio.sleep(5)
        began = now()
        limiter.throttled("requests", asked)
        await limiter.acquire(1)
        assert now() - began == pytest.approx(waited, abs=0.3 if waited > 1 else 0.02)


async def test_growth_starts_slowly_again() -> None:
    """A growth 429 goes back to the slow start: lower and longer than before, then the full rate."""
    limiter = Limiter(rpm=60_000, tpm=MANY)
    await saturate(limiter, 1, 5)
    limiter.throttled("growth")
    assert await rate(limiter, seconds=2) < 400
    await saturate(limiter, 1, 5)
    assert await rate(limiter) > 970


class Server:
    """Refuses what a sliding window of one second doesn't hold, and answers after a latency."""

    def __init__(self, quota: int, latency: float) -> None:
        self.quota, self.latency = quota, latency
        self.accepted: deque[float] = deque()
        self.refused: list[float] = []

    def send(self, limiter: Limiter, admission: Admission) -> None:
        loop = asyncio.get_running_loop()
        while self.accepted and now() - self.accepted[0] >= 1:
            self.accepted.popleft()
        if len(self.accepted) < self.quota:
            self.accepted.append(now())
            loop.call_later(self.latency, limiter.settle, admission, 1)
            return
        self.refused.append(now())
        tell = partial(limiter.throttled, "requests", sent=now())
        loop.call_later(self.latency, tell)


@pytest.mark.parametrize("latency", [0.02, 0.5, 2.0])
async def test_a_constant_quota_is_never_refused(latency: float) -> None:
    """A server that enforces the quota by the second refuses nothing."""
    limiter, server = Limiter(rpm=5400, tpm=MANY), Server(90, latency)
    end = now() + 60
    while now() < end:
        server.send(limiter, await limiter.acquire(1))
    assert not server.refused and limiter.stats().requests_used > 0.95


@pytest.mark.parametrize("latency", [0.02, 0.5, 2.0])
async def test_a_quota_cut_in_half_is_followed(latency: float) -> None:
    """Ten seconds after the quota was halved under 1% are refused, and most of what is left is used."""
    limiter, server = Limiter(rpm=5400, tpm=MANY), Server(90, latency)
    began, sent = now(), 0
    while now() < began + 130:
        server.quota = 90 if now() < began + 20 else 45
        admission = await limiter.acquire(1)
        sent += now() >= began + 30
        server.send(limiter, admission)
    late = sum(time >= began + 30 for time in server.refused)
    assert late < 0.01 * sent
    assert sent - late > 0.75 * 45 * 100


@pytest.mark.parametrize("latency", [0.02, 0.5, 2.0])
@pytest.mark.parametrize("seconds", [10, 60, 300])
async def test_a_server_that_took_nothing_is_soon_asked_as_before(latency: float, seconds: float) -> None:
    """Twelve seconds after it takes requests again it is asked for most of the quota, and not before for much."""
    limiter, server = Limiter(rpm=5400, tpm=MANY), Server(90, latency)
    began = now()
    sent: list[float] = []
    while now() < began + 20 + seconds + 22:
        server.quota = 0 if began + 20 <= now() < began + 20 + seconds else 90
        admission = await limiter.acquire(1)
        sent.append(now())
        server.send(limiter, admission)
    storm = [time for time in sent if began + 30 <= time < began + 20 + seconds]
    assert len(storm) <= 5 * max(0, seconds - 10)
    assert len([time for time in sent if time >= began + 20 + seconds + 12]) >= 0.8 * 90 * 10
