"""``on``: who is told of a run's end, with what, and that nothing of it changes the end."""

import json
import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from against import KEY, world
from jobs import make_job, outputs, rows, write_jsonl
from test_cli import batchrank, job_file
from test_gate import reversed_texts
from test_stop import start, until

from batchrank.errors import JobError
from batchrank.job.config import Job
from batchrank.job.load import load_job
from batchrank.launch import run
from batchrank.pipeline import hooks

NOTE = """
import json, os, sys
data = json.load(sys.stdin)
told = {k: v for k, v in os.environ.items() if k.startswith("BATCHRANK_RUN_") or "KEY" in k}
with open("told.jsonl", "a") as file:
    print(json.dumps([data["event"], data["exit_code"], data["complete"], data["reason"], told]), file=file)
"""
"""Notes what it was told."""


def command(folder: Path) -> list[str]:
    (folder / "note.py").write_text(NOTE)
    return [sys.executable, "note.py"]


def told(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]


def test_each_end_has_its_event(tmp_path: Path) -> None:
    """Complete, past the gate, cut short by a cap, and a job that could not even begin; each with its own exit code."""
    hook = command(tmp_path)
    on = dict.fromkeys(("complete", "failed", "gate"), hook)
    environ: Any = {"DASHSCOPE_API_KEY": KEY, "ANOTHER_KEY": KEY}
    write_jsonl(tmp_path / "in.jsonl", rows(3, 25))
    job = job_file(tmp_path, on=on, gate={"min_rbo": 0.95})
    assert batchrank("run", job, cwd=tmp_path, **environ).returncode == 0
    write_jsonl(tmp_path / "in.jsonl", reversed_texts(rows(3, 25)))
    assert batchrank("run", job, cwd=tmp_path, **environ).returncode == 5
    write_jsonl(tmp_path / "in.jsonl", rows(4, 25))
    assert batchrank("run", job, "--set", "budget.max_tokens=1", cwd=tmp_path, **environ).returncode == 1
    assert batchrank("run", job, "--set", "input.path=none", cwd=tmp_path, **environ).returncode == 4
    complete, gate, cut, unable = told(tmp_path)
    assert complete[:4] == ["complete", 0, True, None]
    assert gate[:4] == ["gate", 5, True, None]
    assert cut[:3] == ["failed", 1, False] and "budget.max_tokens" in cut[3]
    assert unable[:3] == ["failed", 4, False] and "none" in unable[3]
    assert [one[4]["BATCHRANK_RUN_EXIT_CODE"] for one in told(tmp_path)] == ["0", "5", "1", "4"]
    assert complete[4] == {
        "BATCHRANK_RUN_EVENT": "complete",
        "BATCHRANK_RUN_JOB": "job",
        "BATCHRANK_RUN_EXIT_CODE": "0",
        "BATCHRANK_RUN_FOLDER": str(tmp_path / "out"),
        "BATCHRANK_RUN_REASON": "",
    } | {"ANOTHER_KEY": KEY}  # the emulator needs no key, so nobody knows that this is one


def test_some_failed_queries_are_complete_and_no_hook_is_none(tmp_path: Path) -> None:
    """Code 3 is the scheduler's affair; an event without a hook tells nobody."""
    write_jsonl(tmp_path / "in.jsonl", [*rows(2, 5), {**rows(3, 5)[2], "query": ""}])
    job = job_file(tmp_path, on={"complete": command(tmp_path)})
    assert batchrank("run", job, cwd=tmp_path).returncode == 3
    assert batchrank("run", job, "--set", "input.path=none", cwd=tmp_path).returncode == 4
    assert [one[:2] for one in told(tmp_path)] == [["complete", 3]]


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (
            "echo one; echo two >&2; exit 7",
            [b"on.complete: one", b"on.complete: two", b"ended with exit code 7"],
        ),
        ("kill -9 $$", [b"ended with signal SIGKILL"]),
        (["no-such-program"], [b"the command can't be run: No such file"]),
        ("http://127.0.0.1:9/secret-path", [b"127.0.0.1 can't be reached"]),
        ("cat; printf '\\033[31mred\\377'", [b'"exit_code": 0', b"\\x1b[31mred"]),
        ("seq 100000", [b"on.complete: 1\n", b"the rest of its output is left out"]),
    ],
)
def test_what_becomes_of_a_hook_is_logged_and_changes_nothing(
    tmp_path: Path, hook: str | list[str], said: list[bytes]
) -> None:
    """Its output line by line, its failure in a line; the run's exit code and output stay."""
    write_jsonl(tmp_path / "in.jsonl", rows(2, 5))
    done = batchrank("run", job_file(tmp_path, on={"complete": hook}), cwd=tmp_path)
    assert done.returncode == 0 and all(text in done.stderr for text in said), done.stderr
    assert b"secret-path" not in done.stderr and b"Traceback" not in done.stderr
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["exit_code"] == 0


def test_a_hook_can_use_what_the_run_used(tmp_path: Path) -> None:
    """Its variables are no keys of a job, and folder and ledger are free by then."""
    write_jsonl(tmp_path / "in.jsonl", rows(2, 5))
    again = f"{sys.executable} -m batchrank run job.yaml --set on.complete=null -q && "
    again += f"{sys.executable} -m batchrank runs $BATCHRANK_RUN_FOLDER --json | grep -c exit_code"
    done = batchrank("run", job_file(tmp_path, on={"complete": again}), cwd=tmp_path)
    assert b"on.complete: 2\n" in done.stderr and b"ERROR" not in done.stderr, done.stderr


def a_job(folder: Path, **on: Any) -> Job:
    return make_job(folder, write_jsonl(folder / "in.jsonl", rows(1, 3)), on=on)


def test_a_command_that_takes_too_long_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With all that it started, whose output is kept; what it leaves in the background is not waited for."""
    monkeypatch.setattr(hooks, "COMMAND_SECONDS", 0.3)
    job = a_job(tmp_path, failed=f"echo begun; sleep 60 & sleep 60; touch {tmp_path}/never")
    with caplog.at_level(logging.INFO, "batchrank"):
        hooks.tell(job, JobError("no"))
    assert "on.failed: begun" in caplog.text and "took longer than 0.3 s and was stopped" in caplog.text
    monkeypatch.setattr(hooks, "COMMAND_SECONDS", 30)
    caplog.clear()
    with caplog.at_level(logging.INFO, "batchrank"):
        hooks.tell(a_job(tmp_path, failed="sleep 60 & kill $!"), JobError("no"))
    assert not caplog.records


class Server(ThreadingHTTPServer):
    """Keeps what is posted to it; answers with a status of its own."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str | None, Any]] = []
        self.status = 204
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.received.append((self.path, self.headers["Content-Type"], body))
        self.send_response(self.server.status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.mark.anyio
@pytest.mark.real_clock
async def test_an_address_gets_the_summary(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """By POST, as JSON, from the library's run too; what it answers is not followed, and its address not told."""
    url = f"http://127.0.0.1:{server.server_port}/hook/s3cret-token-path?token=s3cret-token-query"
    path = write_jsonl(tmp_path / "in.jsonl", rows(2, 5))
    job = make_job(tmp_path, path, on={"complete": url})
    report = await run(job)
    ((where, kind, body),) = server.received
    assert where == "/hook/s3cret-token-path?token=s3cret-token-query" and kind == "application/json"
    assert (body["event"], body["exit_code"]) == ("complete", 0)
    assert body["totals"] == json.loads(json.dumps(report.data["totals"])) and not caplog.records
    for server.status in (500, 302):
        await run(job)
        assert f"127.0.0.1 answered {server.status}" in caplog.text
    assert len(server.received) == 3
    everything = (
        caplog.text + json.dumps(server.received[0][2]) + (tmp_path / "out" / "summary.json").read_text()
    )
    assert "s3cret" not in everything


@pytest.mark.anyio
async def test_whom_a_run_tells_is_no_matter_of_its_rankings(tmp_path: Path) -> None:
    """A hook that is added makes nothing anew."""
    path = write_jsonl(tmp_path / "in.jsonl", rows(2, 5))
    await run(make_job(tmp_path, path))
    before = outputs(make_job(tmp_path, path))
    report = await run(make_job(tmp_path, path, on={"failed": "true"}))
    assert not any("changed since" in notice for notice in report.data["notices"])
    assert outputs(make_job(tmp_path, path)) == before


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("yaml", "on:\n  complete: a b\n  gate: [a, b]\n"),
        ("toml", '[on]\ncomplete = "a b"\ngate = ["a", "b"]\n'),
    ],
)
def test_the_key_is_what_it_looks_like(tmp_path: Path, suffix: str, text: str) -> None:
    """YAML 1.1 takes ``on`` for true; environment and --set name it as any other."""
    path = tmp_path / f"job.{suffix}"
    base = {
        "yaml": "input: {path: a.jsonl}\nmodel: qwen3-rerank\noutput: {path: out}\n",
        "toml": 'model = "qwen3-rerank"\ninput.path = "a.jsonl"\noutput.path = "out"\n',
    }
    path.write_text(base[suffix] + text)
    job = load_job(path, overrides=["on.failed=c d"], environ={"BATCHRANK_ON__COMPLETE": "e f"})
    assert (job.on.complete, job.on.gate, job.on.failed) == ("e f", ("a", "b"), "c d")
    assert job.public()["on"] == dict.fromkeys(("complete", "gate", "failed"), "(not shown)")
    path.write_text(base[suffix] + text.replace("gate", "gaet"))
    with pytest.raises(JobError, match=rf"job.{suffix}, line \d+: on.gaet: unknown key; did you mean 'gate'"):
        load_job(path, environ={})


@pytest.mark.parametrize("hook", ["", "  ", [], [" ", "a"], "http://", "https://me:secret@host/x"])
def test_what_is_no_hook_is_refused(tmp_path: Path, hook: Any) -> None:
    """Before anything is spent; a password in an address isn't repeated."""
    with pytest.raises(JobError, match=r"on.failed") as raised:
        a_job(tmp_path, failed=hook)
    assert "secret" not in str(raised.value)


@pytest.mark.anyio
@pytest.mark.real_clock
@pytest.mark.slow
async def test_an_interrupted_run_tells_without_the_key(tmp_path: Path) -> None:
    """After the drain, with the signal's code; neither the key's variable nor another one that holds it is there."""
    async with world(tmp_path, queries=6, latency=0.1) as w:
        process = await start(tmp_path, w.emulator, on={"failed": command(tmp_path)})
        await until(lambda: w.emulator.requests > 10)
        process.terminate()
        _, errors = await process.communicate()
        assert process.returncode == 143, errors
    (one,) = told(tmp_path)
    assert one[:3] == ["failed", 143, False] and "SIGTERM" in one[3]
    assert KEY not in json.dumps(one) and "DASHSCOPE_API_KEY" not in one[4]
