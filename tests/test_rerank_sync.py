"""``rerank_sync``: the same rankings without ``async``, also from within an event loop that runs."""

import os
import pty
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from jobs import rows

import batchrank
from batchrank import Endpoint, Failure, Job, JobError, LedgerError, Limits, QueryError, Rate

JOB = Job(
    model="qwen3-rerank", endpoint=Endpoint(url="emulator"), limits=Limits(documents=10), tokenizer="bytes",
    rate=Rate(rpm=10**6),
)  # fmt: skip
ROOT = str(Path(__file__).parent.parent)


def test_it_returns_all_rankings_in_order() -> None:
    """From code without an event loop, of anything that ``rerank`` takes."""
    found = batchrank.rerank_sync(rows(5, 12), JOB)
    assert [(r.query_id, len(r)) for r in found] == [(f"q{i}", 12) for i in range(5)]
    assert batchrank.rerank_sync([], JOB) == []


@pytest.mark.anyio
@pytest.mark.real_clock
async def test_it_works_inside_a_running_event_loop() -> None:
    """As a notebook's cell runs in one; the rankings are those of ``rerank``, and no thread is left behind."""
    before = set(threading.enumerate())
    found = batchrank.rerank_sync(iter(rows(3, 12)), JOB)
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()
    expected = [list(r.doc_ids) async for r in batchrank.rerank(rows(3, 12), JOB)]
    assert [list(r.doc_ids) for r in found] == expected


def test_errors_come_out_bare(tmp_path: Path) -> None:
    """A failed query, a job that is none, a ledger that can't be used; with ``on_failure`` the rest goes on."""
    bad = {"query_id": "bad", "query": "", "candidates": ["x"]}
    with pytest.raises(QueryError, match="'bad'"):
        batchrank.rerank_sync([bad], JOB)
    heard: list[Failure] = []
    assert len(batchrank.rerank_sync([bad, *rows(2, 3)], JOB, on_failure=heard.append)) == 2
    assert [failure.cause for failure in heard] == ["empty-query"]
    with pytest.raises(JobError, match="make a batchrank"):
        batchrank.rerank_sync(rows(1, 3), {"model": "qwen3-rerank"})  # type: ignore[arg-type]
    (tmp_path / "ledger.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(LedgerError, match="damaged"):
        batchrank.rerank_sync(rows(1, 3), JOB.model_copy(update={"ledger": str(tmp_path / "ledger.sqlite")}))


def test_columns_are_named_as_for_rerank() -> None:
    """And a frame is taken as it is."""
    import pandas

    frame = pandas.DataFrame({"n": ["q"] * 2, "ask": ["copy"] * 2, "key": ["a", "b"], "body": ["one", "two"]})
    columns = {"query_id": "n", "query": "ask", "doc_id": "key", "text": "body"}
    (ranking,) = batchrank.rerank_sync(frame, JOB, columns=columns)
    assert sorted(ranking.doc_ids) == ["a", "b"]


PROGRAM = """
import sys, batchrank
job = batchrank.Job(model="qwen3-rerank", endpoint=batchrank.Endpoint(url="emulator"), tokenizer="bytes")
rows = [{"query_id": i, "query": "a", "candidates": ["a", "b"]} for i in range(4)]
print(len(batchrank.rerank_sync(rows, job, progress=PROGRESS)))
"""


def seen_on_a_terminal(program: str) -> bytes:
    """What a program writes to its standard error where that is a terminal."""
    leader, follower = pty.openpty()
    environ = {**os.environ, "PYTHONPATH": ROOT, "TERM": "xterm"}
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=follower, env=environ, check=True
    )
    os.close(follower)
    seen = b""
    try:
        while data := os.read(leader, 65_536):
            seen += data
    except OSError:  # how Linux tells the end of a terminal
        pass
    os.close(leader)
    assert done.stdout == b"4\n"
    return seen


@pytest.mark.slow
def test_a_terminal_shows_a_progress_bar() -> None:
    """Unless it is told not to; elsewhere there is none, so that logs stay clean."""
    assert b"4/4" in seen_on_a_terminal(PROGRAM.replace("PROGRESS", "None"))
    assert seen_on_a_terminal(PROGRAM.replace("PROGRESS", "False")) == b""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("PROGRESS", "None")],
        capture_output=True, check=True, env={**os.environ, "PYTHONPATH": ROOT},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (b"4\n", b"")


@pytest.mark.slow
def test_an_interrupt_ends_the_run() -> None:
    """Ctrl-C, as a notebook's stop button sends it: KeyboardInterrupt, and the program ends."""
    program = textwrap.dedent("""
        import sys, time, batchrank
        job = batchrank.Job(model="qwen3-rerank", endpoint=batchrank.Endpoint(url="emulator"), tokenizer="bytes")
        def endless():
            number = 0
            while True:
                if number == 20:
                    print("under way", flush=True)
                yield {"query_id": number, "query": "a", "candidates": ["a", "b"]}
                number += 1
        try:
            batchrank.rerank_sync(endless(), job)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """)
    environ: dict[str, Any] = {**os.environ, "PYTHONPATH": ROOT}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"under way\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"interrupted\n"
        assert process.wait(20) == 0
