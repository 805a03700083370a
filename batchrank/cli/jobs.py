"""Defines ``init``, ``check`` and ``schema``, and how ``run`` and other commands run a job under a display.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from batchrank.cli.help import JobFile, Json, Model, NoProgress, Ray, Set, Url, complete_role
from batchrank.cli.status import tonights
from batchrank.cli.terminal import as_json, load, say, say_json
from batchrank.cli.terminal import bars as drawing
from batchrank.errors import BatchrankError, ExitCode, InterruptedRunError

if TYPE_CHECKING:
    from batchrank.bars import Bar
    from batchrank.cli.display import Display, Events
    from batchrank.job.config import Job
    from batchrank.observe.observer import Observer
    from batchrank.pipeline.report import Report
    from batchrank.pipeline.run import Run


_SAMPLE = 1000
"""Enough records to show what is wrong with a format, and read in a moment."""


def init(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A file, a quoted glob or a folder.")],
    job: Annotated[Path, typer.Option("--job", "-o", metavar="FILE", help="The job file to write.")] = Path(
        "job.yaml"
    ),
    model: Model = None,
    url: Url = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="ROLE=NAME",
            help="Which column or key holds what: --column query=question. Repeatable.",
            autocompletion=complete_role,
        ),
    ] = None,
    overrides: Set = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the job file.")] = False,
) -> None:
    """Look at a dataset and write a commented job file for it, which runs as it is.

    Without the model's API key in the environment the job runs on the built-in emulator, at no cost.
    Exit codes: 0 written; 4 written, but nothing of the data can be ranked yet: the lines to fill are marked; 2 usage.
    """
    from batchrank.planning.dataset import facts
    from batchrank.planning.init import write_job
    from batchrank.read.told import FILL_IN

    pairs = [item.partition("=") for item in columns or ()]
    if wrong := next((role for role, equals, name in pairs if not (equals and name)), None):
        raise typer.BadParameter(f"{wrong}: write role=name, as query=question", param_hint="--column")
    found = write_job(
        *(data, job), model=model, url=url, columns={role: name for role, _, name in pairs},
        overrides=overrides or (), force=force,
    )  # fmt: skip
    for line in facts(found):
        say(line)
    say()
    if found.queries:
        say(f"wrote {job}; next: batchrank check {job}")
        return
    fill = f"fill in what says {FILL_IN} in it, then" if found.told.unknown else "mend the data, then"
    say(f"wrote {job}; {fill}: batchrank check {job}")
    raise typer.Exit(ExitCode.INPUT)


def check(
    job: JobFile,
    overrides: Set = None,
    limit: Annotated[int, typer.Option(min=1, help="Records of the input to look at.")] = _SAMPLE,
    everything: Annotated[bool, typer.Option("--all", help="Look at the whole input.")] = False,
    ask: Annotated[
        bool,
        typer.Option("--ask", help="Also send one request without documents, which is not billed."),
    ] = False,
    ray: Ray = None,
    as_json: Json = False,
    no_progress: NoProgress = False,
) -> None:
    """Find what would keep a job from running: key, endpoint, output, ledger, data, Ray's machines. Spends nothing.

    Exit codes: 0 ready; otherwise the one that `batchrank run` would end with: 2 job or key, 3 some queries would
    fail, 4 input unusable, 5 gate.against holds nothing to compare with, 1 output or ledger unusable or the key
    refused, 75 the endpoint can't be reached.
    """
    from batchrank.pipeline.view import watching
    from batchrank.planning.check import Finding, check_job, ending

    findings, watch = list[Finding](), watching(drawing(not no_progress))
    found = tonights(load(job, [*(overrides or ()), *([f"engine.ray.address={ray}"] if ray else [])]))
    for finding in check_job(found, limit=None if everything else limit, ask=ask, watch=watch):
        findings.append(finding)
        if not as_json:
            say(f"{finding.state:<5} {finding.name:<8} {finding.text}")
    code = ending(findings)
    if as_json:
        say_json({"exit_code": code, "findings": [asdict(finding) for finding in findings]})
    elif not code:
        say(f"ready: batchrank run {job}{'' if ray is None else f' --ray {ray}'}")
    raise typer.Exit(code)


def schema(
    bench: Annotated[
        bool, typer.Option("--bench", help="The schema of benchmark files, which batchrank bench takes.")
    ] = False,
) -> None:
    """Print the JSON Schema of the job file, by which editors complete and check it."""
    if bench:
        from batchrank.bench.schema import bench_schema

        say_json(bench_schema())
        return
    from batchrank.job.schema import job_schema

    say_json(job_schema())


_HEEDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def unwind_on_interrupt() -> None:
    """Let SIGINT unwind the process from now on; where it is ignored (``nohup``, a shell's job), it stays so."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _unwind)


def leave_on_interrupt() -> None:
    """Let SIGINT end the process at once from now on, as there is nothing left to do."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)


@contextmanager
def heeding(told: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Tell of signals, in the running event loop, until the context is left; one that is ignored stays so.

    The loops' own way would put back Python's handler for SIGINT in the end, and with it the traceback.
    """
    import asyncio

    loop = asyncio.get_running_loop()

    def tell(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(told, signal.Signals(number))

    before = {number: signal.getsignal(number) for number in _HEEDED}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, tell)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, before[number])


def _unwind(number: int, frame: FrameType | None) -> None:
    """Raise SystemExit; in the midst of an import, end at once: modules print or swallow what is raised in them."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            os._exit(ExitCode.of_signal(number))
        frame = frame.f_back
    signal.signal(number, _leave)
    raise SystemExit(ExitCode.of_signal(number))


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(ExitCode.of_signal(number))


log = logging.getLogger(__name__)


def run_job(
    job: "Job",
    *,
    fresh: bool,
    forget: bool,
    only_failed: bool,
    quiet: bool,
    bars: bool = True,
    above: "Sequence[Bar]" = (),
    port: int | None = None,
    host: str = "127.0.0.1",
    max_time: str | None = None,
    until: str | None = None,
) -> "Report":
    """Run a job to its end, showing how it goes on stderr; Prometheus may ask at ``port``."""
    from batchrank.launch import make_run
    from batchrank.pipeline.deadline import first
    from batchrank.pipeline.run import Options

    end = first(max_time, until, time.time())
    run = make_run(job, Options(fresh=fresh, forget=forget, only_failed=only_failed, until=end))
    return execute(run, quiet=quiet, bars=bars, above=above, port=port, host=host)


def execute(
    run: "Run",
    *,
    quiet: bool,
    bars: bool = True,
    above: "Sequence[Bar]" = (),
    port: int | None = None,
    host: str = "127.0.0.1",
) -> "Report":
    """Run under uvloop where there is one."""
    import anyio

    from batchrank.cli.display import Display, Events, closing_lines
    from batchrank.observe.observer import Observer
    from batchrank.pipeline.hooks import tell
    from batchrank.pipeline.workers import settle_process

    options: dict[str, bool] = {}
    with suppress(ImportError):
        import uvloop  # noqa: F401 only to see whether it is there

        options["use_uvloop"] = True
    settle_process()
    events = Events(run) if as_json() else None
    display = Display(run, bars=bars, above=above)
    show = events or display
    try:
        with Observer(run, port=port, host=host) as observer:
            report = anyio.run(_watched, run, None if quiet else show, observer, backend_options=options)
    except Exception as error:
        tell(run.job, error)
        raise
    if events is not None:
        events.closing(report)
    elif not quiet or report.exit_code:
        late = [] if quiet else display.news()  # what came after the last look, as in a run that took no time
        for line in (*late, *closing_lines(run, report)):
            say(line, error=True)
    tell(run.job, report)
    return report


async def _watched(run: "Run", show: "Display | Events | None", observer: "Observer") -> "Report":
    import anyio

    async with anyio.create_task_group() as group:
        group.start_soon(observer.watch)
        if show is not None:
            group.start_soon(show.show)
        report: Report | None = None
        fault: Exception | None = None
        with heeding(partial(_stop, run, [])):
            try:
                report = await run.execute()
            except Exception as error:
                fault = error
        group.cancel_scope.cancel()
    observer.ended(report, fault if isinstance(fault, BatchrankError) else None)
    if report is None:
        assert fault is not None
        raise fault
    return report


def _stop(run: "Run", heard: list[signal.Signals], number: signal.Signals) -> None:
    if heard:
        progress = run.progress()
        lost = progress.in_flight if progress else 0
        _warn(f"{number.name} again: stopped at once; answers that were lost, and possibly billed: {lost:,}")
        os._exit(ExitCode.of_signal(number))
    heard.append(number)
    _warn(
        f"{number.name}: waiting for requests in flight, for {run.options.drain:g} s at most; once more to stop at "
        "once, which loses their answers, though they may be billed"
    )
    run.stop(InterruptedRunError(f"interrupted by {number.name}; run the job again to continue", number))


def _warn(text: str) -> None:
    if as_json():
        log.warning("%s", text)
    else:
        say(text, error=True)
