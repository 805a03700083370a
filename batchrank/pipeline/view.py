"""Draws a run while it goes on: how much of the input is done, what is spent of a cap, and what goes on before."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from batchrank.bars import Bar, Screen, drawable, drawing_console, duration, to_go, working
from batchrank.errors import escaped
from batchrank.job.secrets import secrets_of
from batchrank.job.sections import Budget
from batchrank.pipeline.summary import Progress
from batchrank.pipeline.workers import background_task
from batchrank.read.base import Gauge

if TYPE_CHECKING:
    from rich.console import Console

    from batchrank.pipeline.run import Run

REFRESH = 0.25
"""Seconds between two drawings: what happens appears at once to the eye, and drawing takes next to no time."""
_PER = {"run": "", "day": " a day (UTC)", "total": " in all"}


def reading(gauge: Gauge) -> Bar:
    """How far reading has come, or what goes on before the first query can be read."""
    now = gauge.ahead or gauge
    return Bar(now.label, now.share if now.measured else None)


def watching(console: "Console | None") -> Callable[[Gauge], AbstractContextManager[None]]:
    """What draws how far reading has come, for as long as a block runs."""
    return lambda gauge: working(console, lambda: reading(gauge))


def run_bars(progress: Progress, budget: Budget, gauge: Gauge) -> list[Bar]:
    """How far a run has come, and below it how far its spend, where a cap holds it."""
    if gauge.ahead is not None:
        now = reading(gauge)
        return [replace(now, text=to_go(now.share, progress.elapsed)), *_cap(progress, budget)]
    pace = f"{progress.documents / max(progress.elapsed, 1e-6):,.0f} documents/s"
    left = duration(progress.elapsed) if progress.eta is None else f"about {duration(progress.eta)} to go"
    share = progress.share if gauge.measured else None
    return [Bar("queries", share, f"{pace}, {left}"), *_cap(progress, budget)]


def _cap(progress: Progress, budget: Budget) -> list[Bar]:
    """The cap that is nearest to being reached."""
    found = []
    if budget.max_cost is not None and progress.counted_cost is not None:
        text = f"{progress.counted_cost:,.4f} of {budget.max_cost:g} {progress.currency}"
        found.append((progress.counted_cost / budget.max_cost, "cost", text))
    if budget.max_tokens is not None:
        text = f"{progress.counted_tokens:,} of {budget.max_tokens:,}"
        found.append((progress.counted_tokens / budget.max_tokens, "tokens", text))
    if not found:
        return []
    share, label, text = max(found)
    return [Bar(label, share, text + _PER[budget.per], thin=True)]


@asynccontextmanager
async def drawing(run: "Run", wanted: bool | None) -> AsyncIterator[None]:
    """Draw a run's bars while the block runs, for a program or a notebook that runs a job by itself."""
    secrets = secrets_of(run.job)
    console = drawing_console(wanted, lambda text: escaped(secrets.hide(text)))
    if console is None or not drawable(console):
        yield
        return

    async def draw() -> None:
        while True:
            if progress := run.progress():
                trouble = [progress.trouble] if progress.trouble else []
                screen.show(run_bars(progress, run.job.budget, run.gauge), trouble)
            await anyio.sleep(REFRESH)

    with Screen(console) as screen:
        async with background_task(draw):
            yield
