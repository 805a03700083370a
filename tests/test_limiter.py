import asyncio
import itertools
from fractions import Fraction
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limiter_traffic import MANY, Admission, fullest, now, saturate, virtually

from batchrank.send.limiter import Limiter
from batchrank.send.rate import Admission as Charge

pytestmark = pytest.mark.anyio


traffic = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.3, 1.0, 2.5, 70.0]),  # seconds of silence before it
        st.integers(0, 400) | st.sampled_from([999, 1000]),  # tokens, in thousandths of a second's
        st.sampled_from([None, None, None, "requests", "tokens", "growth"]),  # then an earlier one is refused
    ),
    max_size=150,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 400), st.integers(1, 10**6), traffic, st.sampled_from([1e-6, 1e-3, 0.02]))
def test_no_second_and_no_minute_is_over_quota(
    rps: int,
    tps: int,
    requests: list[tuple[float, int, Literal["requests", "tokens", "growth"] | None]],
    late: float,
) -> None:
    """The promise, for random traffic, idle times, refusals and late timers, at quotas of whole numbers a second."""

    async def run() -> list[Admission]:
        limiter, admitted = Limiter(rpm=rps * 60, tpm=tps * 60), []
        for silence, share, refusal in requests:
            await asyncio.sleep(silence)
            await limiter.acquire(tps * share // 1000)
            admitted.append((now(), tps * share // 1000))
            if refusal:
                limiter.throttled(refusal)
        return admitted

    admitted = virtually(run(), late)
    assert len(admitted) == len(requests)
    for seconds in (1, 60):
        most_requests, most_tokens = fullest(admitted, seconds)
        assert most_requests <= rps * seconds
        assert most_tokens <= tps * seconds


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 200),
    st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.3, 1.5]), st.floats(0, 1)), max_size=200),
)
def test_the_promise_holds_for_departures(rps: int, requests: list[tuple[float, float]]) -> None:
    """A request that is held up after its admission, by a second at most, counts from its departure."""

    async def run() -> list[Admission]:
        limiter, departures = Limiter(rpm=rps * 60, tpm=MANY), []

        def depart(admission: Charge) -> None:
            limiter.departed(admission)
            departures.append((now(), 1))

        for silence, held_up in requests:
            await asyncio.sleep(silence)
            admission = await limiter.acquire(1)
            asyncio.get_running_loop().call_later(held_up, depart, admission)
        await asyncio.sleep(1.1)
        return departures

    departures = virtually(run())
    assert len(departures) == len(requests)
    assert fullest(departures, 1)[0] <= rps


@settings(max_examples=60, deadline=None)
@given(st.floats(1, 3000), st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.7, 61.0]), max_size=150))
def test_a_quota_of_no_whole_number_a_second(rpm: float, silences: list[float]) -> None:
    """Case 2: a second holds at most the next whole number of requests, and a minute never more than the quota."""

    async def run() -> list[Admission]:
        limiter, admitted = Limiter(rpm=rpm, tpm=MANY), []
        for silence in silences:
            await asyncio.sleep(silence)
            await limiter.acquire(1)
            admitted.append((now(), 1))
        return admitted

    admitted = virtually(run())
    assert fullest(admitted, 1)[0] <= -(-rpm // 60)
    assert fullest(admitted, 60)[0] <= rpm


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([10, 400, 999, 1000, 1001, 2500, 59_000, 60_001]), max_size=60))
def test_a_request_beyond_a_seconds_tokens_stands_alone(sizes: list[int]) -> None:
    """Case 1: such a request shares its second with no other, beyond a minute's its minute; the rest keep the quota."""

    async def run() -> list[Admission]:
        limiter, admitted = Limiter(rpm=6000, tpm=60_000), []
        for size in sizes:
            await limiter.acquire(size)
            admitted.append((now(), size))
        return admitted

    admitted = virtually(run())
    for (before, _), (after, _) in itertools.pairwise(admitted):
        assert after >= before
    for i, (time, size) in enumerate(admitted):
        for seconds in (1, 60):
            near = [other for j, (t, other) in enumerate(admitted) if j != i and abs(t - time) < seconds]
            assert size <= 1000 * seconds or not near
    assert fullest([a for a in admitted if a[1] <= 1000], 1)[1] <= 1000
    assert fullest([a for a in admitted if a[1] <= 60_000], 60)[1] <= 60_000


@pytest.mark.parametrize("late", [1e-6, 1e-3, 5e-3])
@pytest.mark.parametrize("rpm", [60, 90, 100, 1234, 4000, 5400, 100_000])
def test_the_quota_of_requests_is_used(rpm: int, late: float) -> None:
    """In steady state at least 97% of the requests are sent, though every timer wakes late."""
    seconds = max(3, 60_000 // rpm)
    admitted = virtually(saturate(Limiter(rpm=rpm, tpm=MANY), 50_000, seconds + 5), late)
    steady = [time for time, _ in admitted if time >= admitted[0][0] + 5]
    assert (len(steady) - 1) / (steady[-1] - steady[0]) >= 0.97 * rpm / 60


@pytest.mark.parametrize("late", [1e-6, 1e-3])
@pytest.mark.parametrize(
    "tokens, least", [(1000, 0.97), (2000, 0.97), (117_000, 0.97), (60_000, 0.58), (40_000, 0.78)]
)
def test_the_quota_of_tokens_is_used(tokens: int, least: float, late: float) -> None:
    """At least 97% of the tokens, of 100,000 a second: with requests of up to a fiftieth, or of more than all of it.

    In between whole requests must do: one of 60,000, two of 40,000.
    """
    admitted = virtually(saturate(Limiter(rpm=100_000, tpm=6_000_000), tokens, 75), late)
    steady = [time for time, _ in admitted if time >= admitted[0][0] + 5]
    assert (len(steady) - 1) * tokens / (steady[-1] - steady[0]) >= least * 100_000


async def test_a_burst_is_two_requests() -> None:
    """After a pause two requests go at once and the others at the pace, however many are ready."""
    limiter = Limiter(rpm=600, tpm=MANY)
    await saturate(limiter, 1, 5)
    await asyncio.sleep(20)
    times = []
    for _ in range(5):
        await limiter.acquire(1)
        times.append(now())
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[0] < 0.01
    assert gaps[1:] == pytest.approx([60 / 600 / 0.985] * 3, abs=0.01)


async def test_requests_are_admitted_in_order() -> None:
    """Callers are served in the order of their calls: a small request doesn't overtake a large one."""
    limiter, served = Limiter(rpm=6000, tpm=60_000), []

    async def one(i: int, tokens: int) -> None:
        await limiter.acquire(tokens)
        served.append(i)

    await asyncio.gather(*(one(i, 900 if i % 2 else 1) for i in range(20)))
    assert served == list(range(20))


async def test_a_cancelled_wait_takes_nothing() -> None:
    """A caller cancelled while it waits leaves the quota and the order as they were."""
    limiter = Limiter(rpm=60_000, tpm=60_000)
    limiter.settle(await limiter.acquire(1000), 1000)
    await asyncio.sleep(100)
    limiter.settle(await limiter.acquire(1000), 1000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await limiter.acquire(1000)
    began = now()
    await limiter.acquire(10)
    assert limiter.stats().requests == 3 and limiter.stats().tokens == 2010
    assert now() - began < 0.6
    assert limiter.stats().waited < 0.6


async def test_a_short_job_is_hardly_slowed_by_the_slow_start() -> None:
    """The first 100 requests at 90/s take a second more than they must; at 10/s and less there is no ramp."""
    fast, slow = Limiter(rpm=5400, tpm=MANY), Limiter(rpm=600, tpm=MANY)
    began = now()
    for _ in range(100):
        await fast.acquire(1000)
    assert 1.5 < now() - began < 2.7
    began = now()
    for _ in range(20):
        await slow.acquire(1000)
    assert now() - began < 2


async def test_slow_start_begins_low() -> None:
    """The first second of a run holds well under half of its quota, the fourth all of it."""
    admitted = await saturate(Limiter(rpm=60_000, tpm=MANY), 1, 5)
    began = admitted[0][0]
    per_second = [sum(began + i <= time < began + i + 1 for time, _ in admitted) for i in range(5)]
    assert per_second[0] < 400 and per_second[4] > 970
    assert per_second[:4] == sorted(per_second[:4])


async def test_billed_tokens_correct_the_account() -> None:
    """Tokens billed beyond the prediction delay the next request; those billed below it hasten it."""

    async def wait(billed: int) -> float:
        limiter = Limiter(rpm=60_000, tpm=60_000)
        await asyncio.sleep(100)
        limiter.settle(await limiter.acquire(10), 10)
        await asyncio.sleep(100)
        admission = await limiter.acquire(3000)
        began = now()
        asyncio.get_running_loop().call_later(1.5, limiter.settle, admission, billed)
        await limiter.acquire(10)
        return now() - began

    less, equal, more = await wait(300), await wait(3000), await wait(6000)
    assert less == pytest.approx(1.5, abs=0.1)
    assert equal == pytest.approx(3.04, abs=0.1)
    assert more == pytest.approx(6.09, abs=0.1)


@pytest.mark.parametrize(
    "rps, shares, least",
    [
        (90, 4, 0.9),
        (10, 4, 0.78),
        (10, 3, 0.88),
        (7, 4, 0.55),
        (100, 7, 0.9),
        (9.5, 2, 0.82),
        (10.5, 10, 0.9),
    ],
)
async def test_shares_add_up_to_the_quota(rps: float, shares: int, least: float) -> None:
    """Processes with a share each send no more than the quota in any second and minute, and what whole requests use."""
    limiters = [Limiter(rpm=rps * 60, tpm=MANY, share=Fraction(1, shares)) for _ in range(shares)]
    runs = await asyncio.gather(*(saturate(limiter, 1, 80) for limiter in limiters))
    admitted = sorted(itertools.chain(*runs))
    assert fullest(admitted, 1)[0] <= rps
    assert fullest(admitted, 60)[0] <= rps * 60
    assert len([time for time, _ in admitted if time >= admitted[0][0] + 10]) >= least * 70 * rps


def test_what_a_share_loses_is_told() -> None:
    """A share of no whole requests loses what is left over, or can't keep the second: both are told, in numbers."""

    def notice(rpm: float, share: Fraction) -> str | None:
        return "".join(Limiter(rpm=rpm, tpm=MANY, share=share).notices) or None

    assert notice(600, Fraction(1, 4)) == (
        "rate.share: 1/4 of 600 requests a minute is 2.5 a second, of which only 2 are sent, as the shares together "
        "must not pass a second's quota: 20% are lost; fewer processes with larger shares lose less"
    )
    slow = notice(60, Fraction(1, 4))
    assert slow is not None and "less than one request a second" in slow
    for rpm, share in [(5400, Fraction(1, 4)), (600, Fraction(1, 2)), (100, Fraction(1)), (6, Fraction(1))]:
        assert notice(rpm, share) is None


async def test_stats_tell_what_happened() -> None:
    """Counts, waiting and use of the quota; asking before the first request is harmless."""
    limiter = Limiter(rpm=600, tpm=6_000_000)
    assert limiter.stats().requests == 0 and limiter.stats().requests_used == 0
    await saturate(limiter, 5000, 120)
    stats = limiter.stats()
    assert stats.tokens == stats.requests * 5000
    assert stats.requests_used == pytest.approx(0.985, abs=0.01)
    assert stats.tokens_used == pytest.approx(0.985 / 2, abs=0.01)
    assert stats.waited == pytest.approx(120, abs=1)
    assert stats.speed == 1 and sum(stats.throttled.values()) == 0


@pytest.mark.real_clock
async def test_on_the_real_clock() -> None:
    """A smoke test: 30 requests at 100 a second are paced by real timers as well."""
    limiter = Limiter(rpm=6000, tpm=MANY)
    began = now()
    for _ in range(30):
        await limiter.acquire(1000)
    assert now() - began >= 0.29
