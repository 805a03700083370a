"""Defines ``diff``, which shows what two outputs have in common.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from batchrank.cli.help import Json
from batchrank.cli.status import output_of
from batchrank.cli.terminal import console, say_json

if TYPE_CHECKING:
    from rich.table import Table

    from batchrank.quality.diff import Difference, Figure, Output


_WIDTH = 120
"""Columns of the tables, also in a pipe, which has no width."""
_SHOWN = 5
"""Ids that a line names."""


def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A job's output folder or job file, or a run.")],
    second: Annotated[str, typer.Argument(metavar="B", help="What is compared with it.")],
    cutoffs: Annotated[
        list[int] | None,
        typer.Option(
            "--cutoff",
            "-k",
            min=1,
            help="A depth at which the exchange of documents is told; default: 1, 5, 10 and the jobs' top_k. "
            "Repeatable.",
        ),
    ] = None,
    persistence: Annotated[
        float,
        typer.Option(
            help="The p of rank-biased overlap, above 0 and below 1: the higher, the deeper it looks."
        ),
    ] = 0.9,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Compare the first documents of each query only, so many.")
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="Name the queries that moved most, so many.")] = 10,
    as_json: Json = False,
) -> None:
    """Compare two outputs query by query: overlap, order, exchanged documents, the queries that moved most, cost.

    They may be of different jobs and models, in any format that can be read, with their queries in any order.
    """
    from batchrank.quality.diff import diff as compare

    if not 0 < persistence < 1:
        raise typer.BadParameter("it must be above 0 and below 1", param_hint="--persistence")
    first, second = output_of(first), output_of(second)
    found = compare(first, second, cutoffs=cutoffs or (), persistence=persistence, depth=depth, top=top)
    if as_json:
        say_json(found.data())
        return
    terminal = console(width=_WIDTH)
    terminal.print(_outputs(found.outputs))
    terminal.print()
    terminal.print(_figures(found))
    for line in _only(found):
        terminal.print(line, soft_wrap=True)
    if found.moved:
        terminal.print()
        terminal.print(_moved(found))


def _table(*names: str, numbers: int) -> "Table":
    """A table whose columns from ``numbers`` on are numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(names):
        table.add_column(name, justify="right" if i >= numbers else "left", overflow="fold")
    return table


def _outputs(outputs: "tuple[Output, Output]") -> "Table":
    table = _table("", "output", "model", "method", "queries", "tokens", "cost", numbers=4)
    for letter, one in zip("AB", outputs, strict=True):
        method = "" if one.method is None else f"{one.method}, top {one.top_k}"
        tokens = "" if one.tokens is None else f"{one.tokens:,}"
        cost = "" if one.cost is None else f"{one.cost:,.4f} {one.currency}"
        table.add_row(letter, one.path, one.model or "", method, f"{one.queries:,}", tokens, cost)
    return table


def _figures(found: "Difference") -> "Table":
    table = _table(f"{found.queries:,} queries of both", "mean", "worst", "changed", numbers=1)
    table.add_row(f"rank-biased overlap, p = {found.persistence:g}", *_cells(found.rbo))
    table.add_row("Kendall's tau, common documents", *_cells(found.tau))
    for k, figure in found.churn.items():
        table.add_row(f"exchanged in the top {k:,}", *_cells(figure, share=True))
    return table


def _cells(figure: "Figure", *, share: bool = False) -> tuple[str, str, str]:
    mean, worst = (_value(value, share=share) for value in (figure.mean, figure.worst))
    return mean, worst, f"{figure.changed:,}"


def _value(value: float | None, *, share: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if share else f"{value:.4f}"


def _only(found: "Difference") -> Iterator[str]:
    for letter, (count, ids) in zip("AB", found.only, strict=True):
        if count:
            more = ", ..." if count > len(ids[:_SHOWN]) else ""
            named = f": {', '.join(ids[:_SHOWN])}{more}" if ids else ""
            yield f"only in {letter}: {count:,} {'query' if count == 1 else 'queries'}{named}"


def _moved(found: "Difference") -> "Table":
    k = max((k for k in found.churn if k <= 10), default=max(found.churn))
    table = _table("moved most", "RBO", "tau", f"top {k:,}", "best in A", "best in B", numbers=1)
    for column in table.columns[4:]:
        column.justify = "left"
    for one in found.moved:
        best = (name or "-" for name in one.first)
        table.add_row(one.query_id, _value(one.rbo), _value(one.tau), _value(one.churn[k], share=True), *best)
    return table
