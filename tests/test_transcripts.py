"""What manuals show a command to print is what it prints."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import playground
import pytest
from test_readme import _FENCE, PAGES

_CHANGING = re.compile(
    r"\d{4}-\d\d-\d\d( \d\d:\d\d)?|\b\d+\.\d s\b|[\d,.]+ GiB free|at most \d+ requests in flight"
)
"""Days, times, durations and what a machine has, which are others each time, or elsewhere."""
_PROMPT = re.compile(r"^\$ (batchrank .*)\n", re.MULTILINE)


def blocks() -> list[Any]:
    """Every block that begins with a prompt and a command: commands, each with what it is said to print."""
    return [
        pytest.param(list(zip(parts[1::2], parts[2::2], strict=True)), id=f"{page}-{number}")
        for page, text in PAGES.items()
        for number, match in enumerate(_FENCE.finditer(text))
        if len(parts := _PROMPT.split(match[2])) > 1 and not parts[0]
    ]


def transcripts() -> list[Any]:
    """Those of one command."""
    return [pytest.param(*param.values[0][0], id=param.id) for param in blocks() if len(param.values[0]) == 1]


def sessions() -> list[Any]:
    """Those of several commands, which are run one after the other."""
    return [param for param in blocks() if len(param.values[0]) > 1]


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder where a job has run on some nights."""
    folder = tmp_path_factory.mktemp("nights")
    playground.make(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        playground.nights(patch)
        yield folder


def plain(text: str) -> list[list[str]]:
    """The words of each line, without what changes."""
    return [line.split() for line in _CHANGING.sub("...", text).splitlines()]


@pytest.mark.parametrize(("command", "shown"), transcripts())
def test_a_command_prints_what_a_manual_shows(
    command: str, shown: str, nights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word for word but for times; on the nights that the examples of --help run on."""
    assert plain(playground.run(command, monkeypatch)) == plain(shown)


@pytest.mark.parametrize("commands", sessions())
def test_a_session_prints_what_a_manual_shows(
    commands: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From data to a result, in a folder that holds nothing but the data, and without a key."""
    playground.make(tmp_path)
    (tmp_path / "nightly.yaml").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DASHSCOPE_API_KEY", raising=False)
    for command, shown in commands:
        assert plain(playground.run(command, monkeypatch)) == plain(shown), command


def test_the_three_uses_are_shown() -> None:
    """Reindexing, nightly scoring and a benchmark run: each begins with data, and ends with a result."""
    shown = [[command.split()[1] for command, _ in param.values[0]] for param in sessions()]
    assert all(commands[0] == "init" and "run" in commands for commands in shown)
    assert {commands[-1] for commands in shown} == {"view", "runs", "eval"}


def test_the_transcripts_are_found() -> None:
    """Of each command that only a transcript explains."""
    commands = {param.values[0].split()[1] for param in transcripts()}
    assert commands >= {"diff", "eval", "runs"}
