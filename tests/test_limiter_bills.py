"""What the limiter makes of bills that differ from predictions: it learns them, and the quota holds for bills."""

import asyncio
import random
from collections import deque
from functools import partial
from pathlib import Path

import pytest
from against import world
from hypothesis import given, settings
from hypothesis import strategies as st
from limiter_traffic import MANY, Admission, fullest, now, virtually

from batchrank.send.limiter import Limiter

pytestmark = pytest.mark.anyio
TPS = 10_000


async def billed(
    limiter: Limiter, seconds: float, latency: float, ratio: float, spread: float = 0.0, size: int = 400
) -> list[Admission]:
    """Always have a request ready whose bill is ``ratio`` times its prediction, known after ``latency``."""
    rng, end, bills = random.Random(1), now() + seconds, deque[Admission]()
    while now() < end:
        predicted = rng.randint(size // 2, size + size // 2)
        admission = await limiter.acquire(predicted)
        bill = max(1, round(predicted * ratio * rng.uniform(1 - spread, 1 + spread)))
        bills.append((now(), bill))
        asyncio.get_running_loop().call_later(latency, partial(limiter.settle, admission, bill))
    return list(bills)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.1, 10), st.sampled_from([0.02, 0.5, 3.0]), st.sampled_from([5, 20]))
def test_bills_keep_to_the_quota_whatever_was_predicted(ratio: float, latency: float, part: int) -> None:
    """Bills of a tenth to ten times the prediction: no second and no minute is over quota, from the first one on."""
    size = max(2, round(TPS / part / ratio))
    bills = virtually(billed(Limiter(rpm=MANY, tpm=TPS * 60), 80, latency, ratio, size=size))
    assert fullest(bills, 1)[1] <= TPS + max(tokens for _, tokens in bills)
    assert fullest(bills, 60)[1] <= TPS * 60


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1, 3, 10])
@pytest.mark.parametrize("latency", [0.2, 2.0])
def test_the_quota_is_used_whatever_was_predicted(ratio: float, latency: float) -> None:
    """Once bills are known at least 95% of the quota is billed, be they a tenth of the prediction or ten times that."""
    size = max(2, round(TPS / 50 / ratio))
    bills = virtually(billed(Limiter(rpm=MANY, tpm=TPS * 60), 75, latency, ratio, size=size))
    steady = [tokens for time, tokens in bills if time >= bills[0][0] + 10]
    assert sum(steady) >= 0.95 * TPS * 65


@pytest.mark.parametrize("latency", [0.2, 2.0])
def test_bills_that_scatter_keep_to_the_quota(latency: float) -> None:
    """Bills 40% around twice the prediction: what scatters is allowed for, and most of the quota is used."""
    bills = virtually(billed(Limiter(rpm=MANY, tpm=TPS * 60), 70, latency, 2, spread=0.4, size=50))
    assert fullest(bills, 1)[1] <= TPS * 1.03
    assert fullest(bills, 60)[1] <= TPS * 60
    assert sum(tokens for _, tokens in bills) >= 0.88 * TPS * 70


async def test_one_absurd_bill_hardly_stalls() -> None:
    """A usage of 10^15 tokens is not believed: the run goes on within seconds, and a notice tells it once."""
    limiter = Limiter(rpm=6000, tpm=TPS * 60)
    await billed(limiter, 10, 0.1, 1.0, size=100)
    assert limiter.notices == []
    admission = await limiter.acquire(100)
    limiter.settle(admission, 10**15)
    began = now()
    bills = await billed(limiter, 20, 0.1, 1.0, size=100)
    assert bills[0][0] - began < 2
    assert sum(tokens for _, tokens in bills) >= 0.85 * TPS * 20
    (notice,) = limiter.notices
    assert "1,000,000,000,000,000" in notice


async def test_an_absurd_first_bill_stalls_for_a_minute_at_most() -> None:
    """Before any bill is known even an absurd one is taken at its word, but for no more than a minute holds."""
    limiter = Limiter(rpm=6000, tpm=TPS * 60)
    limiter.settle(await limiter.acquire(100), 10**15)
    began = now()
    limiter.settle(await limiter.acquire(100), 100)
    assert now() - began < 70
    bills = await billed(limiter, 100, 0.1, 1.0, size=100)
    assert sum(tokens for time, tokens in bills if time > began + 130) >= 0.9 * TPS * 30


async def test_answers_without_usage_count_as_predicted() -> None:
    """Where the API names no usage, the prediction is all there is."""
    limiter = Limiter(rpm=6000, tpm=TPS * 60)
    limiter.settle(await limiter.acquire(1000), None)
    admitted, end = 0, now() + 20
    while now() < end:
        limiter.settle(await limiter.acquire(1000), None)
        admitted += 1000
    assert admitted >= 0.9 * TPS * 20


async def test_bills_that_rise_are_followed() -> None:
    """Bills that are suddenly five times as high are over quota until that is learnt, and no longer."""
    limiter = Limiter(rpm=6000, tpm=TPS * 60)
    await billed(limiter, 30, 0.2, 1.0, size=100)
    began = now()
    bills = await billed(limiter, 90, 0.2, 5.0, size=100)
    assert fullest([bill for bill in bills if bill[0] >= began + 5], 1)[1] <= TPS * 1.05
    assert sum(tokens for time, tokens in bills if time > began + 10) >= 0.93 * TPS * 80


@pytest.mark.parametrize("overhead", [0, 1000])
async def test_a_job_keeps_to_the_tokens_that_are_billed(tmp_path: Path, overhead: int) -> None:
    """Each document is billed a thousand tokens more than documented: from the first request to the last it holds."""
    rate = {"tpm": 3_600_000 if overhead else 360_000}
    async with world(tmp_path, queries=60, overhead_tokens=overhead, sections={"rate": rate}) as w:
        assert (await w.run(w.job())).exit_code == 0
        largest = max(tokens for _, tokens in w.emulator.counts.bills)
        for seconds in (1, 60):
            assert w.emulator.counts.most_tokens_in(seconds) <= rate["tpm"] * seconds / 60 + largest
