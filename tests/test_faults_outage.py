"""When the API is gone, or worth nothing: the run waits or stops, to go on later, and no query is given up for it."""

import re
from pathlib import Path

import pytest
from against import world
from jobs import rankings

pytestmark = pytest.mark.anyio


async def test_an_outage_ends_the_run_and_kills_no_query(tmp_path: Path) -> None:
    """The API is gone: exit 75 after retry.outage, no dead letters; once it is back the run goes on."""
    switches: dict[str, float] = {}
    async with world(tmp_path, queries=6, candidates=24, faults=switches, fault_limit=0) as w:
        job = w.job(retry={"outage": 120})
        switches["503"] = 1.0
        report = await w.run(job)
        assert report.exit_code == 75
        quiet = re.search(r"no request has succeeded for (\d+) s", str(report.reason))
        assert (
            quiet and 120 <= int(quiet[1]) <= 120 + 60
        )  # found out at the end of a pause, of a minute at most
        assert report.data["totals"]["failed"] == 0
        switches.clear()
        assert (await w.run(job)).exit_code == 0
        assert len(rankings(job)) == 6


async def test_a_short_outage_is_waited_out(tmp_path: Path) -> None:
    """A minute without the API costs a minute, not queries."""
    script = dict.fromkeys(range(20, 90), "503")
    async with world(tmp_path, queries=10, script=script) as w:
        report = await w.run(w.job())
        assert (report.exit_code, report.data["totals"]["failed"]) == (0, 0)


async def test_an_unreachable_server_is_an_outage(tmp_path: Path) -> None:
    """Nobody listens: nothing was sent, nothing is billed, exit 75."""
    async with world(tmp_path) as w:
        job = w.job(endpoint={"url": "http://127.0.0.1:9/compatible-api/v1/reranks"}, retry={"outage": 60})
        report = await w.run(job)
        assert report.exit_code == 75
        assert "Check endpoint.url and the network" in str(report.reason)
        assert (report.data["spend"]["tokens"], report.data["totals"]["failed"]) == (0, 0)


async def test_answers_that_are_useless_from_the_start_stop_the_run(tmp_path: Path) -> None:
    """A wrong wire or route: a few requests tell, the run ends with the server's words, and again on a rerun."""
    async with world(tmp_path, queries=60, faults={"html-200": 1.0}, fault_limit=0) as w:
        job = w.job(retry={"outage": 10**6})
        for most in (7, 14):
            report = await w.run(job)
            assert report.exit_code == 1
            assert "has taken no request so far" in str(report.reason)
            assert "endpoint.wire" in str(report.reason)
            assert w.emulator.requests <= most


async def test_a_server_that_loses_many_paid_answers_ends_the_run(tmp_path: Path) -> None:
    """When every other answer is unusable, retrying them would double the bill: exit 75, after a while."""
    async with world(tmp_path, queries=600, candidates=8, faults={"html-200": 0.5}, fault_limit=0) as w:
        report = await w.run(w.job())
        assert report.exit_code == 75
        assert "too many answers are lost for the number that arrive" in str(report.reason)
        assert w.emulator.requests < 2_000
