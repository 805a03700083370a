"""Defines ``batchrank status``, which looks at a job, once or until its run ends, and disturbs nothing.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchrank.bars import duration
from batchrank.cli.help import Json
from batchrank.cli.terminal import console, load, ranking, replicas, say, say_json, shown_json
from batchrank.errors import ExitCode, JobError

if TYPE_CHECKING:
    from rich.table import Table

    from batchrank.job.config import Job
    from batchrank.observe.facts import Status


_JOB_FILES = (".yaml", ".yml", ".toml")
_EVERY = 1.0
"""Seconds between two looks: a run writes its status as often."""
_LINE_EVERY = 10.0
"""Seconds between two lines in a pipe, so that a log stays readable."""


def status(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A job's output folder, or its job file.")],
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on until the run ends, and end with its exit code."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell how a job stands: progress, time to go, spend. Disturbs nothing: the job may be running.

    With --follow and --json: one object a line whenever there is news.
    """
    place = output_folder(folder)
    if follow:
        raise typer.Exit(follow_run(place, _status_table, _status_line, as_json=as_json))
    from batchrank.observe.facts import read_status

    found = read_status(place)
    if as_json:
        say_json(found.data())
        return
    console(soft_wrap=True).print(_status_table(found))


def _status_table(found: "Status") -> "Table":
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _status_facts(found):
        table.add_row(name, value)
    return table


def _status_line(found: "Status") -> str:
    left_out = ("job", "replicas", "note")
    return "; ".join(f"{name} {value}" for name, value in _status_facts(found) if name not in left_out)


def output_folder(path: str) -> Path:
    """The output's folder on this machine: the path itself, or that of the job that a job file holds.

    Raises:
        JobError: the job file can't be understood, or writes to standard output; or it is an address.
    """
    if "://" in path:
        raise JobError(
            f"{path}: how a job stands is told on the machine that runs it, not in the store; name its job file, or "
            "the folder that it keeps beside its ledger"
        )
    job = named_job(path, ranked=False)
    return Path(path) if job is None or job.output_folder is None else job.output_folder


def named_job(path: str, *, ranked: bool = True) -> "Job | None":
    """The job that a job file holds, with its newest output; None where the path is no job file, but an output.

    Args:
        path: a job file, or an output.
        ranked: whether an output without any ranking doesn't count, where each day has one.

    Raises:
        JobError: the job file can't be understood, or writes to standard output.
    """
    if not is_job_file(Path(path)):
        return None
    job = load(Path(path))
    if job.output_folder is None:
        raise JobError(f"{path}: output.path is standard output, so there is no folder to look at")
    if job.output is None or job.output.dated is None:
        return job
    from batchrank.pipeline.nights import latest

    return latest(job, ranked=ranked)


def tonights(job: "Job") -> "Job":
    """The job with the output that a run would write to now, which is said where it is that of another day."""
    from batchrank.pipeline.nights import going_on

    found, note = going_on(job)
    if note is not None:
        say(f"note: {note}", error=True)
    return found


def output_of(path: str) -> str:
    """Where the rankings are that a path names: of a job file its job's newest, else the path itself.

    Raises:
        JobError: as ``named_job``.
    """
    job = named_job(path)
    return path if job is None or job.destination is None else os.fspath(job.destination)


def is_job_file(path: Path) -> bool:
    """Whether a path names a job file, as opposed to an output folder."""
    return path.suffix in _JOB_FILES and path.is_file()


def _status_facts(found: "Status") -> Iterator[tuple[str, str]]:
    yield "job", found.name
    code = "" if found.exit_code is None else f", exit code {found.exit_code}"
    ago = duration(max(0.0, found.age))
    yield "state", f"{found.state}{code}, process {found.pid} on {found.host}, last heard of {ago} ago"
    if found.progress is not None:
        yield from _progress(found, found.progress)
    if found.reason:
        yield "reason", found.reason
    if found.state == "killed":
        yield "hint", "run the job again: it goes on where it stopped"
    for notice in found.notices:
        yield "note", notice


def _progress(found: "Status", progress: dict[str, Any]) -> Iterator[tuple[str, str]]:
    failed = f", {progress['failed']:,} failed" if progress["failed"] else ""
    share = "" if found.state == "complete" else f" ({progress['share']:.0%} of the input)"
    under_way = f", {progress['unfinished']:,} under way" if found.state == "running" else ""
    yield "queries", f"{progress['queries']:,} ranked{share}{failed}{under_way}"
    if found.state == "running" and progress.get("trouble"):
        yield "trouble", progress["trouble"]
    if found.state == "running" and progress.get("forecast"):
        yield "forecast", progress["forecast"]
    seconds = max(progress["elapsed"], 1e-6)
    in_flight = f"{progress['in_flight']:,} in flight, " if found.state == "running" else ""
    yield (
        "documents",
        f"{progress['documents']:,} in answered requests, {progress['documents'] / seconds:,.0f}/s",
    )
    yield (
        "requests",
        f"{progress['requests']:,} sent, {in_flight}{progress['retries']:,} retries, "
        f"{progress['throttled']:,} throttled (429), {progress['reused']:,} from the ledger",
    )
    if progress.get("replicas"):
        yield "replicas", replicas(progress["replicas"])
    if progress.get("keys"):
        yield "keys", replicas(progress["keys"])
    if found.state == "running" and progress.get("rankers") is not None:
        yield "processes", ranking(progress["rankers"], progress["machines"])
    if found.state == "running" and progress.get("gate"):
        yield "held back by", progress["gate"]
    yield "quota", f"{progress['quota_used']:.0%} used in the last minute"
    possible = progress.get("possible_tokens")
    possibly = f", {possible:,} of them possibly billed without a result" if possible else ""
    cap = f" of {found.max_tokens:,} allowed" if found.max_tokens is not None and found.per == "run" else ""
    yield "tokens", f"{progress['tokens']:,}{cap}{possibly}"
    if progress["cost"] is not None:
        cap = f" of {found.max_cost:g} allowed" if found.max_cost is not None and found.per == "run" else ""
        yield "cost", f"{progress['cost']:,.4f} {progress['currency']}{cap}"
    if found.per != "run":
        yield "cap", _counted(found, progress)
    left = progress["eta"]
    running = found.state == "running" and left is not None
    yield "time", duration(seconds) + (f", about {duration(left)} to go" if running else "")


def _counted(found: "Status", progress: dict[str, Any]) -> str:
    """What counts against caps that hold for more or less than the run."""
    told = []
    if found.max_tokens is not None:
        told.append(f"{progress['counted_tokens']:,} of {found.max_tokens:,} tokens")
    if found.max_cost is not None and progress["counted_cost"] is not None:
        told.append(f"{progress['counted_cost']:,.4f} of {found.max_cost:g} {progress['currency']}")
    return ", ".join(told or ["none"]) + {"day": " a day (UTC)", "total": " in all"}.get(found.per, "")


def follow_run(
    folder: Path, shown: "Callable[[Status], Table]", line: "Callable[[Status], str]", *, as_json: bool
) -> int:
    """Show a job until its run has ended: in place on a terminal, else a line every ten seconds and one at the end.

    Args:
        folder: the output folder.
        shown: a status as a table.
        line: a status as a line.
        as_json: one JSON object a line instead, whenever there is news.

    Returns:
        The exit code of the run; 1 for one that was killed, as it has none.

    Raises:
        InputError: there is no status to follow.
    """
    terminal = console()
    if terminal.is_terminal and not as_json:
        from rich.live import Live

        with Live(console=terminal, auto_refresh=False) as live:
            for found in _news(folder):
                live.update(shown(found), refresh=True)
    elif as_json:
        for found in _news(folder):
            _say_json_line(found)
    else:
        found = _print_lines(folder, line)
    return ExitCode.FAILED if found.exit_code is None else found.exit_code


def _news(folder: Path) -> Iterator["Status"]:
    """The status whenever it was written anew, until it is that of a run that has ended."""
    from batchrank.observe.facts import read_status

    last = None
    while True:
        found = read_status(folder)
        if found != last:
            yield found
        last = found
        if found.state != "running":
            return
        time.sleep(_EVERY)


def _print_lines(folder: Path, line: "Callable[[Status], str]") -> "Status":
    told = float("-inf")
    for found in _news(folder):  # at least one
        if found.state != "running" or time.monotonic() - told >= _LINE_EVERY:
            say(line(found))
            told = time.monotonic()
    return found


def _say_json_line(found: "Status") -> None:
    import orjson

    print(shown_json(orjson.dumps(found.data()).decode()), flush=True)
