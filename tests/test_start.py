"""A command imports what it needs and nothing else, because imports are most of what a short command takes."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest
from jobs import rows, write_jsonl
from servers import serving

HEAVY = {
    "aiohttp", "anyio", "asyncio", "duckdb", "fsspec", "gigatoken", "imagesize", "jinja2", "matplotlib", "numpy",
    "orjson", "prometheus_client", "pyarrow", "pydantic", "pydantic_settings", "rich", "sqlite3", "structlog", "uvloop",
    "yaml", "zstandard",
}  # fmt: skip
"""What takes long to import, with what is imported along with it."""
COMMANDS = [
    ("--help", set()),
    ("--version", {"pydantic"}),  # typer converts every value by it, that of a flag too
    ("models", {"pydantic", "rich"}),
    ("status out", {"orjson", "pydantic", "rich"}),
    ("schema", {"orjson", "pydantic"}),
    ("manual merge", {"pydantic", "rich"}),
    ("run --help", {"pydantic"}),
    ("emulate --help", {"pydantic"}),
    ("view --help", {"pydantic"}),
    ("explain --help", {"pydantic"}),
]
UNUSED = {
    "aiohttp.web", "batchrank.bench", "batchrank.demo", "batchrank.emulator.app", "batchrank.emulator.model",
    "batchrank.emulator.relevance", "batchrank.observe.page", "batchrank.planning", "dashscope", "duckdb", "fsspec",
    "gigatoken", "huggingface_hub", "imagesize", "ir_measures", "jinja2", "matplotlib", "pandas", "pyarrow.compute",
    "pyarrow.dataset", "pyarrow.parquet", "pydantic_settings", "rich", "semantic_text_splitter", "structlog",
}  # fmt: skip
"""What a job of one list, from JSON lines to JSON lines in a pipe, has no use for."""


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-X", "importtime", "-m", "batchrank", *arguments]


def _environ(more: Mapping[str, str] | None = None) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("BATCHRANK_")}
    return {**own, "PYTHONPATH": str(Path(__file__).parent.parent), **(more or {})}


def _imported(report: str) -> set[str]:
    """The modules in what ``-X importtime`` says, each with its packages."""
    names = {
        line.rpartition("|")[2].strip() for line in report.splitlines() if line.startswith("import time:")
    }
    assert "typer" in names
    return {".".join(name.split(".")[:depth]) for name in names for depth in (1, 2, 3)}


@pytest.mark.parametrize(("line", "needed"), COMMANDS, ids=[line for line, _ in COMMANDS])
def test_a_short_command_imports_only_what_it_needs(tmp_path: Path, line: str, needed: set[str]) -> None:
    """Help, the version, the model cards, a job's state and the schema need nothing of a run."""
    (tmp_path / "out").mkdir()
    status = {"state": "complete", "name": "job", "pid": 1, "host": "elsewhere", "exit_code": 0}
    times = {"started": "2026-01-01T00:00:00+00:00", "updated": "2026-01-01T00:00:00+00:00"}
    (tmp_path / "out" / "status.json").write_bytes(orjson.dumps(status | times))
    done = subprocess.run(
        _command(*line.split()), cwd=tmp_path, env=_environ(), capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout, done.stderr
    assert _imported(done.stderr) & HEAVY - needed == set()


@pytest.mark.parametrize(
    ("words", "position", "expected"),
    [("batchrank mo", 1, "models"), ("batchrank run --only", 2, "--only-failed")],
)
def test_completion_imports_nothing_of_a_run(
    tmp_path: Path, words: str, position: int, expected: str
) -> None:
    """A shell asks at each press of the tabulator, for names of commands and of options."""
    asked = {"_BATCHRANK_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    program = "import sys; sys.argv[0] = 'batchrank'; from batchrank.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program],
        cwd=tmp_path, env=_environ(asked), capture_output=True, text=True,
    )  # fmt: skip
    assert expected in done.stdout, done.stderr
    assert _imported(done.stderr) & HEAVY - {"pydantic"} == set()


@pytest.mark.anyio
@pytest.mark.real_clock
async def test_a_run_of_one_query_imports_nothing_for_others(tmp_path: Path) -> None:
    """Neither other formats, nor the emulator, nor what draws on a terminal, plans, judges or reports."""
    write_jsonl(tmp_path / "in.jsonl", rows(1, 3))
    async with serving() as server:
        job = {
            "input": {"path": "in.jsonl"}, "model": "qwen3-rerank", "tokenizer": "bytes",
            "endpoint": {"url": f"{server.url}/rerank", "auth": "none"},
            "output": {"path": "out", "format": "jsonl"},
        }  # fmt: skip
        (tmp_path / "job.yaml").write_bytes(orjson.dumps(job))
        process = await asyncio.create_subprocess_exec(
            *_command("run", "job.yaml"),
            cwd=tmp_path, env=_environ(), stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, errors = await process.communicate()
    assert process.returncode == 0 and b"ranked 1 queries" in errors, errors.decode()
    assert _imported(errors.decode()) & UNUSED == set()


def test_a_process_that_only_ranks_imports_no_client() -> None:
    """Of several processes one sends; to import what the others don't use took a quarter of their start."""
    used = (
        "batchrank.cluster.child, batchrank.cluster.messages, batchrank.cluster.rank, batchrank.cluster.stage"
    )
    code = f"import sys, {used}; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=_environ()).returncode == 0
