"""Defines ``runs``, which lists what runs a job has had: when, what they asked and reused, what they cost.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchrank.cli.help import Json
from batchrank.cli.status import is_job_file, output_folder
from batchrank.cli.terminal import console, duration, load, say_json
from batchrank.errors import ExitCode, JobError

if TYPE_CHECKING:
    from rich.table import Table


_WIDTH = 160
"""Columns of the table, also in a pipe, which has no width."""
_ENDS = {
    ExitCode.COMPLETE: "complete",
    ExitCode.FAILED_QUERIES: "complete",
    ExitCode.GATE: "complete",
    ExitCode.STOPPED: "stopped",
}


def runs(
    folder: Annotated[str, typer.Argument(metavar="OUT", help="A job's output folder, or its job file.")],
    every: Annotated[bool, typer.Option("--all", help="All runs of the ledger, other jobs' too.")] = False,
    last: Annotated[int | None, typer.Option(min=1, help="The last runs only, so many.")] = None,
    as_json: Json = False,
) -> None:
    """List the runs of a job, the oldest first: date, queries, documents asked and reused, cost, gate, nDCG.

    They are noted in the ledger, so they stay when an output is replaced. A run that goes on is no obstacle.
    """
    from batchrank.ledger.history import read

    ledger, output = _places(folder)
    lines = read(ledger)
    found = [line for line in lines if every or _same(line["output"], output)]
    if not found:
        others = f"; of other outputs it knows {len(lines):,}, which --all lists" if lines else ""
        raise JobError(f"{ledger}: there is no run of {output} in it yet{others}")
    found = found[-last:] if last else found
    current = _running(folder)
    told = [line | {"end": _end(line, current)} for line in found]
    if as_json:
        say_json(told)
        return
    console(width=_WIDTH).print(_table(told, every=every))


def _places(folder: str) -> tuple[Path, str]:
    """Where the ledger of a job is, and where its output goes.

    Raises:
        JobError: there is no ledger.
    """
    from batchrank.ledger import LEDGER
    from batchrank.write.folder import OutputFolder

    if is_job_file(Path(folder)):
        job = load(Path(folder))
        path, output = job.ledger_path, "-" if job.destination is None else str(job.destination)
    else:
        place, output = output_folder(folder), folder
        known = OutputFolder(place).owner() or {}
        there = (Path(known.get("ledger_file", "")), place / LEDGER, Path(known.get("ledger", "")))
        path = next((file for file in there if file.is_file()), place / LEDGER)
    if path is None or not path.is_file():
        raise JobError(f"{path}: there is no ledger yet: run the job first, or name its job file")
    return path, output


def _same(noted: str, output: str) -> bool:
    if noted == output or "://" in noted + output or "-" in (noted, output):
        return noted == output
    return Path(noted).resolve() == Path(output).expanduser().resolve()


def _running(folder: str) -> str | None:
    """When the process began that runs the job now; None where none does."""
    from batchrank.errors import BatchrankError
    from batchrank.observe.facts import read_status

    try:
        status = read_status(output_folder(folder))
    except BatchrankError:
        return None
    return status.started if status.state == "running" else None


def _end(line: dict[str, Any], running: str | None) -> str:
    """How a run ended, in a word."""
    if (code := line["exit_code"]) is None:
        return "running" if running is not None and line["started"] >= running else "killed"
    if code in tuple(ExitCode) and ExitCode(code).interrupted:
        return "interrupted"
    return _ENDS.get(code, "failed")


def _table(lines: Sequence[dict[str, Any]], *, every: bool) -> "Table":
    from rich.table import Table

    judged = any(line["gate"] for line in lines)
    depths = sorted({line["ndcg_depth"] for line in lines if line["ndcg"] is not None})
    table = Table(box=None, pad_edge=False)
    for name in ("started, UTC", *(("output",) if every else ()), "end"):
        table.add_column(name, overflow="fold")
    for name in ("code", "took", "queries", "failed", "asked", "reused", "cost"):
        table.add_column(name, justify="right")
    if judged:
        table.add_column("gate")
        table.add_column("RBO", justify="right")
    if depths:
        table.add_column("nDCG" + (f"@{depths[0]}" if len(depths) == 1 else ""), justify="right")
    for line in lines:
        table.add_row(*_row(line, every=every, judged=judged, measured=bool(depths)))
    return table


def _near(output: str | None) -> str:
    """An output's folder, from here where it lies below."""
    path = Path(output or "")
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _row(line: dict[str, Any], *, every: bool, judged: bool, measured: bool) -> list[str]:
    row = [line["started"][:16].replace("T", " "), *([_near(line["output"])] if every else []), line["end"]]
    row.append("" if line["exit_code"] is None else str(int(line["exit_code"])))
    row.append("" if line["seconds"] is None else duration(line["seconds"]))
    row += [
        "" if name not in line else f"{line[name]:,}" for name in ("queries", "failed", "asked", "reused")
    ]
    cost = line.get("cost")
    row.append("" if cost is None else f"{cost:,.4f} {line['currency']}")
    if judged:
        row += [line["gate"] or "", "" if line["rbo"] is None else f"{line['rbo']:.4f}"]
    if measured:
        row.append("" if line["ndcg"] is None else f"{line['ndcg']:.4f}")
    return row
