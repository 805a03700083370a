"""A process that starts anew counts what the one before it has sent: the quota holds for the account."""

import asyncio
import signal
from pathlib import Path

import pytest
from against import world
from hypothesis import given, settings
from hypothesis import strategies as st
from limiter_traffic import MANY, Admission, fullest, now, virtually

from batchrank.errors import InterruptedRunError
from batchrank.ledger import state
from batchrank.ledger.departures import Departures
from batchrank.ledger.ledger import Ledger
from batchrank.pipeline.run import Run
from batchrank.send.limiter import Limiter

pytestmark = pytest.mark.anyio


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([6, 60, 600]),
    st.lists(st.tuples(st.integers(1, 30), st.floats(0, 70)), min_size=1, max_size=5),
)
def test_no_second_and_no_minute_is_over_quota_across_restarts(
    rpm: int, processes: list[tuple[int, float]]
) -> None:
    """However often a process ends after some requests, and however soon the next one starts."""

    async def run() -> list[Admission]:
        sent: list[Admission] = []
        for requests, pause in processes:
            before = [(now() - time, tokens) for time, tokens in sent if now() - time < 60]
            limiter = Limiter(rpm=rpm, tpm=MANY, before=before)
            for _ in range(requests):
                await limiter.acquire(1)
                sent.append((now(), 1))
            await asyncio.sleep(pause)
        return sent

    sent = virtually(run())
    assert fullest(sent, 1)[0] <= max(1, rpm // 60)
    assert fullest(sent, 60)[0] <= rpm


async def test_tokens_are_counted_as_well(tmp_path: Path) -> None:
    """A minute's tokens that were sent by the process before delay a large request of the next."""
    limiter = Limiter(rpm=MANY, tpm=60_000, before=[(30.0, 40_000)])
    began = now()
    limiter.settle(await limiter.acquire(1), 1)
    await limiter.acquire(30_000)
    assert now() - began == pytest.approx(30, abs=1)


async def test_the_use_of_a_quota_is_told_over_the_time_in_which_it_was_used() -> None:
    """Also where this process has sent little, or nothing: twenty in half a minute are two thirds of 60 a minute."""
    limiter = Limiter(rpm=60, tpm=MANY, before=[(30.0 + ago / 10, 1) for ago in range(20)])
    assert limiter.stats().requests_used == pytest.approx(20 / 32, abs=0.01)
    await limiter.acquire(1)
    assert limiter.stats().requests_used == pytest.approx(21 / 32, abs=0.01)
    await asyncio.sleep(32)
    assert limiter.stats().requests_used == pytest.approx(1 / 60, abs=0.001)


async def test_a_job_run_again_keeps_to_the_minute(tmp_path: Path) -> None:
    """At 6 requests a minute a job that is stopped every 25 seconds sends 6 in any minute all the same."""
    async with world(tmp_path, queries=24, candidates=4, sections={"rate": {"rpm": 6}}) as w:
        code = 75
        while code != 0:
            running = Run(w.job())
            timer = asyncio.get_running_loop().call_later(
                25, running.stop, InterruptedRunError("stopped by the test", signal.SIGINT)
            )
            code = (await running.execute()).exit_code
            timer.cancel()
        assert w.emulator.counts.most_in(60) <= 6
        assert w.emulator.requests >= 24


async def test_departures_survive_in_the_ledger(tmp_path: Path) -> None:
    """What was noted with the sending of a request is known to the next process, as a second younger, for a minute."""

    async def known(ledger: Ledger) -> list[tuple[float, int, str]]:
        return [(round(ago, 1), tokens, key) for ago, tokens, key in await Departures(ledger).load()]

    ledger = Ledger(tmp_path / "ledger.sqlite")
    kept = Departures(ledger)
    assert await kept.load() == []
    for key, tokens in ((b"1" * 16, 500), (b"2" * 16, 700)):
        kept.note(tokens, "KEY_A")
        await ledger.sent(key, 400, 10)
        await asyncio.sleep(2)
    ledger.close()
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert await known(ledger) == [(3, 500, "KEY_A"), (1, 700, "KEY_A")]
    await asyncio.sleep(58)
    assert await known(ledger) == [(59, 700, "KEY_A")]
    ledger.close()


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
async def test_a_clock_that_jumped_stalls_nothing(
    tmp_path: Path, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times in the future, or older than a minute, are ignored."""
    ledger = Ledger(tmp_path / "ledger.sqlite")
    kept = Departures(ledger)
    await kept.load()
    kept.note(500)
    await ledger.sent(b"0" * 16, 400, 10)
    known = state.wall()
    monkeypatch.setattr(state, "wall", lambda: known + jump)
    assert await Departures(ledger).load() == []
    ledger.close()
