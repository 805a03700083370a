"""aiolimiter's bucket is what paces: held against aiolimiter itself, and against arithmetic where bills correct it."""

import asyncio
import itertools
from collections import Counter

import pytest
from aiolimiter import AsyncLimiter
from hypothesis import given, settings
from hypothesis import strategies as st
from limiter_traffic import MANY, now, saturate, virtually

from batchrank.send.limiter import Limiter
from batchrank.send.quota import Bucket

pytestmark = pytest.mark.anyio
PACED = 0.985
"""The part of a quota at which requests are paced."""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.05, 0.3, 2.0]), min_size=1, max_size=10))
def test_requests_go_when_aiolimiter_lets_them(silences: list[float]) -> None:
    """As long as no second is full, requests are admitted when a bare ``AsyncLimiter`` of two requests admits them."""

    async def ours() -> list[float]:
        limiter, times = Limiter(rpm=600, tpm=MANY), []
        for silence in silences:
            await asyncio.sleep(silence)
            await limiter.acquire(1)
            times.append(now())
        return times

    async def bare() -> list[float]:
        limiter, times = AsyncLimiter(2, 2 / (10 * PACED)), []
        for silence in silences:
            await asyncio.sleep(silence)
            await limiter.acquire()
            times.append(now())
        return times

    assert virtually(ours()) == pytest.approx(virtually(bare()), abs=1e-4)


async def test_requests_and_tokens_pass_a_bucket_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request puts its time into one ``AsyncLimiter``, and that of its tokens into another one."""
    taken: Counter[tuple[int, float]] = Counter()
    acquire = AsyncLimiter.acquire

    async def counted(self: AsyncLimiter, amount: float = 1) -> None:
        await acquire(self, amount)
        if amount > 0:
            taken[id(self), round(amount, 6)] += 1

    limiter = Limiter(rpm=6000, tpm=6_000_000)
    await saturate(limiter, 500, 10)
    monkeypatch.setattr(AsyncLimiter, "acquire", counted)
    admitted = await saturate(limiter, 500, 10)
    request, tokens = 1 / (100 * PACED), 500 / (100_000 * PACED)
    amounts = {amount: count for (_, amount), count in taken.items()}
    assert amounts == {round(request, 6): len(admitted), round(tokens, 6): len(admitted)}
    assert len({bucket for bucket, _ in taken}) == 2


async def test_nothing_but_aiolimiter_paces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its buckets let everything pass, a second's requests go in one burst: the windows promise no pace."""

    async def unpaced(self: AsyncLimiter, amount: float = 1) -> None:
        pass

    limiter = Limiter(rpm=600, tpm=MANY)
    monkeypatch.setattr(AsyncLimiter, "acquire", unpaced)
    times = [at for at, _ in await saturate(limiter, 1, 1)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(gaps[:9]) < 0.001 and gaps[9] > 1


amounts = st.floats(0.001, 5)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(amounts, st.floats(-5, 5), st.sampled_from([0.0, 0.01, 0.5, 3.0])), max_size=30))
def test_bills_change_what_is_left_in_the_bucket(steps: list[tuple[float, float, float]]) -> None:
    """What is given back hastens the next request, what is owed delays it: by as much, and by no more than a minute."""
    tolerance = 0.01

    async def run() -> None:
        bucket, left, seen = Bucket(tolerance), 0.0, now()
        for seconds, correction, silence in steps:
            await bucket.drained()
            left = max(0.0, left - (now() - seen))
            seen = now()
            assert left == pytest.approx(tolerance, abs=1e-4) or left < tolerance
            await bucket.fill(seconds)
            assert now() == seen
            bucket.correct(correction)
            left = max(0.0, left + seconds + correction)
            waits = asyncio.create_task(bucket.drained())
            await asyncio.sleep(silence)
            await waits
            assert now() - seen <= max(silence, left - tolerance) + 1e-4

    virtually(run())


async def test_who_waits_is_hastened_by_what_is_given_back() -> None:
    """A bucket's waiter that waits anew after tokens were given back is done at once where nothing is left."""
    bucket = Bucket(0.01)
    await bucket.fill(100)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await bucket.drained()
    bucket.correct(-200)
    began = now()
    await bucket.drained()
    assert now() == began
    await bucket.fill(1)
    await bucket.drained()
    assert now() - began == pytest.approx(0.99, abs=1e-4)
