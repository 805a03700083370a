"""Shows a job's progress as Prometheus metrics, so that a monitoring system can watch it."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from batchrank.pipeline.summary import Progress
from batchrank.send.stats import LATENCY_BOUNDS

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
        yield self._latency(progress)

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


def text(collector: JobCollector) -> bytes:
    """The metrics in the text format."""
    return generate_latest(registry(collector))
