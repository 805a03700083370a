"""Tells others how a run stands while it goes on: ``status.json`` every second, metrics every few.

``batchrank status`` reads that file and needs nothing of a run: what watching one takes is imported by ``Observer``.
"""

import logging
import os
import socket
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, Self

import orjson

from batchrank.errors import BatchrankError, ExitCode, InputError, JobError, StoppedError
from batchrank.write.folder import METRICS, STATUS, OutputFolder

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from batchrank.pipeline.report import Report
    from batchrank.pipeline.run import Run


_SILENT = 60.0
"""Seconds without a sign after which a process elsewhere is taken to be gone: it writes every second."""
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
    path = Path(folder) / STATUS
    try:
        data = OutputFolder(folder).status()
        status = Status(**{f.name: data[f.name] for f in fields(Status) if f.name in data})
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; name the output folder of a job that was started") from None
    except (OSError, ValueError, TypeError) as error:
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


log = logging.getLogger(__name__)
_EVERY = 1.0
"""Seconds between two status files: fresh to the eye, and a small file."""
_METRICS_EVERY = 5
"""Status files to one file of metrics, as Prometheus scrapes a few times a minute."""


class Observer:
    """Watches one run: ``watch`` runs beside it, ``ended`` tells what came of it; leaving the context frees the port.

    Nothing of this may stop a run: what can't be written is logged once.

    Args:
        run: the run; without an output folder no file is written.
        port: where Prometheus may ask; None for nowhere.
        host: the address to listen at.

    Raises:
        JobError: the port is taken.
    """

    def __init__(self, run: "Run", *, port: int | None = None, host: str = "127.0.0.1") -> None:
        from batchrank.job.secrets import secrets_of
        from batchrank.observe import metrics

        self._run = run
        self._folder = run.folder
        self._collector = metrics.JobCollector(run.job.name or "job")
        self._status = Status(
            "running", run.job.name or "job", os.getpid(), socket.gethostname(), now(), now(),
            max_cost=run.job.budget.max_cost, max_tokens=run.job.budget.max_tokens, per=run.job.budget.per,
        )  # fmt: skip
        self._secrets = secrets_of(run.job)
        self._told = False
        self._server: WSGIServer | None = None
        self._thread: Thread | None = None
        if port is not None:
            from prometheus_client import start_http_server

            try:
                self._server, self._thread = start_http_server(
                    port, addr=host, registry=metrics.registry(self._collector)
                )
            except OSError as error:
                raise JobError(
                    f"--metrics-port {port}: {error.strerror or error}; name another one"
                ) from None

    @property
    def port(self) -> int | None:
        """Where Prometheus may ask."""
        return self._server.server_port if self._server is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    async def watch(self) -> None:
        """Take a snapshot every second until cancelled, and write it once the run has got as far as its folder."""
        import anyio.to_thread

        ticks = 0
        while True:
            await anyio.sleep(_EVERY)
            if self._snapshot():
                await anyio.to_thread.run_sync(self._write, ticks % _METRICS_EVERY == 0)
                ticks += 1

    def ended(self, report: "Report | None", error: BatchrankError | None = None) -> None:
        """Write how the run ended: with a report, or without one because of an error."""
        if not self._snapshot() and report is None:
            return  # it never began, so what an earlier run left stays
        code = report.exit_code if report else (error.exit_code if error else ExitCode.FAILED)
        reason = report.reason if report else error
        self._collector.exit_code = code
        self._update(
            state="stopped"
            if isinstance(reason, StoppedError)
            else "complete"
            if code.complete
            else "failed",
            exit_code=code,
            reason=None if reason is None else self._secrets.hide(str(reason)),
            notices=self._secrets.hide_all(report.data["notices"] if report else self._run.notices),
        )
        self._write(True)

    def _snapshot(self) -> bool:
        progress = self._run.progress()
        if progress is None:
            return False
        self._collector.progress = progress
        known = {name: getattr(progress, name) for name in type(progress).__slots__}
        self._update(
            progress=self._secrets.hide_all(known), notices=self._secrets.hide_all(self._run.notices)
        )
        return True

    def _update(self, **changes: object) -> None:
        self._status = Status(**(self._status.data() | {"updated": now()} | changes))

    def _write(self, with_metrics: bool) -> None:
        if self._folder is None or not self._folder.is_dir():
            return
        try:
            _replace(self._folder / STATUS, orjson.dumps(self._status.data(), option=orjson.OPT_INDENT_2))
            if with_metrics:
                from batchrank.observe import metrics

                _replace(self._folder / METRICS, metrics.text(self._collector))
        except OSError as error:
            if not self._told:
                log.warning("the status can't be written: %s; the run goes on", error)
            self._told = True


def _replace(path: Path, data: bytes) -> None:
    """Write a file as a whole: whoever reads it sees the old one or the new one. Not durable: it is news."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    temporary.replace(path)
