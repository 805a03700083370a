"""Writes all that goes to the terminal, log records too, so that no secret and no control code gets there.

Every command imports this, so what takes long to import is imported by the function that needs it.
"""

import io
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from batchrank.bars import drawable, plain_console
from batchrank.errors import escaped, escaped_json

if TYPE_CHECKING:
    from rich.console import Console

    from batchrank.job.config import Job
    from batchrank.job.secrets import Secrets


_known: "Secrets | None" = None
"""The secrets of the jobs that were loaded; None before the first."""


def load(path: Path, overrides: Sequence[str] | None = None) -> "Job":
    """Load a job, and keep its secrets out of whatever is said from now on.

    Raises:
        JobError: as from ``load_job``.
    """
    from batchrank.job.load import load_job

    job = load_job(path, overrides=overrides or ())
    keep_secret(job)
    return job


def keep_secret(job: "Job") -> None:
    """Keep a job's secrets, with those of other jobs, out of whatever is said from now on."""
    from batchrank.job.secrets import secrets_of

    global _known
    found = secrets_of(job)
    _known = found if _known is None else _known | found


def _hidden(text: str) -> str:
    return text if _known is None else _known.hide(text)


def shown(text: str, *, lines: bool = False) -> str:
    """A text as it may be shown; ``lines`` keeps its lines."""
    return escaped(_hidden(text), lines=lines)


def shown_json(text: str) -> str:
    """JSON as it may be shown: the same data, but for secrets."""
    return escaped_json(_hidden(text))


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
    _print_json(data, indent=2)


def say_json_line(data: Any) -> None:
    """Print data as JSON on one line."""
    _print_json(data, indent=None)


def _print_json(data: Any, *, indent: int | None) -> None:
    import orjson

    text = shown_json(orjson.dumps(data, option=orjson.OPT_INDENT_2 if indent else None).decode())
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(orjson.loads(text), indent=indent)
    print(text)


def replicas(states: Sequence[Mapping[str, Any]]) -> str:
    """How several servers or keys stand, in a line; those that are out say why."""
    told = []
    for one in states:
        failed = f" ({one['failures']:,} failed)" if one["failures"] else ""
        out = f" OUT: {one['out']}" if one["out"] else ""
        told.append(f"{one['name']} {one['requests']:,}{failed}{out}")
    return ", ".join(told)


def ranking(rankers: int, machines: int | None) -> str:
    """How many processes rank, and on how many machines where those are several."""
    which = "1 ranks" if rankers == 1 else f"{rankers:,} rank"
    return f"{which}, on {machines:,} machines" if (machines or 0) > 1 else which


def console(*, error: bool = False, width: int | None = None, soft_wrap: bool = False) -> "Console":
    """A console on stdout, or on stderr, for tables and what changes in place; ``width`` where it is no terminal.

    It shows every text as what it is: no markup, no codes of others.
    """
    stream: TextIO = with_patience(sys.stderr) if error else sys.stdout
    return plain_console(stream, shown=shown, width=width, soft_wrap=soft_wrap)


def bars(wanted: bool = True) -> "Console | None":
    """Where bars are drawn: on stderr where that is a terminal, unless there are to be none, or JSON alone."""
    if not wanted or as_json() or not with_patience(sys.stderr).isatty():
        return None
    terminal = console(error=True)
    return terminal if drawable(terminal) else None


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
        """Do nothing, as every write is flushed."""

    def isatty(self) -> bool:
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise OSError("there is no stream")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # of the stream, which may be gone
        """The encoding, which rich asks for."""
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


def drop_unwritten(stream: TextIO) -> None:
    """Forget what a stream couldn't take, because the interpreter tries again at its end, and changes the exit code."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


class LogFormat(StrEnum):
    """How records are written."""

    TEXT = "text"
    JSON = "json"


def log_to_stderr(*, verbose: bool, quiet: bool, format: LogFormat = LogFormat.TEXT) -> None:
    """Send log records to stderr, one line each; of libraries' only warnings and errors."""
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    logger, root = logging.getLogger("batchrank"), logging.getLogger()
    logger.handlers[:] = [_handler(format)]
    logger.setLevel(level)
    logger.propagate = False
    for old in [handler for handler in root.handlers if isinstance(handler, Handler)]:
        root.removeHandler(old)
    libraries = _handler(format)
    libraries.setLevel(max(level, logging.WARNING))
    root.addHandler(libraries)


def as_json() -> bool:
    """Whether records are written as JSON, so that nothing else may go to stderr."""
    return any(not _is_text(handler) for handler in logging.getLogger("batchrank").handlers)


def _handler(format: LogFormat) -> Handler:
    handler = Handler()
    handler.setFormatter(_json() if format is LogFormat.JSON else _Text())
    return handler


def _is_text(handler: logging.Handler) -> bool:
    return isinstance(handler.formatter, _Text)


class _Text(logging.Formatter):
    """A line for people; where there is an exception to tell, its lines are indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        message = super().formatMessage(_with_message(record, self))
        trace = "" if record.exc_info is None else self.formatException(record.exc_info)
        return shown(message) + ("\n  " + shown(trace, lines=True) if trace else "")


def _with_message(record: logging.LogRecord, formatter: logging.Formatter) -> logging.LogRecord:
    record.message = record.getMessage()
    record.asctime = formatter.formatTime(record, formatter.datefmt)
    return record


def _json() -> logging.Formatter:
    import structlog

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(serializer=_dumped),
        ],
    )


def _dumped(record: Any, **options: Any) -> str:
    return shown_json(json.dumps(record, ensure_ascii=False, **options))
