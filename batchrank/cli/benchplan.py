"""Tells what the cells of a benchmark would send and cost, before any of them runs.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from batchrank.bars import Bar, duration, working
from batchrank.cli.terminal import bars as drawing
from batchrank.cli.terminal import console
from batchrank.errors import BatchrankError, ExitCode

if TYPE_CHECKING:
    from batchrank.bench.matrix import Cell
    from batchrank.planning.bill import Bill

_WIDTH = 160
"""Columns of the table, also in a pipe, which has no width."""
_DONE = "done"
_FIGURES = ("queries", "documents sent", "requests", "tokens", "cost", "at least")


def show_bench_plan(cells: "Sequence[Cell]", overrides: Sequence[str], *, bars: bool) -> ExitCode:
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
