"""Log records on stderr, as lines for people or as JSON for machines."""

import logging
import sys
from enum import StrEnum


class LogFormat(StrEnum):
    """How records are written."""

    TEXT = "text"
    JSON = "json"


def log_to_stderr(*, verbose: bool, quiet: bool, format: LogFormat = LogFormat.TEXT) -> None:
    """Send log records to stderr, one line each."""
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_json() if format is LogFormat.JSON else _text())
    logger = logging.getLogger("batchrank")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def as_json() -> bool:
    """Whether records are written as JSON, so that nothing else may go to stderr."""
    return any(not _is_text(handler) for handler in logging.getLogger("batchrank").handlers)


def _is_text(handler: logging.Handler) -> bool:
    return type(handler.formatter) is logging.Formatter


def _text() -> logging.Formatter:
    return logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")


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
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )
