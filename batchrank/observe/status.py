"""``status.json``: how a job stands, for whoever asks while it runs or after."""

import os
import socket
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson

from batchrank.errors import InputError

NAME = "status.json"
_SILENT = 60.0
State = Literal["running", "complete", "stopped", "failed", "killed"]


@dataclass(frozen=True, slots=True)
class Status:
    """How a job stands.

    Attributes:
        state: ``running``; ``complete``, perhaps with failed queries; ``stopped``, to be continued; ``failed``;
            ``killed``: its process is gone without a word.
        name: the job's name.
        pid: the process, on ``host``.
        started: when this process began, and ``updated`` when it last wrote this: ISO 8601, UTC.
        exit_code: None while it runs.
        reason: why it ended early.
        progress: the fields of ``Progress``; None before the first request could be sent.
        max_cost: the cap in the currency of the price, None without one.
        max_tokens: the cap in tokens.
        per: what the caps hold for: ``run``, ``day`` or ``total``.
    """

    state: State
    name: str
    pid: int
    host: str
    started: str
    updated: str
    exit_code: int | None = None
    reason: str | None = None
    progress: dict[str, Any] | None = None
    max_cost: float | None = None
    max_tokens: int | None = None
    per: str = "run"
    notices: list[str] = field(default_factory=list)

    @property
    def age(self) -> float:
        """Seconds since the last update."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.updated)).total_seconds()

    def data(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def now() -> str:
    """The time of day, for people."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_status(folder: str | Path) -> Status:
    """Read how the job stands whose output goes to a folder; it may be running.

    Raises:
        InputError: there is no such file there, or it can't be read.
    """
    path = Path(folder) / NAME
    try:
        data = orjson.loads(path.read_bytes())
        status = Status(**{f.name: data[f.name] for f in fields(Status) if f.name in data})
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; name the output folder of a job that was started") from None
    except (OSError, orjson.JSONDecodeError, TypeError) as error:
        raise InputError(f"{path} can't be read: {error}") from None
    if status.state == "running" and _gone(status):
        return Status(**(asdict(status) | {"state": "killed"}))
    return status


def _gone(status: Status) -> bool:
    """Whether the process is no more: asked on its own machine; elsewhere, taken from its silence."""
    if status.host != socket.gethostname():
        return status.age > _SILENT
    try:
        os.kill(status.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
