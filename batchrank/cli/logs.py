"""Log records on stderr, as lines for people or as JSON for machines; those of libraries as well."""

import json
import logging
from enum import StrEnum
from typing import Any

from batchrank.cli.terminal import Handler, shown, shown_json


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
