"""What the manual of view and explain shows is what they print on the demo's data."""

import re
import sys
from pathlib import Path

import pytest
from rich.console import Console
from test_cli import batchrank
from test_readme import PAGES

from batchrank.cli.view import view

SHOWN = re.findall(
    r"^```sh\n(.*?)^```\n\n^```\n(.*?)^```$", PAGES["batchrank/look/README.md"], flags=re.DOTALL | re.M
)
MADE_WITH = (3, 11)
"""The demo's documents are this Python's docstrings, so that others have other scores and other names."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("look")
    assert batchrank("demo", "--quiet", cwd=folder).returncode == 0
    return folder


def same(printed: str, shown: str) -> None:
    """The same lines, but for times and the width of columns; by another Python, as many."""
    one, other = (
        [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "(time)", line.rstrip()) for line in text.strip().splitlines()]
        for text in (printed, shown)
    )
    assert one == other if sys.version_info[:2] == MADE_WITH else len(one) == len(other)


def test_the_view_is_as_shown(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal of 100 columns, colours left out."""
    monkeypatch.chdir(demo)
    monkeypatch.setattr(
        "batchrank.cli.view.console",
        lambda: Console(force_terminal=True, width=100, color_system=None, height=200),
    )
    commands, shown = SHOWN[0]
    assert "batchrank view demo/out delete-tree --top 5\n" in commands
    view(str(Path("demo/out")), "delete-tree", top=5, only_moved=False, texts=True, as_json=False)
    same(capsys.readouterr().out, shown)


@pytest.mark.parametrize("number", [1, 2])
def test_the_explanation_is_as_shown(demo: Path, number: int) -> None:
    """As a pipe gets it."""
    command, shown = SHOWN[number]
    done = batchrank(*command.split()[1:], cwd=demo)
    assert done.returncode == 0 and not done.stderr, done.stderr
    same(done.stdout.decode(), shown)


def test_every_kind_of_proof_is_in_the_table() -> None:
    """Once, in the words of the machine-readable output."""
    from typing import get_args

    from batchrank.cli.explain import _PROOFS
    from batchrank.look.explanation import Proof

    table = PAGES["batchrank/look/README.md"].split("| proof | means |")[1].split("\n\n")[0]
    told = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, flags=re.M)))
    assert sorted(told) == sorted(get_args(Proof)) == sorted(_PROOFS)
