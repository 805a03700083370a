"""What the README shows works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from batchrank.job.config import Job
from batchrank.job.sections import Input, Output

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_library_example_runs(tmp_path: Path) -> None:
    """Copied from the README into a file, it prints a ranking."""
    (example,) = [block for block in blocks("python") if "asyncio.run" in block]
    (tmp_path / "example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("q1 ['d2', 'd1']")


@pytest.mark.parametrize("notebook", [False, True], ids=["script", "notebook"])
def test_the_example_without_async_runs(tmp_path: Path, notebook: bool) -> None:
    """In a script, and as a notebook's cell, which is run by an event loop that goes on."""
    (example,) = [block for block in blocks("python") if "rerank_sync" in block]
    if notebook:
        example = f"import asyncio\nasync def cell():\n    exec({example!r}, {{}})\nasyncio.run(cell())\n"
    (tmp_path / "example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("q1 ['d2', 'd1']")


def test_the_job_example_is_valid() -> None:
    """Every key of the example exists."""
    Job.model_validate(yaml.safe_load(blocks("yaml")[0]))


def test_every_key_of_the_job_stands_in_the_table() -> None:
    """The table is complete, and names nothing that isn't there."""
    named = set(
        re.findall(r"`([a-z_]+(?:\.[a-z_*]+)?)`", README.split("| key | meaning |")[1].split("\n\n")[0])
    )
    top = {name for name in Job.model_fields if name not in ("name", "input", "output")}
    sections = {name.split(".")[0] for name in named}
    assert top <= sections
    assert {f"input.{name}" for name in Input.model_fields} <= named
    assert {f"output.{name}" for name in Output.model_fields} <= named


def test_the_commands_are_those_of_the_command_line() -> None:
    """Every `batchrank X` that the README names is a command."""
    from batchrank.cli.app import app

    known = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    named = {
        match[1]
        for code in re.findall(r"`([^`\n]*)`", README)
        if (match := re.match(r"batchrank ([a-z]+)\b", code))
    }
    assert {"run", "eval"} <= named <= known
