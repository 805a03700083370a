"""SIGKILL at random moments and at each commit, rename and fsync: nothing is lost, paid twice or half written."""

from itertools import count
from pathlib import Path

import pytest
from crash_damage import harm
from crash_harness import crash
from crash_nights import Nights, emulator

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


@pytest.mark.slow
async def test_killed_jobs_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """A few kills of a small job, with faults on; the long version is benchmarks/crash.py."""
    figures = await crash(tmp_path, kills=3, queries=12, seed=1)
    assert sum(figures.kills.values()) == 3


@pytest.mark.slow
async def test_a_job_of_hundreds_of_requests_survives_many_kills(tmp_path: Path) -> None:
    """The same with a job of more than 300 requests."""
    figures = await crash(tmp_path, kills=10, queries=48, seed=2)
    assert figures.answers >= 300


@pytest.mark.slow
async def test_any_of_several_processes_may_be_killed(tmp_path: Path) -> None:
    """The account, those that rank, the reader: the same bytes, nothing acknowledged asked again."""
    figures = await crash(tmp_path, kills=8, queries=24, seed=4, processes=3)
    assert sum(figures.kills.values()) >= 8


@pytest.mark.slow
async def test_a_second_night_killed_anywhere_leaves_the_last_one_whole(tmp_path: Path) -> None:
    """Killed at random moments: last night's output stays readable, and in the end tonight's is as if uninterrupted."""
    async with emulator() as api:
        nights = Nights(tmp_path, api, queries=16, seed=3)
        await nights.prepare()
        happened = 0
        while happened < 5:
            happened += await nights.night([nights.choose() for _ in range(4)])
            nights.put_back()


@pytest.mark.slow
async def test_a_second_night_killed_at_every_step_of_its_end_is_finished(tmp_path: Path) -> None:
    """Before and after each rename and removal, of parts and of the switch: the next run finishes what was decided."""
    async with emulator() as api:
        nights = Nights(tmp_path, api, queries=8, seed=4)
        await nights.prepare()
        steps = 0
        for event in ("rename", "unlink"):
            for number in count(1):
                nights.put_back()
                if not await nights.night(
                    [(f"{event}:{'before' if number % 2 else 'after'}:{number}", None)]
                ):
                    break
                steps += 1
        assert steps > 8


@pytest.mark.slow
@pytest.mark.parametrize("how, count", [("damaged", 6), ("lost", 4), ("suspended", 2)])
async def test_harmed_jobs_end_with_the_same_output_or_stop(tmp_path: Path, how: str, count: int) -> None:
    """A bit flipped or a file lost after a kill, or a process suspended; the long version is benchmarks/crash.py."""
    found = await harm(tmp_path, how, count=count, queries=12, seed=5)
    assert found.total == count and not found.broken
