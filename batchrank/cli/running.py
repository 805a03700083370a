"""Runs a job under a display, with signals handled."""

import os
import signal
import sys
from contextlib import suppress

import anyio
from rich.console import Console

from batchrank.cli.display import Display, closing_lines
from batchrank.errors import InterruptedRunError
from batchrank.job import Job
from batchrank.pipeline import Options, Report, Run

_NAMES = {signal.SIGINT: "SIGINT", signal.SIGTERM: "SIGTERM"}


def run_job(job: Job, *, fresh: bool, forget: bool, only_failed: bool, quiet: bool) -> Report:
    """Run a job to its end, showing how it goes on stderr."""
    return execute(Run(job, Options(fresh=fresh, forget=forget, only_failed=only_failed)), quiet=quiet)


def execute(run: Run, *, quiet: bool) -> Report:
    """Run under uvloop where there is one."""
    options: dict[str, bool] = {}
    with suppress(ImportError):
        import uvloop  # noqa: F401 only to see whether it is there

        options["use_uvloop"] = True
    console = Console(stderr=True, highlight=False)
    report = anyio.run(_watched, run, console, quiet, backend_options=options)
    if not quiet or report.exit_code:
        for line in closing_lines(run, report):
            console.print(line, markup=False, soft_wrap=True)
    return report


async def _watched(run: Run, console: Console, quiet: bool) -> Report:
    async with anyio.create_task_group() as group:
        group.start_soon(_heed_signals, run)
        if not quiet:
            group.start_soon(Display(run, console).show)
        fault: Exception | None = None
        try:
            report = await run.execute()
        except Exception as error:
            fault = error
        group.cancel_scope.cancel()
    if fault is not None:
        raise fault
    return report


async def _heed_signals(run: Run) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            if run.stopping:
                os._exit(128 + number)
            name = _NAMES[signal.Signals(number)]
            print(f"{name}: waiting for requests in flight; once more to stop at once", file=sys.stderr)
            run.stop(InterruptedRunError(f"interrupted by {name}; run the job again to continue", number))
