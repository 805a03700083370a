"""Shows several judged runs side by side, each with its test against the first: what ``eval`` prints of several.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from batchrank.cli.terminal import console, say_json

if TYPE_CHECKING:
    from rich.table import Table

    from batchrank.quality.experiment import Experiment, Judged
    from batchrank.quality.judgements import Comparison


_WIDTH = 160
"""Columns of the table, also in a pipe, which has no width."""


def p_cell(p: float) -> str:
    """A p-value for people."""
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"


def show_experiment(found: "Experiment", *, per_query: bool, as_json: bool) -> None:
    """Print what came of it, as tables or as JSON."""
    if as_json:
        say_json(_data(found, per_query=per_query))
        return
    terminal = console(width=_WIDTH)
    if per_query:
        terminal.print(_per_query(found), soft_wrap=not terminal.is_terminal)
    terminal.print(_summary(found))
    for note in found.notes:
        terminal.print(f"note: {note}", soft_wrap=True)


def _summary(found: "Experiment") -> "Table":
    from rich.table import Table

    title = f"{len(found.queries):,} judged queries, each run against {found.runs[0].path}"
    table = Table(box=None, pad_edge=False, title_justify="left", title=title)
    table.add_column("measure", no_wrap=True)
    table.add_column("run", overflow="fold")
    for name in ("value", "difference", "p", "p, Holm", "better", "worse", "same"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, first in enumerate(found.runs[0].comparisons):
        table.add_row(first.measure, found.runs[0].path, f"{first.after:.4f}")
        for run in found.runs[1:]:
            table.add_row("", run.path, *_cells(run, run.comparisons[number], len(found.queries)))
    return table


def _cells(run: "Judged", one: "Comparison", queries: int) -> Iterator[str]:
    assert one.difference is not None and one.p_value is not None
    better, worse = one.better or 0, one.worse or 0
    yield from (f"{one.after:.4f}", f"{one.difference:+.4f}")
    yield from (p_cell(one.p_value), p_cell(run.corrected[one.measure]))
    yield from (f"{better:,}", f"{worse:,}", f"{queries - better - worse:,}")


def _per_query(found: "Experiment") -> "Table":
    """A line for each query and run, so that any number of runs fits."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("query", no_wrap=True)
    table.add_column("run", no_wrap=True)
    for name in found.runs[0].values:
        table.add_column(name, justify="right", no_wrap=True)
    for query in found.queries:
        for run in found.runs:
            table.add_row(query, run.path, *(f"{values[query]:.4f}" for values in run.values.values()))
    return table


def _data(found: "Experiment", *, per_query: bool) -> dict[str, Any]:
    return {
        "queries": len(found.queries),
        "runs": [_run_data(found, run, per_query=per_query) for run in found.runs],
        "notes": list(found.notes),
    }


def _run_data(found: "Experiment", run: "Judged", *, per_query: bool) -> dict[str, Any]:
    data: dict[str, Any] = {
        "run": run.path,
        "measures": {
            one.measure: {
                "value": one.after,
                "difference": one.difference,
                "p_value": one.p_value,
                "p_holm": run.corrected.get(one.measure),
                "better": one.better,
                "worse": one.worse,
            }
            for one in run.comparisons
        },
    }
    if per_query:
        data["per_query"] = {
            query: {name: values[query] for name, values in run.values.items()} for query in found.queries
        }
    return data
