"""Bars on terminals: what they tell, what they leave behind, and that a pipe gets none."""

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import playground
import pyte
import pytest
from jobs import rows, write_jsonl
from rich.console import Console
from test_cli import batchrank, job_file

from batchrank import bars
from batchrank.bars import Bar, drawable, drawn, to_go, working
from batchrank.job.sections import Input
from batchrank.read.base import Gauge
from batchrank.read.reader import read

ROOT = Path(__file__).parent.parent
COMMAND = "import batchrank.bars as b; b._QUIET = 0; from batchrank.__main__ import main; main()"
"""The command line, with bars from the first moment."""


def on_a_terminal(
    folder: Path, *arguments: str, columns: int = 80, program: str = COMMAND, term: str = "xterm"
) -> tuple[bytes, bytes]:
    """What a program writes to stderr, a terminal, and to stdout, a pipe."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "DASHSCOPE_API_KEY")}
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=folder, stderr=follower, stdout=subprocess.PIPE,
        env={**environ, "PYTHONPATH": str(ROOT), "TERM": term},
    ) as process:  # fmt: skip
        os.close(follower)
        seen = b""
        try:
            while data := os.read(leader, 2**16):
                seen += data
        except OSError:  # nobody has the other end any more
            pass
        os.close(leader)
        assert process.stdout is not None
        out = process.stdout.read()
        assert process.wait() == 0, (seen, out)
    return seen, out


def screens(seen: bytes, columns: int = 80) -> list[list[str]]:
    """What stood on the terminal each time its title was set, and in the end: by another's terminal emulator."""
    screen = pyte.Screen(columns, 30)
    stream = pyte.ByteStream(screen)
    found: list[list[str]] = []
    for part in seen.split(b"\x1b]0;"):
        stream.feed(part if not found else b"\x1b]0;" + part)
        found.append([line.rstrip() for line in screen.display if line.strip()])
    return found


@pytest.mark.parametrize("columns", [30, 80, 200])
def test_bars_fit_the_terminal(columns: int) -> None:
    """Whatever its width; a text is cut before its bar is, and no bar is wider than tells anything."""
    console = Console(width=columns, force_terminal=True, file=io.StringIO(), color_system=None)
    text = "1,204 documents/s, about 3 min 10 s to go"
    shown = [Bar("queries", 0.42, text), Bar("cost", 0.12, "0.6021 of 5 CNY", thin=True), Bar("texts", None)]
    with console.capture() as capture:
        console.print(drawn(shown, ["a line below"]))
    lines = capture.get().splitlines()
    assert all(len(line) <= min(columns, 120) for line in lines)
    assert (
        " 42% " in lines[0] and lines[0].count("━") >= 2 and set("─╴") & set(lines[1]) and "%" not in lines[2]
    )
    assert ("3 min 10 s" in lines[0]) == (columns >= 80)


def test_the_rest_is_told_by_the_pace_so_far() -> None:
    """Not before anything is known of it: then the time that has passed is told."""
    assert to_go(0.25, 10) == "about 30.0 s to go"
    assert to_go(0.001, 10) == to_go(None, 10) == "10.0 s"


def test_short_work_draws_nothing_and_a_pipe_never_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar that flashes up would only distract."""
    console = Console(force_terminal=True, file=(file := io.StringIO()), width=80)
    with working(console, lambda: Bar("reading", 0.5)):
        pass
    assert "reading" not in file.getvalue()
    monkeypatch.setattr(bars, "_QUIET", 0)
    with working(console, lambda: Bar("reading", 0.5)):
        pass
    assert "reading" in file.getvalue() and "50%" in file.getvalue()
    pipe = Console(file=(plain := io.StringIO()))
    with working(pipe, lambda: Bar("reading", 0.5)):
        pass
    assert not drawable(pipe) and not plain.getvalue()


@pytest.mark.parametrize("columns", [80, 200])
def test_a_run_shows_its_share_and_its_spend(tmp_path: Path, columns: int) -> None:
    """Two bars and two lines; in the end nothing of them is left, and the terminal has its title back."""
    write_jsonl(tmp_path / "in.jsonl", rows(12, 9))
    job_file(tmp_path, budget={"max_cost": 1000, "per": "day"}, rate={"rpm": 600})
    seen, out = on_a_terminal(tmp_path, "run", "job.yaml", columns=columns)
    drawings = screens(seen, columns)
    # The share is known from the first query on; a busy machine draws before that.
    middle = next(one for one in drawings if len(one) >= 4 and "documents/s" in one[0] and "%" in one[0])
    assert middle[0].startswith("queries") and "━" in middle[0]
    assert middle[1].startswith("cost") and "of 1000 CNY a day (UTC)" in middle[1] and "─" in middle[1]
    assert "under way" in middle[2] and "requests/min" in middle[3]
    assert drawings[-1][0].startswith("ranked 12 queries") and not any("━" in line for line in drawings[-1])
    assert seen.index(b"\x1b[22;0t") < seen.index(b"% job\x07") < seen.rindex(b"\x1b[23;0t") and not out


def test_without_bars_there_are_lines(tmp_path: Path) -> None:
    """As asked for, or on a terminal that can't draw; in a pipe there is no code of a terminal at all."""
    write_jsonl(tmp_path / "in.jsonl", rows(3, 25))
    job_file(tmp_path)
    piped = batchrank("run", "job.yaml", cwd=tmp_path)
    assert b"\x1b" not in piped.stderr and "━".encode() not in piped.stderr
    for arguments, term in ((["--no-progress"], "xterm"), ([], "dumb")):
        seen, _ = on_a_terminal(tmp_path, "run", "job.yaml", "--fresh", *arguments, term=term)
        assert b"ranked 3 queries" in seen and b"\x1b" not in seen and "━".encode() not in seen


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a job that has run, its judgements and a benchmark."""
    folder = tmp_path_factory.mktemp("ran")
    write_jsonl(folder / "in.jsonl", rows(3, 9))
    (folder / "qrels.txt").write_text("".join(f"q{i} 0 d{i}-1 1\n" for i in range(3)))
    data = {"output": "cells", "datasets": {"d": "in.jsonl"}, "models": ["qwen3-rerank"]}
    (folder / "bench.yaml").write_text(json.dumps(data))
    assert batchrank("run", job_file(folder), cwd=folder).returncode == 0
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("plan job.yaml --json", "reading"),
        ("check job.yaml --all --json", "reading"),
        ("eval out --qrels qrels.txt --json", "judging"),
        ("ledger job.yaml --compact", "making it smaller"),
        ("bench bench.yaml --table", "judging"),
    ],
)
def test_what_takes_minutes_shows_that_it_goes_on(ran: Path, arguments: str, said: str) -> None:
    """On stderr, so that stdout is what it is without."""
    seen, out = on_a_terminal(ran, *arguments.split())
    assert said.encode() in seen and "━".encode() in seen and "━".encode() not in out and out
    assert "--json" not in arguments or json.loads(out)


def test_no_command_draws_what_is_not_wanted(ran: Path) -> None:
    """The option is every such command's."""
    seen, _ = on_a_terminal(ran, "plan", "job.yaml", "--no-progress")
    assert "━".encode() not in seen
    for name in ("run", "demo", "plan", "check", "eval", "ledger", "bench"):
        assert "--no-progress" in playground.options(name)


def test_a_benchmark_shows_its_cells_above_the_run_of_one(tmp_path: Path) -> None:
    """So that a night of jobs can be told from the first of them."""
    write_jsonl(tmp_path / "in.jsonl", rows(12, 9))
    write_jsonl(tmp_path / "other.jsonl", rows(12, 8))
    data = {
        "output": "cells", "datasets": {"a": "in.jsonl", "b": "other.jsonl"}, "models": ["qwen3-rerank"],
        "job": {"endpoint": {"url": "emulator"}, "tokenizer": "bytes", "rate": {"rpm": 600}},
    }  # fmt: skip
    (tmp_path / "bench.yaml").write_text(json.dumps(data))
    seen, _ = on_a_terminal(tmp_path, "bench", "bench.yaml")
    both = [one for one in screens(seen) if any(line.startswith("cells") for line in one)]
    assert any("2 of 2: b / qwen3-rerank" in line for one in both for line in one)
    for one in both:
        at = next(i for i, line in enumerate(one) if line.startswith("cells"))
        assert one[at + 1].startswith("queries")


class Told(Gauge):
    """Keeps what was told."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[Gauge] = []

    def begin(self, label: str, total: int = 0) -> Gauge:
        self.begun.append(super().begin(label, total))
        return self.begun[-1]


def test_a_join_and_a_sort_tell_how_far_they_are(tmp_path: Path) -> None:
    """All of their files are read before the first query; then queries are counted."""
    records: list[Any] = [
        {"query_id": f"q{i % 5}", "query": "a", "doc_id": f"d{i}", "text": "some text"} for i in range(50)
    ]
    (tmp_path / "run.trec").write_text("".join(f"q{i % 5} Q0 d{i} 1 {i} x\n" for i in range(50)))
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": f"d{i}", "text": "some text"} for i in range(50)])
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": f"q{i}", "text": "a"} for i in range(5)])
    write_jsonl(tmp_path / "pairs.jsonl", records)
    join = {name: str(tmp_path / f"{name}.jsonl") for name in ("corpus", "queries")}
    for source, label in (
        (Input.model_validate({"path": str(tmp_path / "run.trec"), **join}), "joining texts"),
        (Input.model_validate({"path": str(tmp_path / "pairs.jsonl"), "sort": True}), "grouping pairs"),
    ):
        gauge = Told()
        shares = [gauge.share for _ in read(source, gauge)]
        assert [one.label for one in gauge.begun] == [label, "sorting by query"]
        assert gauge.begun[0].measured and gauge.begun[0].share == 1 and not gauge.begun[1].measured
        assert gauge.ahead is None and len(shares) == 5 and 0 < shares[0] < shares[-1] == 1


PROGRAM = """
import asyncio, sys, batchrank
job = batchrank.load_job("job.yaml")
print(int(asyncio.run(batchrank.run(job, batchrank.Options(fresh=True), PROGRESS)).exit_code))
"""


@pytest.mark.slow
def test_a_program_that_runs_a_job_may_show_bars(tmp_path: Path) -> None:
    """If it asks for them; by default a library is silent."""
    write_jsonl(tmp_path / "in.jsonl", rows(12, 9))
    job_file(tmp_path, rate={"rpm": 600})
    seen, out = on_a_terminal(tmp_path, program=PROGRAM.replace("PROGRESS", "progress=None"))
    assert b"queries" in seen and b"documents/s" in seen and out == b"0\n"
    assert on_a_terminal(tmp_path, program=PROGRAM.replace("PROGRESS", "")) == (b"", b"0\n")
