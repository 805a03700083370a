"""``batchrank status --follow``: until the run ends, with its exit code."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from jobs import rows, write_jsonl
from rich.table import Table
from test_cli import batchrank, job_file

from batchrank.cli import status as module
from batchrank.cli.status import follow_run
from batchrank.observe.facts import Status


def write(folder: Path, **changes: Any) -> None:
    data = {
        "state": "running", "name": "n", "pid": os.getpid(), "host": socket.gethostname(),
        "started": "2026-01-01T00:00:00+00:00", "updated": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    (folder / "status.json").write_bytes(orjson.dumps(data | changes))


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ({"state": "complete", "exit_code": 3}, 3),
        ({"state": "stopped", "exit_code": 75}, 75),
        ({"pid": 2**22 + 1}, 1),  # gone without a word: no such process
    ],
)
def test_it_ends_with_the_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    end: dict[str, Any],
    code: int,
) -> None:
    """A line now, and one at the end; what is killed has no code of its own, which is a failure."""
    monkeypatch.setattr(module, "_EVERY", 0)
    write(tmp_path)

    def line(status: Status) -> str:
        if status.state == "running":
            write(tmp_path, updated="2026-01-01T00:00:01+00:00", **end)
        return status.state

    assert follow_run(tmp_path, lambda status: Table(), line, as_json=False) == code
    assert capsys.readouterr().out.split() == ["running", end.get("state", "killed")]


def test_a_run_that_has_ended_is_told_at_once(tmp_path: Path) -> None:
    """As a line, as JSON, or not at all where there is none."""
    write_jsonl(tmp_path / "in.jsonl", rows(2, 5))
    assert batchrank("run", job_file(tmp_path), cwd=tmp_path).returncode == 0
    done = batchrank("status", "job.yaml", "--follow", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith(b"state complete, exit code 0")
    (told,) = batchrank("status", "out", "-f", "--json", cwd=tmp_path).stdout.splitlines()
    assert json.loads(told)["exit_code"] == 0
    write(tmp_path / "out", state="failed", exit_code=5)
    assert batchrank("status", "out", "-f", cwd=tmp_path).returncode == 5
    assert batchrank("status", "nowhere", "-f", cwd=tmp_path).returncode == 4


@pytest.mark.slow
def test_a_real_run_is_followed_to_its_end(tmp_path: Path) -> None:
    """Two processes, of which one only looks."""
    write_jsonl(tmp_path / "in.jsonl", rows(30, 30))
    job_file(tmp_path, rate={"rpm": 2400})
    running = subprocess.Popen([sys.executable, "-m", "batchrank", "run", "job.yaml", "-q"], cwd=tmp_path)
    while not (tmp_path / "out" / "status.json").exists():
        assert running.poll() is None
    done = batchrank("status", "out", "--follow", "--json", cwd=tmp_path)
    assert running.wait() == done.returncode == 0
    states = [json.loads(line)["state"] for line in done.stdout.splitlines()]
    assert states[0] == "running" and states[-1] == "complete" and len(states) > 1
