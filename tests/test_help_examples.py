"""Every example that a ``--help`` shows runs."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import playground
import pytest

from batchrank.cli.app import app
from batchrank.cli.help import EXAMPLES

COMMANDS = [
    command.name or command.callback.__name__ for command in app.registered_commands if command.callback
]
LINES = [(name, line) for name, lines in EXAMPLES.items() for line in lines]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where ``nightly.yaml`` has run on some nights, and ``kept``, what it held then."""
    folder = tmp_path_factory.mktemp("examples") / "now"
    folder.mkdir()
    playground.make(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        playground.nights(patch)
    shutil.copytree(folder, folder.with_name("kept"))
    return folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That folder as it was; always the same one, because a job knows its output by the whole path."""
    monkeypatch.chdir(made)
    yield made
    shutil.rmtree(made)
    shutil.copytree(made.with_name("kept"), made)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_examples(name: str) -> None:
    """Its own ones, at the end of its help."""
    lines = EXAMPLES[name]
    assert lines and all(shlex.split(line)[:2] == ["batchrank", name] for line in lines)
    assert all(line in playground.command(name).epilog for line in lines)
    assert set(EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize(("name", "line"), LINES, ids=[line for _, line in LINES])
def test_an_example_of_help_runs(name: str, line: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands there, in a folder that has the files it names; what comes of a pipe is the shell's affair."""
    if name == "init":
        (here / "nightly.yaml").unlink()  # init replaces nothing
    playground.run(re.split(r" [|>] ", line)[0], monkeypatch)
