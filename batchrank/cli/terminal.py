"""The one way to the terminal: whatever a command says goes through here, without secrets and without control codes.

The streams themselves may be gone (a pipe's reader, a terminal that was hung up, a descriptor that was closed at the
start): then nothing can be said any more, which is no reason to stop.
"""

import io
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO, cast

import orjson
from rich.console import Console
from rich.text import Text

from batchrank.escape import escaped, escaped_json
from batchrank.job.config import Job
from batchrank.job.load import load_job
from batchrank.job.secrets import Secrets, secrets_of

_known = Secrets()


def load(path: Path, overrides: Sequence[str] | None = None) -> Job:
    """Load a job, and keep its secrets out of whatever is said from now on.

    Raises:
        JobError: as from ``load_job``.
    """
    job = load_job(path, overrides=overrides or ())
    keep_secret(job)
    return job


def keep_secret(job: Job) -> None:
    """Keep a job's secrets, with those of other jobs, out of whatever is said from now on."""
    global _known
    _known |= secrets_of(job)


def shown(text: str, *, lines: bool = False) -> str:
    """A text as it may be shown; ``lines`` keeps its lines."""
    return escaped(_known.hide(text), lines=lines)


def shown_json(text: str) -> str:
    """JSON as it may be shown: the same data, but for secrets."""
    return escaped_json(_known.hide(text))


def say(text: str = "", *, error: bool = False, lines: bool = False) -> None:
    """Print a line, on stderr if it is an ``error`` or news; ``lines`` where it may have several.

    Raises:
        BrokenPipeError: nobody reads stdout any more.
    """
    if error:
        with_patience(sys.stderr).write(shown(text, lines=lines) + "\n")
    else:
        print(shown(text, lines=lines))


def say_json(data: Any) -> None:
    """Print data as JSON: all of it as it is, but for secrets."""
    text = shown_json(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(orjson.loads(text), indent=2)
    print(text)


def console(*, error: bool = False, width: int | None = None, soft_wrap: bool = False) -> Console:
    """A console on stdout, or on stderr, for tables and what changes in place; ``width`` where it is no terminal."""
    stream: TextIO = with_patience(sys.stderr) if error else sys.stdout
    return _Console(
        file=stream,
        width=None if stream.isatty() else width,
        soft_wrap=soft_wrap,
        markup=False,
        emoji=False,
        highlight=False,
    )


class _Console(Console):
    """Shows every text as what it is: no markup, no codes of others."""

    def render_str(self, text: str, **options: Any) -> Text:
        """A text, be it printed alone or in a table."""
        return super().render_str(shown(text), **options)


def with_patience(stream: TextIO | None) -> TextIO:
    """A stream for news: what can't be written to it is dropped."""
    return cast(TextIO, _Patient(stream))


class _Patient(io.TextIOBase):
    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        try:
            if self._stream is not None:
                self._stream.write(text)
                self._stream.flush()
        except (OSError, ValueError):
            self._stream = None
        return len(text)

    def flush(self) -> None:
        """Every write is."""

    def isatty(self) -> bool:
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise OSError("there is no stream")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # of the stream, which may be gone
        """What rich asks for."""
        return getattr(self._stream, "encoding", None) or "utf-8"


class Handler(logging.Handler):
    """Writes log records to what is stderr at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            with_patience(sys.stderr).write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def open_streams() -> None:
    """See that descriptors 0 to 2 are open and can carry any text: else the next file that is opened would be one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")
