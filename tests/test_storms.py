"""After a storm: while the API fails altogether little is sent, and once it is well a small job ends within seconds."""

import asyncio
from pathlib import Path

import pytest
from against import world
from aiohttp import web

pytestmark = pytest.mark.anyio
QUERIES, WELL, SOON = 40, 1.0, 15.0
MINUTES = ["429-requests", "silence"]
CALLS = QUERIES * 10
"""More requests than the job needs; in a storm no more than that again is sent."""


async def weather(folder: Path, kind: str, seconds: float) -> tuple[int, float, int]:
    """A job that meets a storm after a second: its exit code, seconds from the storm's end to its own, requests."""
    loop, switches = asyncio.get_running_loop(), dict[str, float]()
    async with world(folder, queries=QUERIES, faults=switches, fault_limit=0) as w:
        job = w.job(retry={"outage": 1000}, endpoint={"timeout": 30})
        running = asyncio.create_task(w.run(job))
        await asyncio.sleep(WELL)
        switches[kind] = 1.0
        await asyncio.sleep(seconds)
        switches.clear()
        ended = loop.time()
        report = await running
        assert report.data["totals"]["queries"] == QUERIES or report.exit_code
        return report.exit_code, loop.time() - ended, w.emulator.requests


@pytest.mark.parametrize("kind", MINUTES)
async def test_a_job_ends_soon_after_a_storm(tmp_path: Path, kind: str) -> None:
    """Of whatever kind: all its queries are ranked 15 seconds after a minute's storm."""
    code, took, requests = await weather(tmp_path, kind, 60)
    assert code == 0 and took <= SOON and requests < 2 * CALLS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        (kind, seconds)
        for kind in (
            *MINUTES,
            "503",
            "504",
            "503+after-seconds",
            "429-growth",
            "429+after-seconds",
            "reset-before-headers",
        )
        for seconds in (60, 150, 300)
        if kind not in MINUTES or seconds > 60
    ],
)
async def test_a_job_ends_soon_after_a_long_storm(tmp_path: Path, kind: str, seconds: float) -> None:
    """However long the storm was, and whether the API said when to come back or not."""
    code, took, requests = await weather(tmp_path, kind, seconds)
    assert code == 0 and took <= SOON and requests < 3 * CALLS


@pytest.mark.slow
async def test_a_job_ends_soon_after_a_server_that_was_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused connections for a minute cost nothing, and the job ends soon after the server is back."""
    runners: list[web.AppRunner] = []

    class Runner(web.AppRunner):
        async def setup(self) -> None:
            runners.append(self)
            await super().setup()

    monkeypatch.setattr(web, "AppRunner", Runner)
    async with world(tmp_path, queries=QUERIES) as w:
        running = asyncio.create_task(w.run(w.job(retry={"outage": 1000})))
        await asyncio.sleep(WELL)
        host, port = runners[0].addresses[0][:2]
        for site in [*runners[0].sites]:
            await site.stop()
        await asyncio.sleep(60)
        began = asyncio.get_running_loop().time()
        await web.TCPSite(runners[0], host, port).start()
        assert (await running).exit_code == 0
        assert asyncio.get_running_loop().time() - began <= SOON
