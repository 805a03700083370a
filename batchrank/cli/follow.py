"""Shows how a job stands until its run ends: what ``status --follow`` does, without disturbing the run."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from batchrank.cli.terminal import console, say, shown_json
from batchrank.errors import ExitCode
from batchrank.observe.facts import Status, read_status

if TYPE_CHECKING:
    from rich.table import Table

_EVERY = 1.0
"""Seconds between two looks: a run writes its status as often."""
_LINE_EVERY = 10.0
"""Seconds between two lines in a pipe, so that a log stays readable."""


def follow(
    folder: Path, shown: "Callable[[Status], Table]", line: Callable[[Status], str], *, as_json: bool
) -> int:
    """Show a job until its run has ended: in place on a terminal, else a line every ten seconds and one at the end.

    Args:
        folder: the output folder.
        shown: a status as a table.
        line: a status as a line.
        as_json: one JSON object a line instead, whenever there is news.

    Returns:
        The exit code of the run; 1 for one that was killed, as it has none.

    Raises:
        InputError: there is no status to follow.
    """
    terminal = console()
    if terminal.is_terminal and not as_json:
        from rich.live import Live

        with Live(console=terminal, auto_refresh=False) as live:
            for status in _news(folder):
                live.update(shown(status), refresh=True)
    elif as_json:
        for status in _news(folder):
            _say_json_line(status)
    else:
        status = _print_lines(folder, line)
    return ExitCode.FAILED if status.exit_code is None else status.exit_code


def _news(folder: Path) -> Iterator[Status]:
    """The status whenever it was written anew, until it is that of a run that has ended."""
    last = None
    while True:
        status = read_status(folder)
        if status != last:
            yield status
        last = status
        if status.state != "running":
            return
        time.sleep(_EVERY)


def _print_lines(folder: Path, line: Callable[[Status], str]) -> Status:
    told = float("-inf")
    for status in _news(folder):  # at least one
        if status.state != "running" or time.monotonic() - told >= _LINE_EVERY:
            say(line(status))
            told = time.monotonic()
    return status


def _say_json_line(status: Status) -> None:
    import orjson

    print(shown_json(orjson.dumps(status.data()).decode()), flush=True)
