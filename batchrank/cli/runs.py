"""Defines ``runs``, which lists what runs a job has had: when, what they asked and reused, what they cost.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchrank.bars import duration
from batchrank.cli.help import Json
from batchrank.cli.status import is_job_file, output_folder
from batchrank.cli.terminal import console, load, say_json
from batchrank.errors import ExitCode, JobError

if TYPE_CHECKING:
    from rich.table import Table

    from batchrank.job.paths import Dated


_WIDTH = 160
"""Columns of the table, also in a pipe, which has no width."""
_WIDE = 100
"""Columns from which there is room for what is asked for less."""
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
    from batchrank.ledger import state

    ledger, output, dated = _places(folder)
    lines = state.lines(ledger)
    found = [line for line in lines if every or _same(line["output"], output, dated)]
    if not found:
        others = f"; of other outputs it knows {len(lines):,}, which --all lists" if lines else ""
        raise JobError(f"{ledger}: there is no run of {output} in it yet{others}")
    found = found[-last:] if last else found
    current = _running(folder)
    told = [line | {"end": _end(line, current)} for line in found]
    if as_json:
        say_json(told)
        return
    terminal = console(width=_WIDTH)
    every = every or len({line["output"] for line in told}) > 1
    terminal.print(_table(told, every=every, wide=terminal.width >= _WIDE))


def _places(folder: str) -> "tuple[Path, str, Dated | None]":
    """Where the ledger of a job is, where its output goes, and how that is on other days, if it differs.

    Raises:
        JobError: there is no ledger.
    """
    from batchrank.ledger import LEDGER
    from batchrank.write.folder import OutputFolder

    dated = None
    if is_job_file(Path(folder)):
        job = load(Path(folder))
        path, output = job.ledger_path, "-" if job.destination is None else str(job.destination)
        if job.output is not None and (dated := job.output.dated) is not None:
            output = dated.template
    else:
        place, output = output_folder(folder), folder
        known = OutputFolder(place).owner() or {}
        there = (Path(known.get("ledger_file", "")), place / LEDGER, Path(known.get("ledger", "")))
        path = next((file for file in there if file.is_file()), place / LEDGER)
    if path is None or not path.is_file():
        raise JobError(f"{path}: there is no ledger yet: run the job first, or name its job file")
    return path, output, dated


def _same(noted: str, output: str, dated: "Dated | None") -> bool:
    from batchrank.io.address import located

    if dated is not None:
        return dated.day_of(located(noted)) is not None
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


def _table(lines: Sequence[dict[str, Any]], *, every: bool, wide: bool) -> "Table":
    """The lines as a table; a narrow one leaves out what is not asked for most."""
    from rich.table import Table

    columns = _columns(lines, every=every, wide=wide)
    table = Table(box=None, pad_edge=False)
    for name, cell in columns.items():
        text = cell in (_started, _output, _ended, _gate)
        table.add_column(
            name, justify="left" if text else "right", overflow="fold", no_wrap=cell is not _output
        )
    for line in lines:
        table.add_row(*(cell(line) for cell in columns.values()))
    return table


def _columns(
    lines: Sequence[dict[str, Any]], *, every: bool, wide: bool
) -> dict[str, Callable[[dict[str, Any]], str]]:
    """The columns that these lines need, and what fills them."""
    judged = any(line["gate"] for line in lines)
    depths = sorted({line["ndcg_depth"] for line in lines if line["ndcg"] is not None})
    currencies = sorted({line["currency"] for line in lines if line.get("cost") is not None})
    one = len(currencies) == 1
    columns: dict[str, Callable[[dict[str, Any]], str]] = {"started, UTC": _started}
    columns |= {"output": _output} if every else {}
    columns |= {"end": _ended}
    columns |= {"took": _took} if wide else {}
    failed = ("failed",) if any(line.get("failed") for line in lines) else ()
    columns |= {name: partial(_count, name) for name in ("queries", *failed, "asked", "reused")}
    columns |= {f"cost, {currencies[0]}" if one else "cost": partial(_cost, currency=not one)}
    columns |= {"gate": _gate} if judged else {}
    columns |= {"RBO": partial(_figure, "rbo")} if judged and wide else {}
    name = "nDCG" + (f"@{depths[0]}" if len(depths) == 1 else "")
    return columns | ({name: partial(_figure, "ndcg")} if depths else {})


def _started(line: dict[str, Any]) -> str:
    return str(line["started"])[:16].replace("T", " ")


def _ended(line: dict[str, Any]) -> str:
    """The end in a word, with its exit code where neither the word nor the gate tells it."""
    code = line["exit_code"]
    told = not code or code == ExitCode.GATE or line["end"] == "interrupted"
    return str(line["end"]) if told else f"{line['end']}, {code}"


def _took(line: dict[str, Any]) -> str:
    return "" if line["seconds"] is None else duration(line["seconds"])


def _count(name: str, line: dict[str, Any]) -> str:
    return "" if name not in line else f"{line[name]:,}"


def _cost(line: dict[str, Any], *, currency: bool) -> str:
    cost = line.get("cost")
    return "" if cost is None else f"{cost:,.4f}" + (f" {line['currency']}" if currency else "")


def _gate(line: dict[str, Any]) -> str:
    return line["gate"] or ""


def _figure(name: str, line: dict[str, Any]) -> str:
    return "" if line[name] is None else f"{line[name]:.4f}"


def _output(line: dict[str, Any]) -> str:
    """An output's folder, from here where it lies below."""
    path = Path(line["output"] or "")
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
