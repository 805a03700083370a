"""Machines of a Ray cluster rank one run: two nodes on this machine, what dies, and where the key is."""

import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from against import KEY, World
from crash_harness import crash
from crash_ray import OnRay
from jobs import rows
from ray_nodes import Nodes
from test_cluster import crew_world, everything, ranked, reached

from batchrank.cluster.ray import RayProcess
from batchrank.errors import ExitCode, JobError
from batchrank.job.config import Job
from batchrank.job.running import Engine, Ray
from batchrank.launch import make_run
from batchrank.pipeline.deadline import Until
from batchrank.pipeline.report import Report
from batchrank.pipeline.run import Options

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_clock,
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


def on(job: Job, **settings: Any) -> Job:
    """A job on the cluster."""
    return job.model_copy(update={"engine": Engine(ray=Ray(**{"workers": 2, **settings}))})


async def run(job: Job, reports: list[Report]) -> None:
    """Run a job on the cluster."""
    reports.append(await make_run(on(job)).execute())


async def test_two_nodes_write_what_one_process_writes(tmp_path: Path, cluster: Nodes) -> None:
    """The same bytes, the same dead letters, nothing in common with the nodes but a connection."""
    data = rows(40, 34)
    data[7]["query"] = ""
    async with crew_world(tmp_path, data=data) as w:
        one, several = w.job("one"), w.job("several")
        await ranked(one, 1)
        reports: list[Report] = []
        await run(several, reports)
        assert reports[0].exit_code == 3
        assert everything(one) == everything(several)
        assert set(w.emulator.counts.billed.values()) == {2}
        assert not list((tmp_path / "several").glob(".*.tmp"))


@pytest.mark.parametrize("workers", [4, "auto"])
async def test_those_without_room_hold_nothing_up(tmp_path: Path, cluster: Nodes, workers: Any) -> None:
    """Two of four have no place in the cluster: the run ends without them; ``auto`` begins with one a node."""
    async with crew_world(tmp_path) as w:
        one, several = w.job("one"), w.job("several")
        await ranked(one, 1)
        with anyio.fail_after(60):
            assert (await make_run(on(several, workers=workers)).execute()).exit_code == 0
        assert everything(one) == everything(several)
        assert not cluster.actors()


async def test_an_actor_and_a_node_that_die_lose_nothing(tmp_path: Path, cluster: Nodes) -> None:
    """An actor is killed, then a whole node: the rest goes on, each request is paid once."""
    async with crew_world(tmp_path, queries=150, latency=0.05) as w:
        one, several = w.job("one"), w.job("several")
        await ranked(one, 1)
        before = w.emulator.requests
        reports: list[Report] = []
        extra = cluster.add()
        async with anyio.create_task_group() as group:
            group.start_soon(run, several, reports)
            await reached(w, before + 100)
            os.kill(cluster.actors()[0], signal.SIGKILL)
            await reached(w, before + 250)
            await anyio.to_thread.run_sync(cluster.kill, extra)
        assert reports[0].exit_code == 0
        assert everything(one) == everything(several)
        assert set(w.emulator.counts.billed.values()) == {2}


async def test_actors_nodes_and_the_account_are_killed_at_any_moment(tmp_path: Path, cluster: Nodes) -> None:
    """A few kills of a small job, with faults on; the long version is ``benchmarks/crash.py --ray``."""
    figures = await crash(tmp_path, kills=6, make=partial(OnRay, nodes=cluster), queries=16, seed=5)
    assert sum(figures.kills.values()) >= 6


async def test_a_run_that_stops_leaves_no_traceback_in_rays_logs(tmp_path: Path, cluster: Nodes) -> None:
    """Those who rank give up what they have at hand; that is no fault of theirs."""
    async with crew_world(tmp_path, queries=400) as w:
        job = on(w.job("out", rate={"rpm": 1_500, "tpm": 10**12}, limits={"documents": 10}))
        report = await make_run(job, Options(until=Until(time.time() + 12, "06:00"))).execute()
        assert report.exit_code == ExitCode.STOPPED and "--until 06:00" in str(report.reason)
        assert not traces(cluster.session / "logs")


def traces(logs: Path) -> str:
    """What the processes of a cluster's actors say on their standard error of faults in batchrank."""
    said = "".join(path.read_text() for path in logs.glob("worker-*.err"))
    return said if "Traceback" in said and "batchrank" in said else ""


async def test_asking_ray_how_one_died_holds_nobody_up(cluster: Nodes) -> None:
    """It takes seconds where a machine is lost; meanwhile the account sends, and hears who else is there."""
    import ray

    class Silent:
        def wait(self) -> None:
            time.sleep(60)

    ray.init(address=cluster.address, log_to_driver=False)
    try:
        process, turns = RayProcess(ray.remote(Silent).remote().wait.remote()), 0
        async with anyio.create_task_group() as group:

            async def live() -> None:
                nonlocal turns
                while True:
                    await anyio.sleep(0.1)
                    turns += 1

            group.start_soon(live)
            assert await process.fate() == "it no longer answers"
            group.cancel_scope.cancel()
        assert turns > 5
    finally:
        ray.shutdown()


async def test_the_key_is_in_no_file_of_rays(
    tmp_path: Path, cluster: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in its session's folder, not in what it tells of actors, not in the ledger or the output."""
    monkeypatch.setenv("DASHSCOPE_API_KEY", KEY)
    async with crew_world(tmp_path) as w:
        job = w.job("out", endpoint={"api_key_file": None, "headers": {"X-Team": "team-secret-4711"}})
        reports: list[Report] = []
        await run(job, reports)
        assert reports[0].exit_code == 0
        _nowhere(w, cluster.session)


def _nowhere(w: World, session: Path) -> None:
    (w.folder / "key").unlink()
    for folder in (session, w.folder):
        found = subprocess.run(
            ["grep", "-rlaE", f"{KEY}|team-secret-4711", "--exclude=out.yaml", str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert found.stdout == ""


async def test_a_cluster_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Before anything is asked."""
    async with crew_world(tmp_path) as w:
        for address, said in (("ray://head:10001", "ray job submit"), ("127.0.0.1:1", "ray start")):
            with pytest.raises(JobError, match=said):
                await make_run(on(w.job("out"), address=address)).execute()
        assert w.emulator.requests == 0
