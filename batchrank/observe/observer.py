"""Tells others how a run stands while it goes on: ``status.json`` every second, Prometheus metrics every few."""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Self

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from batchrank.errors import BatchrankError, ExitCode, JobError, StoppedError
from batchrank.observe.facts import Status
from batchrank.pipeline.summary import Progress
from batchrank.send.stats import LATENCY_BOUNDS
from batchrank.write.folder import METRICS, STATUS

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from batchrank.pipeline.report import Report
    from batchrank.pipeline.run import Run


_COUNTERS = {
    "documents": "Documents in answered requests.",
    "requests": "Requests sent, whether they succeeded or not.",
    "retries": "Requests that had to be repeated.",
    "throttled": "Requests throttled (429).",
    "reused": "Requests answered by the ledger.",
    "tokens": "Tokens spent by the run, those of earlier processes and those possibly billed included.",
}
_GAUGES = {
    "unfinished": ("unfinished_queries", "Queries under way."),
    "in_flight": ("in_flight_requests", "Requests sent that have no answer yet."),
    "possible_tokens": ("possibly_billed_tokens", "Tokens that may have been billed without a result."),
    "quota_used": ("quota_used_ratio", "Part of the scarcer quota used in the last minute."),
    "share": ("progress_ratio", "Part of the input that is finished."),
    "rankers": ("rankers", "Processes that rank, in a run of several."),
    "machines": ("machines", "Machines that they are on."),
    "elapsed": ("elapsed_seconds", "Seconds since this process began."),
    "eta": ("eta_seconds", "Seconds to go at the pace so far."),
}


class JobCollector(Collector):
    """What the last snapshot of a job says. ``progress`` and ``exit_code`` are set from outside."""

    def __init__(self, job: str) -> None:
        self._job = job
        self.progress: Progress | None = None
        self.exit_code: int | None = None

    def collect(self) -> Iterator[Metric]:
        """The metrics, each with the job's name as its label."""
        running = GaugeMetricFamily("batchrank_running", "Whether the job is running.", labels=["job"])
        running.add_metric([self._job], float(self.exit_code is None))
        yield running
        if self.exit_code is not None:
            code = GaugeMetricFamily("batchrank_exit_code", "What the job ended with.", labels=["job"])
            code.add_metric([self._job], self.exit_code)
            yield code
        if self.progress is not None:
            yield from self._of(self.progress)

    def _of(self, progress: Progress) -> Iterator[Metric]:
        queries = CounterMetricFamily(
            "batchrank_queries", "Finished queries, by their outcome.", labels=["job", "state"]
        )
        queries.add_metric([self._job, "ranked"], progress.queries)
        queries.add_metric([self._job, "failed"], progress.failed)
        yield queries
        for field, text in _COUNTERS.items():
            counter = CounterMetricFamily(f"batchrank_{field}", text, labels=["job"])
            counter.add_metric([self._job], getattr(progress, field))
            yield counter
        for field, (name, text) in _GAUGES.items():
            if (value := getattr(progress, field)) is not None:
                gauge = GaugeMetricFamily(f"batchrank_{name}", text, labels=["job"])
                gauge.add_metric([self._job], value)
                yield gauge
        if progress.cost is not None:
            cost = CounterMetricFamily(
                "batchrank_cost", "What the run has cost, in its currency.", labels=["job", "currency"]
            )
            cost.add_metric([self._job, progress.currency], progress.cost)
            yield cost
        yield from self._each(progress.replicas, "replica", "server")
        yield from self._each(progress.keys, "key", "API key")
        yield self._latency(progress)

    def _each(self, states: Sequence[dict[str, Any]], kind: str, what: str) -> Iterator[Metric]:
        """Several servers or keys, one by one."""
        labels, name = ["job", kind], f"batchrank_{kind}"
        requests = CounterMetricFamily(f"{name}_requests", f"Requests by {what}.", labels=labels)
        failures = CounterMetricFamily(f"{name}_failures", "Those that failed.", labels=labels)
        up = GaugeMetricFamily(f"{name}_up", f"Whether the {what} is in service.", labels=labels)
        for one in states:
            requests.add_metric([self._job, one["name"]], one["requests"])
            failures.add_metric([self._job, one["name"]], one["failures"])
            up.add_metric([self._job, one["name"]], float(one["out"] is None))
        if states:
            yield from (requests, failures, up)

    def _latency(self, progress: Progress) -> Metric:
        histogram = HistogramMetricFamily(
            "batchrank_request_seconds", "Seconds from a request to its answer.", labels=["job"]
        )
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip([*map(str, LATENCY_BOUNDS), "+Inf"], progress.latency, strict=True):
            total += count
            buckets.append((bound, float(total)))
        histogram.add_metric([self._job], buckets, sum_value=progress.latency_sum)
        return histogram


def registry(collector: JobCollector) -> CollectorRegistry:
    """A registry with this job only."""
    found = CollectorRegistry(auto_describe=False)
    found.register(collector)
    return found


def exposition(collector: JobCollector) -> bytes:
    """The metrics in Prometheus's text format."""
    return generate_latest(registry(collector))


def now() -> str:
    """The time of day, for people."""
    return datetime.now(UTC).isoformat(timespec="seconds")


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

        pass

        self._run = run
        self._folder = run.folder
        self._collector = JobCollector(run.job.name or "job")
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
                    port, addr=host, registry=registry(self._collector)
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
                pass

                _replace(self._folder / METRICS, exposition(self._collector))
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
