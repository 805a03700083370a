"""What manuals show a command to print is what it prints."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import playground
import pytest
from test_readme import _FENCE, PAGES

_CHANGING = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d|\b\d+\.\d s\b")
"""Times of day and durations, which are others each time."""


def transcripts() -> list[Any]:
    """Every block that begins with a prompt and a command: the command, and what it is said to print."""
    return [
        pytest.param(*match[2].removeprefix("$ ").split("\n", 1), id=f"{page}-{number}")
        for page, text in PAGES.items()
        for number, match in enumerate(_FENCE.finditer(text))
        if match[2].startswith("$ batchrank ")
    ]


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


def test_the_transcripts_are_found() -> None:
    """Of each command that only a transcript explains."""
    commands = {param.values[0].split()[1] for param in transcripts()}
    assert commands >= {"diff", "eval", "runs"}
