"""A job as others see it while it runs, and after."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
from jobs import make_job, rows, write_jsonl
from prometheus_client.parser import text_string_to_metric_families
from test_cli import batchrank, job_file

from batchrank.errors import InputError
from batchrank.observe.facts import read_status
from batchrank.observe.observer import Observer
from batchrank.pipeline.run import Run

KEY = "sk-observe-0123456789"


def samples(text: str) -> dict[str, float]:
    return {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.real_clock
async def test_a_running_job_can_be_watched(tmp_path: Path) -> None:
    """Status file, metrics file and port agree while it runs; the port is free afterwards."""
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(16, 30)), rate={"rpm": 1800})
    run = Run(job)
    with Observer(run, port=0) as observer:
        async with anyio.create_task_group() as group:
            group.start_soon(observer.watch)

            async def ask() -> None:
                while not (tmp_path / "out" / "status.json").exists():  # noqa: ASYNC110 a file tells
                    await anyio.sleep(0.05)
                status = read_status(tmp_path / "out")
                assert (status.state, status.pid, status.exit_code) == ("running", os.getpid(), None)
                assert status.progress is not None and status.progress["requests"] > 0
                url = f"http://127.0.0.1:{observer.port}/metrics"
                page = await anyio.to_thread.run_sync(lambda: urllib.request.urlopen(url).read().decode())
                assert samples(page)["batchrank_running"] == 1
                assert samples(page)["batchrank_requests_total"] >= status.progress["requests"]
                file = (tmp_path / "out" / "metrics.prom").read_text()
                assert samples(file)["batchrank_progress_ratio"] <= 1

            group.start_soon(ask)
            report = await run.execute()
            group.cancel_scope.cancel()
        observer.ended(report)
    status = read_status(tmp_path / "out")
    assert (status.state, status.exit_code) == ("complete", 0)
    found = samples((tmp_path / "out" / "metrics.prom").read_text())
    assert (found["batchrank_running"], found["batchrank_exit_code"]) == (0, 0)
    assert found["batchrank_queries_total"] in (0, 16)
    assert found["batchrank_request_seconds_count"] == sum(
        report.data["process"]["timeline"]["latency"]["counts"]
    )


@pytest.mark.slow
def test_the_timeline_is_in_the_summary_and_changes_no_ranking(tmp_path: Path) -> None:
    """Throughput, quota use, latency, fill and the slowest queries; the key is nowhere."""
    write_jsonl(tmp_path / "in.jsonl", rows(6, 34))
    job_file(tmp_path, output={"path": "out", "format": "jsonl"})
    assert batchrank("run", "job.yaml", cwd=tmp_path, DASHSCOPE_API_KEY=KEY).returncode == 0
    summary = orjson.loads((tmp_path / "out" / "summary.json").read_bytes())
    timeline = summary["process"]["timeline"]
    assert sum(timeline["series"]["sent"]) == summary["process"]["requests"]
    assert sum(timeline["series"]["documents"]) == summary["totals"]["sent"]
    assert {entry["query_id"] for entry in timeline["slowest"]} == {f"q{i}" for i in range(6)}
    assert timeline["fill"][-1] > 0
    for path in (tmp_path / "out").iterdir():
        assert KEY.encode() not in path.read_bytes()
    first = {p.name: p.read_bytes() for p in (tmp_path / "out").glob("ranking-*")}
    assert batchrank("run", "job.yaml", "--fresh", cwd=tmp_path).returncode == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").glob("ranking-*")} == first


@pytest.mark.slow
def test_status_of_a_job_that_ended(tmp_path: Path) -> None:
    """By its folder or its job file; for people or as JSON."""
    write_jsonl(tmp_path / "in.jsonl", rows(3, 5))
    assert batchrank("run", job_file(tmp_path, budget={"max_cost": 5}), cwd=tmp_path).returncode == 0
    shown = batchrank("status", "job.yaml", cwd=tmp_path).stdout.decode()
    assert "complete, exit code 0" in shown and "3 ranked" in shown and "of 5 allowed" in shown
    data = json.loads(batchrank("status", "out", "--json", cwd=tmp_path).stdout)
    assert data["progress"]["queries"] == 3
    none = batchrank("status", "nowhere", cwd=tmp_path)
    assert none.returncode == InputError.exit_code and b"name the output folder" in none.stderr


@pytest.mark.slow
def test_status_of_a_job_that_was_killed(tmp_path: Path) -> None:
    """Its process is gone: the status says so, and what to do; the next run takes over."""
    write_jsonl(tmp_path / "in.jsonl", rows(400, 30))
    job_file(tmp_path, rate={"rpm": 1200})
    running = subprocess.Popen(
        [sys.executable, "-m", "batchrank", "run", "job.yaml", "--quiet"], cwd=tmp_path
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "status.json").exists() and time.monotonic() < deadline:
        assert running.poll() is None
        time.sleep(0.05)  # another process: nothing else tells
    assert b"running" in batchrank("status", "out", cwd=tmp_path).stdout
    running.kill()
    running.wait()
    shown = batchrank("status", "out", cwd=tmp_path).stdout
    assert b"killed" in shown and b"run the job again" in shown


def test_status_tells_how_many_processes_rank(tmp_path: Path) -> None:
    """And on how many machines, where those are several; a run that has ended has none."""
    write_jsonl(tmp_path / "in.jsonl", rows(2, 12))
    job_file(tmp_path)
    assert batchrank("run", "job.yaml", cwd=tmp_path).returncode == 0
    path = tmp_path / "out" / "status.json"
    data = orjson.loads(path.read_bytes())
    assert b"processes" not in batchrank("status", "out", cwd=tmp_path).stdout
    data |= {"state": "running", "pid": os.getpid(), "exit_code": None}
    for rankers, machines, told in (
        (1, 1, b"1 ranks\n"),
        (4, 1, b"4 rank\n"),
        (8, 3, b"8 rank, on 3 machines\n"),
    ):
        data["progress"] |= {"rankers": rankers, "machines": machines}
        path.write_bytes(orjson.dumps(data))
        lines = batchrank("status", "out", cwd=tmp_path).stdout.splitlines(keepends=True)
        assert [b" ".join(line.split()) + b"\n" for line in lines if b"processes" in line] == [
            b"processes " + told
        ]


def test_status_of_another_machine_is_judged_by_its_silence(tmp_path: Path) -> None:
    """A process number means nothing there."""
    data: dict[str, Any] = {
        "state": "running", "name": "n", "pid": 1, "host": socket.gethostname() + "-not",
        "started": "2020-01-01T00:00:00+00:00", "updated": "2020-01-01T00:00:00+00:00",
    }  # fmt: skip
    (tmp_path / "status.json").write_bytes(orjson.dumps(data))
    assert read_status(tmp_path).state == "killed"
    (tmp_path / "status.json").write_bytes(b"{")
    with pytest.raises(InputError, match="can't be read"):
        read_status(tmp_path)


@pytest.mark.parametrize("fails", [False, True])
def test_json_logs_are_nothing_but_json(tmp_path: Path, fails: bool) -> None:
    """One object a line, errors included; the last says what came of it."""
    write_jsonl(tmp_path / "in.jsonl", rows(3, 25))
    job_file(tmp_path, **({"endpoint": {}} if fails else {}))
    done = batchrank("run", "job.yaml", "--log-format", "json", cwd=tmp_path)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"event", "level", "timestamp"} <= set(lines[-1])
    assert done.stdout == b""
    if fails:
        assert done.returncode == 2
        assert "DASHSCOPE_API_KEY" in lines[-1]["error"] and lines[-1]["level"] == "error"
    else:
        assert (lines[-1]["event"], lines[-1]["exit_code"]) == ("ended", 0)
        assert lines[-1]["totals"]["queries"] == 3


@pytest.mark.slow
def test_an_interrupted_job_says_so(tmp_path: Path) -> None:
    """Status stopped, with the exit code of the signal."""
    write_jsonl(tmp_path / "in.jsonl", rows(400, 30))
    job_file(tmp_path, rate={"rpm": 1200})
    running = subprocess.Popen(
        [sys.executable, "-m", "batchrank", "run", "job.yaml", "--log-format", "json"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "status.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)  # another process: nothing else tells
    running.send_signal(signal.SIGTERM)
    _, stderr = running.communicate(timeout=60)
    status = read_status(tmp_path / "out")
    assert (running.returncode, status.state, status.exit_code) == (143, "stopped", 143)
    assert all(json.loads(line) for line in stderr.splitlines())


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    """Before anything is spent."""
    write_jsonl(tmp_path / "in.jsonl", rows(1, 3))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = batchrank("run", job_file(tmp_path), "--metrics-port", port, cwd=tmp_path)
    assert done.returncode == 2 and b"--metrics-port" in done.stderr
