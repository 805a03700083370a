"""A folder with every file that the examples of manuals and of ``--help`` name, and commands that are run in it.

Examples are run in this process: two dozen processes would take as many seconds.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
import yaml
from jobs import rows, write_jsonl
from typer.main import get_command
from typer.testing import CliRunner

from batchrank.cli.app import app
from batchrank.emulator.app import Emulator
from batchrank.emulator.settings import Settings

DATA = rows(8, 25)


def _right(row: dict[str, Any]) -> str:
    """The document that has most of the query's words, the last of several, which the first stage ranks lowest."""
    words = row["query"].split()
    found = max(reversed(row["candidates"]), key=lambda c: sum(map(c["text"].split().count, words)))
    return str(found["id"])


QRELS = "".join(f"{row['query_id']} 0 {_right(row)} 1\n" for row in DATA)
NIGHTLY: dict[str, Any] = {
    "input": {"path": "candidates.jsonl"},
    "model": "qwen3-rerank",
    "endpoint": {"url": "emulator"},
    "limits": {"documents": 10},
    "merge": {"top_k": 10},
    "tokenizer": "bytes",
    "gate": {},
    "output": {"path": "out/nightly"},
}
_SMALL_BENCH = {
    "datasets": {"docs": {"path": "candidates.jsonl", "qrels": "qrels.txt"}},
    "models": ["qwen3-rerank"],
}


def make(folder: Path) -> None:
    """Write the files: an input, judgements, a run, a job, a benchmark, and what the demo would write."""
    write_jsonl(folder / "candidates.jsonl", DATA)
    (folder / "export").mkdir()
    pq.write_table(pa.Table.from_pylist(DATA), folder / "export" / "a.parquet")
    (folder / "docs.txt").write_text("".join(f"{one['text']}\n" for one in DATA[0]["candidates"]))
    (folder / "qrels.txt").write_text(QRELS)
    first = [(row["query_id"], c["id"], c["score"]) for row in DATA for c in row["candidates"]]
    (folder / "bm25.trec").write_text("".join(f"{q} Q0 {d} 0 {score} bm25\n" for q, d, score in first))
    (folder / "nightly.yaml").write_text(yaml.safe_dump(NIGHTLY))
    bench = {
        "output": "bench",
        "job": {"endpoint": {"url": "emulator"}, "tokenizer": "bytes"},
        **_SMALL_BENCH,
    }
    (folder / "models.yaml").write_text(yaml.safe_dump(bench))
    (folder / "demo").mkdir()
    _small_demo(folder / "demo")


def nights(patch: pytest.MonkeyPatch) -> None:
    """Run the job in the current folder: on Monday with a rough method, then on two nights as it says.

    They are real ones, which no quota holds up.
    """
    patch.setenv("BATCHRANK_RATE__RPM", "1000000")
    run("batchrank run nightly.yaml --set output.path=out/monday --set merge.method=raw", patch)
    run("batchrank run nightly.yaml --set input.limit=7", patch)
    run("batchrank run nightly.yaml", patch)
    patch.delenv("BATCHRANK_RATE__RPM")


def command(name: str) -> Any:
    """A command as its parser sees it."""
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert name in commands, f"there is no command {name}"
    return commands[name]


def parsed(line: str) -> Any:
    """Parse one command line as the command does, but don't run it: what the command would refuse raises here too."""
    program, name, *words = shlex.split(line, comments=True)
    assert program == "batchrank", line
    return command(name).make_context(name, words)


def run(line: str, patch: pytest.MonkeyPatch) -> str:
    """Run one command line in the current folder, see that it ends well, and return what it printed.

    What a process of its own would do to itself is left out: its end by force, and its settings of the interpreter.
    The demo asks three questions, and ``emulate`` starts but doesn't stay.
    """
    words = shlex.split(line, comments=True)
    patch.setattr("batchrank.pipeline.workers.settle_process", lambda: None)
    patch.setattr(sys.modules["batchrank.cli.app"], "leave", _leave)
    patch.setattr("batchrank.emulator.app.run_forever", _start)
    patch.setattr("batchrank.demo.write_demo", _small_demo)
    done = CliRunner().invoke(app, words[1:], catch_exceptions=False)
    assert done.exit_code == 0, f"{line}: {done.output}"
    return done.output


def _leave(code: int) -> None:
    raise typer.Exit(code)


def _small_demo(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "candidates.jsonl", DATA)
    (folder / "qrels.txt").write_text(QRELS)


async def _start(settings: Settings, host: str, port: int, *, ready: Any) -> None:
    async with Emulator(settings) as emulator:
        ready(emulator)


def options(name: str) -> set[str]:
    """The options of a command, short ones too."""
    return {
        option
        for parameter in command(name).params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
