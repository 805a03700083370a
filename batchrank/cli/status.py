"""``batchrank status``: how a job stands, running or not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from batchrank.cli.display import duration
from batchrank.cli.options_ import Json
from batchrank.cli.terminal import console, load, say_json
from batchrank.errors import JobError
from batchrank.observe.status import Status, read_status

_JOB_FILES = (".yaml", ".yml", ".toml")


def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A job's output folder, or its job file.")],
    as_json: Json = False,
) -> None:
    """Tell how a job stands: progress, time to go, spend. Disturbs nothing: the job may be running."""
    found = read_status(output_folder(folder))
    if as_json:
        say_json(found.data())
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _facts(found):
        table.add_row(name, value)
    console(soft_wrap=True).print(table)


def output_folder(path: Path) -> Path:
    """The output folder: the path itself, or what a job file names.

    Raises:
        JobError: the job file can't be understood, or writes to standard output.
    """
    if path.suffix not in _JOB_FILES or not path.is_file():
        return path
    job = load(path)
    if job.output is None or job.output.path == "-":
        raise JobError(f"{path}: output.path is standard output, so there is no folder to look at")
    return Path(job.output.path)


def _facts(found: Status) -> Iterator[tuple[str, str]]:
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


def _progress(found: Status, progress: dict[str, Any]) -> Iterator[tuple[str, str]]:
    failed = f", {progress['failed']:,} failed" if progress["failed"] else ""
    if found.state == "complete":
        yield "queries", f"{progress['queries']:,} ranked{failed}"
    else:
        share = f"{progress['share']:.0%} of the input"
        yield (
            "queries",
            f"{progress['queries']:,} ranked ({share}){failed}, {progress['unfinished']:,} under way",
        )
    if found.state == "running" and progress.get("trouble"):
        yield "trouble", progress["trouble"]
    seconds = max(progress["elapsed"], 1e-6)
    yield "documents", f"{progress['documents']:,}, {progress['documents'] / seconds:,.0f}/s"
    yield (
        "requests",
        f"{progress['requests']:,} sent, {progress['in_flight']:,} in flight, {progress['retries']:,} retries, "
        f"{progress['throttled']:,} throttled (429), {progress['reused']:,} from the ledger",
    )
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


def _counted(found: Status, progress: dict[str, Any]) -> str:
    """What counts against caps that hold for more or less than the run."""
    told = []
    if found.max_tokens is not None:
        told.append(f"{progress['counted_tokens']:,} of {found.max_tokens:,} tokens")
    if found.max_cost is not None and progress["counted_cost"] is not None:
        told.append(f"{progress['counted_cost']:,.4f} of {found.max_cost:g} {progress['currency']}")
    return ", ".join(told or ["none"]) + {"day": " a day (UTC)", "total": " in all"}.get(found.per, "")
