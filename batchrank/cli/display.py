"""Shows how a run goes: live on a terminal, a line now and then in a pipe, or as log records for machines.

rich is imported where there is a terminal only: a job of a scheduler needs none of it.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from batchrank.bars import Bar, Screen, duration
from batchrank.cli.terminal import bars as drawing
from batchrank.cli.terminal import ranking, replicas, say
from batchrank.pipeline.report import Report
from batchrank.pipeline.run import Run
from batchrank.pipeline.summary import Progress
from batchrank.pipeline.view import REFRESH, run_bars
from batchrank.tokens import counter
from batchrank.write.folder import LETTERS

if TYPE_CHECKING:
    from rich.console import Console

_LINE_EVERY = 10.0
"""Seconds between two lines in a pipe, so that the log of a night stays readable."""


class Display:
    """Shows a run's progress until cancelled.

    Args:
        run: the run.
        bars: draw bars where stderr is a terminal; otherwise there are lines there too.
        above: what stands above the run's own bars.
    """

    def __init__(self, run: Run, *, bars: bool = True, above: Sequence[Bar] = ()) -> None:
        self._run = run
        self._console = drawing(bars)
        self._above = above
        self._notices = 0

    async def show(self) -> None:
        """Redraw on a terminal, or print a line every ten seconds."""
        if self._console is not None:
            await self._redraw(self._console)
        waited, well = 0.0, True
        while True:
            for notice in self.news():
                say(notice, error=True)
            await anyio.sleep(REFRESH)
            waited += REFRESH
            progress = self._run.progress()
            if progress and (waited >= _LINE_EVERY or (well and progress.trouble)):
                waited, well = 0.0, not progress.trouble
                say(_line(progress), error=True)

    async def _redraw(self, terminal: "Console") -> None:
        run = self._run
        with Screen(terminal) as screen:
            while True:
                for notice in self.news():
                    screen.say(notice)
                if progress := run.progress():
                    bars = [*self._above, *run_bars(progress, run.job.budget, run.gauge)]
                    screen.show(bars, list(_below(progress)), f"{progress.share:.0%} {run.job.name}")
                await anyio.sleep(REFRESH)

    def news(self) -> Sequence[str]:
        """The notices that weren't shown yet."""
        found = self._run.notices[self._notices :]
        self._notices += len(found)
        return found


_ALARMS = ("trouble", "forecast", "replicas")
"""Facts that have a line of their own below the bars."""


def _below(progress: Progress) -> Iterator[str]:
    """What stands below the bars: the numbers that a bar doesn't tell."""
    seconds = max(progress.elapsed, 1e-6)
    facts = dict(_facts(progress))
    yield from (f"{name}: {facts[name]}" for name in _ALARMS if name in facts)
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    cost = "" if progress.cost is None else f", {progress.cost:,.4f} {progress.currency}"
    yield (
        f"{progress.queries:,} queries written{failed}, {progress.unfinished:,} under way; "
        f"{progress.documents:,} documents; {progress.tokens:,} tokens{cost}"
    )
    retries = f", {progress.retries:,} retries" if progress.retries else ""
    reused = f", {progress.reused:,} reused" if progress.reused else ""
    held = f", held back by {progress.gate}" if progress.gate else ""
    pace = f"{progress.requests / seconds * 60:,.0f} of {progress.rpm:,.0f} requests/min"
    quota = f"{progress.quota_used:.0%} of the quota"
    yield f"{pace}, {quota}, {progress.in_flight} in flight{retries}{reused}{held}; {duration(seconds)}"


def _facts(progress: Progress) -> Iterator[tuple[str, str]]:
    seconds = max(progress.elapsed, 1e-6)
    if progress.trouble:
        yield "trouble", progress.trouble
    if progress.forecast:
        yield "forecast", progress.forecast
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    yield (
        "queries",
        f"{progress.queries:,} written ({progress.share:.0%} of the input){failed}, {progress.unfinished:,} under way",
    )
    yield "documents", f"{progress.documents:,} in answered requests, {progress.documents / seconds:,.0f}/s"
    per_minute = progress.requests / seconds * 60
    yield (
        "requests",
        f"{progress.requests:,}, {per_minute:,.0f}/min of {progress.rpm:,.0f} ({progress.quota_used:.0%} of the quota "
        f"in the last minute), {progress.in_flight} in flight, {progress.retries:,} retries"
        f"{f'; held back by {progress.gate}' if progress.gate else ''}",
    )
    if progress.replicas:
        yield "replicas", replicas(progress.replicas)
    if progress.keys:
        yield "keys", replicas(progress.keys)
    if progress.rankers is not None:
        yield "processes", ranking(progress.rankers, progress.machines)
    if progress.reused:
        yield "reused", f"{progress.reused:,} requests from the ledger"
    tokens = progress.billed_tokens / seconds * 60
    possibly = f", {progress.possible_tokens:,} of them possibly billed" if progress.possible_tokens else ""
    yield "tokens", f"{progress.tokens:,}{possibly}, {tokens:,.0f}/min of {progress.tpm:,.0f}"
    if progress.cost is not None:
        possibly = f", {progress.possible_cost:,.4f} of it possibly billed" if progress.possible_cost else ""
        yield "cost", f"{progress.cost:,.4f} {progress.currency}{possibly}"
    left = "" if progress.eta is None else f", about {duration(progress.eta)} to go"
    yield "time", duration(progress.elapsed) + left


def _line(progress: Progress) -> str:
    return "; ".join(f"{name} {value}" for name, value in _facts(progress))


def closing_lines(run: Run, report: Report) -> Iterator[str]:
    """What came of a run, for people."""
    totals, spend, process = run.totals, report.data["spend"], report.data["process"]
    extra = f", {totals.extra:+.1%} beyond one pass" if totals.multi_chunk and totals.extra > 0 else ""
    yield f"ranked {totals.queries:,} queries, {totals.documents:,} documents in {duration(process['seconds'])}"
    reused = f", {process['reused_requests']:,} reused" if process["reused_requests"] else ""
    retried = sum(process["retries"].values())
    retries = f", {retried:,} retries" if retried else ""
    lost = f", {process['ambiguous']} sent, no answer received" if process["ambiguous"] else ""
    yield f"requests: {process['requests']:,} sent{reused}{retries}{lost}; documents sent: {totals.sent:,}{extra}"
    if process["replicas"]:
        yield f"replicas: {replicas(process['replicas'])}"
    if process["keys"]:
        yield f"keys: {replicas(process['keys'])}"
    if totals.reused:
        share = totals.reused / max(totals.one_pass, 1)
        yield f"reused from earlier runs: {totals.reused:,} documents, {share:.1%} of all, were not asked about again"
    if totals.multi_chunk:
        verdicts = ", ".join(f"{name} {count:,}" for name, count in totals.verdicts.items())
        depth = run.job.merge.top_k
        yield f"exact to depth {depth}: {totals.certified:,} of {totals.queries:,} queries; scores found: {verdicts}"
    if totals.compared:
        share = totals.agreed / totals.compared
        yield f"answers agree about {share:.2%} of {totals.compared:,} pairs of documents that two of them order"
    cost = "" if spend["cost"] is None else f", {spend['cost']:,.4f} {spend['currency']}"
    saved = f"; reused answers saved {spend['saved_tokens']:,} tokens" if spend["saved_tokens"] else ""
    if saved and spend["saved_cost"]:
        saved += f", {spend['saved_cost']:,.4f} {spend['currency']}"
    emulated = f" (by the emulator: {_real_price(run)})" if run.job.emulated else ""
    yield f"spent: {spend['tokens']:,} tokens{cost}{emulated}{_possibly(spend)}{saved}"
    if totals.truncated:
        longest = run.job.card.item_limits
        yield f"truncated: {totals.truncated:,} texts of more than {longest} were cut; see limits.long_documents"
    if totals.failed or totals.refused:
        causes = ", ".join(f"{name} {count:,}" for name, count in sorted(totals.causes.items()))
        written = run.outputs.written
        partial = run.outputs.letters if report.reason else str(written and written / LETTERS)
        where = "the log above" if written is None else partial
        yield f"failed: {causes}; see {where}"
    for notice in report.data["notices"]:
        if notice not in run.notices:
            yield f"note: {notice}"
    if report.reason is not None:
        yield f"stopped: {report.reason}"
    elif run.outputs.target is not None:
        yield f"output: {run.outputs.target}"


def _possibly(spend: dict[str, Any]) -> str:
    """What of it may have been billed without a result, where there is any."""
    if not spend["possibly_billed_tokens"]:
        return ""
    money = spend["possibly_billed_cost"]
    cost = "" if money is None else f", {money:,.4f} {spend['currency']}"
    return f", of which possibly billed without a result: {spend['possibly_billed_tokens']:,} tokens{cost}"


def _real_price(run: Run) -> str:
    found = counter(run.job.tokenizer, run.job.card.tokenizer)
    if found.exact:
        return f"the real API would have charged {'about ' if found.estimate else ''}this"
    return "it counts bytes here, the real API would have charged a fraction"


log = logging.getLogger("batchrank.run")
_EVERY = 10.0
"""Seconds between two records of the progress, as between two lines in a pipe."""
_LOG_INTERVAL = 0.5
"""Seconds between two looks for notices, which are logged as they come."""


class Events:
    """Logs a run's notices as they come, and its progress every ten seconds."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._notices = 0

    async def show(self) -> None:
        """Log until cancelled."""
        waited = 0.0
        while True:
            self._tell_notices()
            await anyio.sleep(_LOG_INTERVAL)
            waited += _LOG_INTERVAL
            if waited >= _EVERY and (progress := self._run.progress()):
                waited = 0.0
                known = {f.name: getattr(progress, f.name) for f in dataclasses.fields(progress)}
                known.pop("latency")
                log.info("progress", extra=known)

    def closing(self, report: Report) -> None:
        """Log what came of the run."""
        self._tell_notices()
        for notice in report.data["notices"]:
            if notice not in self._run.notices:
                log.warning("note", extra={"note": notice})
        process = {name: value for name, value in report.data["process"].items() if name != "timeline"}
        keys = ("complete", "exit_code", "reason", "totals", "spend")
        log.log(
            logging.ERROR if report.exit_code else logging.INFO,
            "ended",
            extra={key: report.data[key] for key in keys} | {"sending": process},
        )

    def _tell_notices(self) -> None:
        for notice in self._run.notices[self._notices :]:
            log.info("note", extra={"note": notice})
        self._notices = len(self._run.notices)
