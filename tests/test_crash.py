"""SIGKILL at random moments and at each commit, rename and fsync: nothing is lost, paid twice or half written."""

from pathlib import Path

import pytest
from crash_harness import crash

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
