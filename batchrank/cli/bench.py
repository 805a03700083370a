"""Defines ``batchrank bench``, which runs many jobs and writes one table, or tells what they would send and cost.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batchrank.bars import Bar, duration, working
from batchrank.cli.help import NoProgress, Quiet, Set
from batchrank.cli.jobs import run_job
from batchrank.cli.terminal import bars as drawing
from batchrank.cli.terminal import console, keep_secret, log_to_stderr, say
from batchrank.errors import BatchrankError, ExitCode

if TYPE_CHECKING:
    from batchrank.bench.matrix import Bench, Cell
    from batchrank.bench.table import Result
    from batchrank.planning.bill import Bill

_WIDTH = 160
"""Columns of the table, also in a pipe, which has no width."""
_DONE = "done"
_FIGURES = ("queries", "documents sent", "requests", "tokens", "cost", "at least")


def bench(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The benchmark file, .yaml.")],
    overrides: Set = None,
    only_table: Annotated[
        bool, typer.Option("--table", help="Run nothing; write the table of the cells that are done.")
    ] = False,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Run nothing; tell what is still to be sent, and what that costs.")
    ] = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Run datasets x models x instructs x merge methods, each as a job of its own, and write one table.

    What is done stays; what was cut short goes on where it stopped; a cell that fails does not stop the others.
    Exit codes: 0 all done; 3 some cells failed; 2 benchmark file; 129/130/143 interrupted: run it again to continue.
    """
    from batchrank.bench.matrix import load_bench
    from batchrank.bench.table import markdown, result

    log_to_stderr(verbose=False, quiet=quiet)
    found, cells = load_bench(file)
    if only_plan:
        raise typer.Exit(_show_plan(cells, overrides or (), bars=not (quiet or no_progress)))
    results: list[Result] = []
    code = ExitCode.COMPLETE
    for number, cell in enumerate(cells, 1):
        if not quiet:
            say(f"[{number}/{len(cells)}] {cell.name}", error=True)
        code = code if code.interrupted else ExitCode.COMPLETE
        error = ""
        if not only_table and not code:
            bar = Bar("cells", (number - 1) / len(cells), f"{number:,} of {len(cells):,}: {cell.name}")
            code, error = _run(cell, overrides or (), quiet=quiet, bar=None if no_progress else bar)
        told = "" if code.interrupted else error
        with working(drawing(not no_progress and not quiet), partial(Bar, "judging", None, cell.name)):
            results.append(result(cell, found.measures, overrides=overrides or (), error=told))
        _write(results, cells, found, file)
    for line in markdown(results).removesuffix("\n").split("\n"):
        say(line)
    failed = any(r.state == "failed" for r in results)
    if not code.interrupted:
        code = ExitCode.FAILED_QUERIES if failed else ExitCode.COMPLETE
    raise typer.Exit(code)


def _run(cell: "Cell", overrides: Sequence[str], *, quiet: bool, bar: Bar | None) -> tuple[ExitCode, str]:
    """Run one cell unless it is done, below the bar of all; its exit code, and why it is not complete."""
    from batchrank.bench.table import done, same_job

    try:
        summary = done(cell)
        if summary is not None and same_job(cell, overrides, summary):
            return ExitCode.COMPLETE, ""
        job = cell.job(overrides)
        keep_secret(job)
        report = run_job(
            job, fresh=False, forget=False, only_failed=False,
            quiet=quiet, bars=bar is not None, above=[bar] if bar is not None else [],
        )  # fmt: skip
    except BatchrankError as error:
        if not quiet:
            say(f"batchrank: {error}", error=True, lines=True)
        return error.exit_code, str(error)
    return report.exit_code, "" if report.exit_code.complete else str(report.reason)


def _write(results: "Sequence[Result]", cells: "Sequence[Cell]", found: "Bench", file: Path) -> None:
    """Write the table as it stands: cells to come are in it as such."""
    from batchrank.bench.table import Result, write_tables

    rest = [Result(cell, "missing") for cell in cells[len(results) :]]
    write_tables([*results, *rest], file.parent / Path(found.output).expanduser())


def _show_plan(cells: "Sequence[Cell]", overrides: Sequence[str], *, bars: bool) -> ExitCode:
    """Print what is still to be sent; the exit code: 3 where some cells couldn't run."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("cell", no_wrap=True)
    for name in _FIGURES:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    sums: dict[str, float] = {}
    faults: list[str] = []
    for number, cell in enumerate(cells, 1):
        look = partial(Bar, "cells", (number - 1) / len(cells), f"{number:,} of {len(cells):,}: {cell.name}")
        with working(drawing(bars), look):
            bill, queries, currency, told = _planned(cell, overrides)
        if bill is None and told != _DONE:
            faults.append(f"{cell.name}: {told}")
            told = "can't run"
        table.add_row(cell.name, *_figures(bill, queries, currency), told)
        if bill is not None and bill.cost is not None:
            sums[currency or ""] = sums.get(currency or "", 0.0) + bill.cost
    terminal = console(width=_WIDTH)
    terminal.print(table)
    if sums:
        total = ", ".join(f"{cost:,.4f} {currency}".strip() for currency, cost in sums.items())
        terminal.print(
            f"{total} in all, or less: what several cells ask is paid once, as they share a ledger",
            soft_wrap=True,
        )
    for line in faults:
        terminal.print(line, soft_wrap=True)
    return ExitCode.FAILED_QUERIES if faults else ExitCode.COMPLETE


def _planned(cell: "Cell", overrides: Sequence[str]) -> "tuple[Bill | None, int, str | None, str]":
    """What a cell would send, its queries and currency, and a word on it."""
    from batchrank.bench.table import done, same_job
    from batchrank.planning.plan import plan

    try:
        summary = done(cell)
        if summary is not None and same_job(cell, overrides, summary):
            return None, summary["totals"]["queries"], None, _DONE
        job = cell.job(overrides)
        found = plan(job)
    except BatchrankError as error:
        return None, 0, None, str(error)
    net, whole = found.net, found.methods[job.merge.method]
    rejected = f"{found.lost:,} queries or records can't be ranked" if found.lost else ""
    return net or whole, found.queries, found.currency, rejected


def _figures(bill: "Bill | None", queries: int, currency: str | None) -> list[str]:
    if bill is None:
        return [f"{queries:,}" if queries else "", *[""] * (len(_FIGURES) - 1)]
    cost = "-" if bill.cost is None else f"{bill.cost:,.4f} {currency}"
    counts = (queries, bill.documents, bill.requests, bill.tokens)
    return [*(f"{count:,}" for count in counts), cost, duration(bill.seconds)]
