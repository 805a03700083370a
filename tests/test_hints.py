"""Hints that name a command name one that works where it is read."""

import re
import shlex
import sys
from pathlib import Path

import pytest

import batchrank
from batchrank.errors import install_line

EXTRAS = ("corpus", "datasets", "eval", "qwen", "ray", "remote", "report", "split")


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_install_line_is_for_the_interpreter_that_runs(extra: str) -> None:
    """A shell that copies it installs into this environment, whatever ``pip`` comes first on its path."""
    assert shlex.split(install_line(extra)) == [sys.executable, "-m", "pip", "install", f"batchrank[{extra}]"]


def test_a_blank_in_the_path_does_not_break_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders may be called anything."""
    monkeypatch.setattr(sys, "executable", "/my venv/bin/python")
    assert shlex.split(install_line("qwen"))[0] == "/my venv/bin/python"


def test_every_hint_uses_it() -> None:
    """No message spells the command by itself; the extras that are named exist."""
    named = set()
    for path in Path(batchrank.__file__).parent.rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        assert path.name == "errors.py" or "pip install" not in code, path
        named |= set(re.findall(r"install_line\([\"']([a-z]+)[\"']\)", code))
    assert named == set(EXTRAS)
