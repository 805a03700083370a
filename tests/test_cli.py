"""The command line as a user meets it: a command, its output, its exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import commands
import pytest
from jobs import rows, write_jsonl


def batchrank(
    *arguments: str, cwd: Path, stdin: bytes = b"", **environ: str
) -> subprocess.CompletedProcess[bytes]:
    return commands.run(*arguments, cwd=cwd, stdin=stdin, environ={**_clean(), **environ})


def _clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("BATCHRANK_", "DASHSCOPE_"))}


def job_file(folder: Path, **keys: object) -> str:
    job = {
        "input": {"path": "in.jsonl"},
        "model": "qwen3-rerank",
        "endpoint": {"url": "emulator"},
        "limits": {"documents": 10},
        "tokenizer": "bytes",
        "rate": {"rpm": 10**6, "tpm": 10**12},  # time is real here
        "output": {"path": "out"},
    }
    (folder / "job.yaml").write_text(json.dumps(job | keys))
    return "job.yaml"


def test_run_ends_with_what_came_of_it(tmp_path: Path) -> None:
    """Nothing on stdout; a summary on stderr; rankings in the output folder; then a second run is free."""
    write_jsonl(tmp_path / "in.jsonl", rows(3, 25))
    first = batchrank("run", job_file(tmp_path), cwd=tmp_path)
    assert (first.returncode, first.stdout) == (0, b"")
    assert b"ranked 3 queries, 75 documents" in first.stderr
    assert (tmp_path / "out" / "ranking-00000.parquet").exists()
    second = batchrank("run", "job.yaml", cwd=tmp_path)
    assert b"requests: 0 sent" in second.stderr


def test_a_pipe_in_and_a_pipe_out(tmp_path: Path) -> None:
    """Standard input to standard output: JSON lines, and nothing else, on stdout."""
    keys = {"input": {"path": "-"}, "output": {"path": "-"}}
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows(2, 3))
    command = [sys.executable, "-m", "batchrank", "run", job_file(tmp_path, **keys)]
    done = subprocess.run(command, cwd=tmp_path, input=data, capture_output=True, env=_clean())
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["query_id"] for line in done.stdout.splitlines()] == ["q0", "q1"]


@pytest.mark.parametrize(
    ("keys", "code", "said"),
    [
        ({"modle": 1}, 2, b"job.yaml, line 1: modle: unknown key; did you mean 'model'?"),
        ({"endpoint": {}}, 2, b"export DASHSCOPE_API_KEY="),
        ({"input": {"path": "none.jsonl"}}, 4, b"none.jsonl"),
        ({"input": {"path": "empty.jsonl"}}, 4, b"there is no query in"),
        ({"input": {"path": "strange.jsonl"}}, 4, b"strange.jsonl"),
        ({"output": {"path": "in.jsonl"}}, 1, b"in.jsonl"),
    ],
)
def test_exit_codes_tell_a_scheduler_what_to_do(
    tmp_path: Path, keys: dict[str, object], code: int, said: bytes
) -> None:
    """One message, no traceback, and the documented code."""
    write_jsonl(tmp_path / "in.jsonl", rows(1, 3))
    write_jsonl(tmp_path / "empty.jsonl", [])
    write_jsonl(tmp_path / "strange.jsonl", [{"a": 1, "b": 2}])
    done = batchrank("run", job_file(tmp_path, **keys), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_usage_errors_exit_with_2(tmp_path: Path) -> None:
    """As every command does."""
    assert batchrank("run", cwd=tmp_path).returncode == 2
    assert batchrank("run", "none.yaml", cwd=tmp_path).returncode == 2
    assert batchrank("fly", cwd=tmp_path).returncode == 2


@pytest.mark.slow
def test_small_commands(tmp_path: Path) -> None:
    """They print what they promise."""
    write_jsonl(tmp_path / "in.jsonl", rows(1, 25))
    batchrank("run", job_file(tmp_path), cwd=tmp_path)
    assert b"qwen3-rerank" in batchrank("models", cwd=tmp_path).stdout
    assert batchrank("--version", cwd=tmp_path).stdout.startswith(b"batchrank 0.")
    assert b"answers" in batchrank("ledger", "job.yaml", cwd=tmp_path).stdout
    assert b"dropped 0" in batchrank("ledger", "job.yaml", "--compact", cwd=tmp_path).stderr
    help_text = batchrank("emulate", "--help", cwd=tmp_path).stdout
    assert b"--scores" in help_text and b"--faults" in help_text


@pytest.mark.slow
def test_the_demo_shows_that_reranking_helps(tmp_path: Path) -> None:
    """MRR@10 rises, every list took at least three chunks, and the job can be run again."""
    done = batchrank("demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.decode().splitlines() if line.startswith("MRR@10"))
    before, after = float(line.split()[1]), float(line.split()[3])
    assert after > before
    lines = (tmp_path / "demo" / "out" / "ranking-00000.jsonl").read_bytes().splitlines()
    assert len(lines) >= 30
    assert all(json.loads(line)["merge"]["chunks"] >= 3 for line in lines)
    again = batchrank("run", "demo/job.yaml", cwd=tmp_path)
    assert again.returncode == 0 and b"0 sent" in again.stderr


def test_importing_the_library_imports_nothing_else_yet() -> None:
    """What is heavy comes with the first name asked for, so that a process can settle how Arrow allocates before."""
    code = (
        "import sys, batchrank; assert 'pyarrow' not in sys.modules; "
        "assert all(getattr(batchrank, name) is not None for name in batchrank.__all__); "
        "assert set(batchrank.__all__) <= set(dir(batchrank)) and not hasattr(batchrank, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_line_keeps_no_burst_in_memory() -> None:
    """Arrow's own allocators would: under the command line it uses the system's."""
    code = "import batchrank.cli, pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "system"


def test_a_ledger_can_be_backed_up_and_put_back(tmp_path: Path) -> None:
    """One file holds all of it: put back in place of the ledger, a run pays nothing again."""
    write_jsonl(tmp_path / "in.jsonl", rows(2, 25))
    job_file(tmp_path)
    assert batchrank("run", "job.yaml", "--quiet", cwd=tmp_path).returncode == 0
    for expected in (0, 1):
        done = batchrank("ledger", "job.yaml", "--backup", "copy.sqlite", cwd=tmp_path)
        assert done.returncode == expected, done.stderr
    assert b"copy.sqlite: the ledger can't be copied: File exists" in done.stderr
    (tmp_path / "copy.sqlite").replace(tmp_path / "out" / "ledger.sqlite")
    assert batchrank("run", "job.yaml", "--quiet", cwd=tmp_path).returncode == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["rerun"]["process"]["requests"] == 0 < summary["process"]["requests"]
