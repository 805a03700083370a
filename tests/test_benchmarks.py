"""Each benchmark runs, in a version too small to measure anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, more",
    [
        ("overhead", []),
        ("memory", []),
        ("rate", ["--only", "1"]),
        ("tokens", []),
        ("resume", []),
        ("failures", []),
        ("stages", []),
        ("straight", ["--only", "1"]),
        ("start", []),
        ("way", []),
        ("reuse", []),
        ("peers", ["--only", "bare aiohttp loop", "batchrank"]),
    ],
)
def test_it_runs_and_prints_a_table(name: str, more: list[str]) -> None:
    """``python benchmarks/NAME.py --quick`` ends well and prints the machine and a Markdown table."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", *more]
    environ = os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environ)
    assert done.returncode == 0, done.stderr
    assert "Python" in done.stdout.splitlines()[0]
    assert "| --- |" in done.stdout and "nan" not in done.stdout
