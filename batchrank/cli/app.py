"""Defines ``batchrank`` and its commands; each does little more than call the library and print.

What takes long to import is imported by the command that needs it, here and in the modules that this one imports, so
that ``--help`` and short commands start at once.
"""

import errno
import logging
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Annotated

import typer

from batchrank.cli.bench import bench
from batchrank.cli.diff import diff
from batchrank.cli.emulate import emulate
from batchrank.cli.eval import evaluate, report
from batchrank.cli.explain import explain
from batchrank.cli.gate import gate
from batchrank.cli.help import (
    Command,
    JobFile,
    Json,
    LogFormatOption,
    NoProgress,
    Quiet,
    Ray,
    Set,
    Verbose,
    epilog,
    manual,
)
from batchrank.cli.jobs import check, init, leave_on_interrupt, run_job, schema, unwind_on_interrupt
from batchrank.cli.ledger import show_ledger
from batchrank.cli.models import models
from batchrank.cli.plan import show_plan
from batchrank.cli.rerank import rerank
from batchrank.cli.runs import runs
from batchrank.cli.status import status, tonights
from batchrank.cli.terminal import (
    LogFormat,
    as_json,
    drop_unwritten,
    load,
    log_to_stderr,
    open_streams,
    say,
)
from batchrank.cli.terminal import bars as drawing
from batchrank.cli.view import view
from batchrank.errors import BatchrankError, ExitCode
from batchrank.version import __version__

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_GRACE = 0.2
"""Seconds that a thread of ours has to end once its work is done."""

app = typer.Typer(
    name="batchrank",
    help="Rerank offline over paid, rate-limited APIs. Rankings go to files, logs to stderr.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_Fresh = Annotated[bool, typer.Option(help="Start over; paid answers are still reused.")]
_Forget = Annotated[bool, typer.Option(help="With --fresh: drop the paid answers too, and pay again.")]
_OnlyFailed = Annotated[bool, typer.Option(help="Send requests only for what is in failed.jsonl.")]
_MaxTime = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Stop in time: 2h, 90m, 1h30m from now. Exit code 75, goes on later."),
]
_Until = Annotated[
    str | None,
    typer.Option(metavar="HH:MM", help="Stop in time for the next 06:00 by this machine's clock."),
]
_Order = Annotated[
    str | None,
    typer.Option(
        metavar="FIELD", help="Rank queries by this field, -FIELD the highest first: the same as input.order."
    ),
]
_Processes = Annotated[
    str | None,
    typer.Option(metavar="N|auto", help="Rank in so many processes: the same as engine.processes."),
]
_MetricsPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="The port that Prometheus may ask; metrics.prom is always written."),
]
_MetricsHost = Annotated[str, typer.Option(help="The address to listen at.")]


@app.command()
def run(
    job: JobFile,
    overrides: Set = None,
    fresh: _Fresh = False,
    forget: _Forget = False,
    only_failed: _OnlyFailed = False,
    max_time: _MaxTime = None,
    until: _Until = None,
    order: _Order = None,
    processes: _Processes = None,
    ray: Ray = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    metrics_port: _MetricsPort = None,
    metrics_host: _MetricsHost = "127.0.0.1",
) -> None:
    """Run a job, or continue it where it stopped.

    Exit codes: 0 complete; 1 failed; 2 usage or job file; 3 complete but some queries failed; 4 input unusable;
    5 complete but past a threshold of gate; 75 stopped, run it again later to continue; 129/130/143 interrupted,
    likewise.
    """
    if forget and not fresh:
        raise typer.BadParameter("--forget drops paid answers; add --fresh if you mean it")
    log_to_stderr(verbose=verbose, quiet=quiet, format=log_format)
    if processes is not None and ray is not None:
        raise typer.BadParameter("--processes and --ray exclude each other")
    more = [] if processes is None else [f"engine.processes={processes}"]
    more += [] if order is None else [f"input.order={order}"]
    more += [] if ray is None else [f"engine.ray.address={ray}"]
    ended = run_job(
        load(job, [*(overrides or []), *more]),
        fresh=fresh,
        forget=forget,
        only_failed=only_failed,
        quiet=quiet,
        bars=not no_progress,
        port=metrics_port,
        host=metrics_host,
        max_time=max_time,
        until=until,
    )
    leave(ended.exit_code)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the demo's files go.")] = Path("demo"),
    overrides: Set = None,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Rerank the standard library's documentation for questions of a programmer, on an emulated API.

    Writes candidates.jsonl, qrels.txt and job.yaml into FOLDER, runs that job, and shows what reranking changed.
    """
    from batchrank.cli.emulate import demonstrate

    log_to_stderr(verbose=False, quiet=quiet)
    leave(demonstrate(folder, overrides or [], quiet=quiet, bars=not no_progress))


@app.command()
def plan(
    job: JobFile,
    overrides: Set = None,
    as_json: Json = False,
    no_progress: NoProgress = False,
) -> None:
    """Tell what a job would do and cost, net of the ledger too: reads the input once, sends nothing, needs no key."""
    log_to_stderr(verbose=False, quiet=False)
    show_plan(tonights(load(job, overrides)), as_json=as_json, bars=not no_progress)


@app.command()
def ledger(
    job: JobFile,
    overrides: Set = None,
    compact: Annotated[bool, typer.Option(help="Drop what the job's last complete run did not use.")] = False,
    max_age: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            help="Drop answers older than AGE, such as 36h, 30d or 4w, and those of unknown age, whoever used them.",
        ),
    ] = None,
    backup: Annotated[
        Path | None, typer.Option(help="Write a consistent copy of it to FILE first.", metavar="FILE")
    ] = None,
    no_progress: NoProgress = False,
) -> None:
    """Show what a job's ledger holds: answers, tokens, cost, age, size; drop what is no longer needed."""
    log_to_stderr(verbose=False, quiet=False)
    show_ledger(
        load(job, overrides), unused=compact, max_age=max_age, backup=backup, bars=drawing(not no_progress)
    )


for _command in (
    init,
    check,
    rerank,
    models,
    schema,
    manual,
    status,
    runs,
    view,
    explain,
    report,
    bench,
    diff,
    gate,
    emulate,
):
    app.command(name=_command.__name__)(_command)
app.command(name="eval")(evaluate)
for _known in app.registered_commands:
    _known.cls = Command
    _known.epilog = epilog(_known.name or str(getattr(_known.callback, "__name__", "")))


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Rerank offline over paid, rate-limited APIs. Rankings go to files, logs to stderr."""
    if version:
        say(f"batchrank {__version__}")
        raise typer.Exit


def leave(code: int) -> None:
    """End the process with a code; at once if a reader still waits for input, which may never come."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(_GRACE)
    if any(t is not threading.current_thread() and not t.daemon for t in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)


def main() -> None:
    """Run the command line; whatever goes wrong becomes one message and an exit code."""
    unwind_on_interrupt()
    open_streams()
    try:
        code = _ended()
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(ExitCode.FAILED)  # whoever read our output went away: nothing can be said any more
    except OSError as error:
        _tell(
            f"standard output can't be written: {error.strerror or error}; write it to a place with room",
            "failed",
        )
        code = ExitCode.FAILED
    leave_on_interrupt()
    drop_unwritten(sys.stdout)
    drop_unwritten(sys.stderr)
    sys.exit(code)


def _ended() -> int:
    """Run the command line, and return its exit code."""
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BatchrankError as error:
        _tell(str(error), "failed")
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:  # a fault of ours: its trace is needed, and may hold anything
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            raise  # from standard output; for files there are errors of our own
        _tell(traceback.format_exc().rstrip(), "crashed")
        return ExitCode.FAILED
    return ExitCode.COMPLETE


def _tell(text: str, what: str) -> None:
    if as_json():
        logging.getLogger("batchrank").error(what, extra={"error": text})
    else:
        say(f"batchrank: {text}", error=True, lines=True)
