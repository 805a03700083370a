"""``batchrank eval``: prints how good rankings are."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from batchrank.cli.options_ import Json
from batchrank.cli.terminal import console, say_json

if TYPE_CHECKING:
    from batchrank.quality.compare import Comparison, Evaluation


_WIDTH = 160


def evaluate(
    ranking: Annotated[str, typer.Argument(metavar="RANKING", help="A job's output folder, or a run.")],
    qrels: Annotated[
        list[str], typer.Option("--qrels", metavar="FILE", help="Relevance judgements. Repeatable.")
    ],
    measures: Annotated[
        list[str] | None,
        typer.Option("--measure", "-m", help="nDCG@10, P@5, ... as ir-measures calls it. Repeatable."),
    ] = None,
    per_query: Annotated[
        bool, typer.Option("--per-query", "-q", help="Also show each query's values.")
    ] = False,
    before: Annotated[
        str | None,
        typer.Option(
            metavar="RANKING", help="What to compare with; default: the first stage, as the output tells it."
        ),
    ] = None,
    ranked_only: Annotated[
        bool, typer.Option("--ranked-only", help="Leave judged queries without a ranking out.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Judge rankings by relevance judgements: before and after reranking, with a paired test of the difference.

    p is that of Fisher's randomisation test, two-sided: how often swapping the two values of some queries at random
    gives as large a difference.
    """
    from batchrank.quality.compare import evaluate as judge
    from batchrank.quality.measures import DEFAULT

    result = judge(ranking, qrels, measures=measures or DEFAULT, before=before, ranked_only=ranked_only)
    if as_json:
        say_json(_data(result, per_query=per_query))
        return
    terminal = console(width=_WIDTH)
    if per_query:
        terminal.print(_per_query(result), soft_wrap=not terminal.is_terminal)
    terminal.print(_summary(result))
    for note in result.notes:
        terminal.print(f"note: {note}", soft_wrap=True)


def _summary(result: "Evaluation") -> Table:
    compared = result.before is not None
    table = Table(
        box=None, pad_edge=False, title_justify="left", title=f"{len(result.queries):,} judged queries"
    )
    table.add_column("measure", no_wrap=True)
    names = ("before", "after", "difference", "p", "better", "worse", "same") if compared else ("value",)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for one in result.comparisons:
        table.add_row(one.measure, *(_cells(one, len(result.queries)) if compared else [f"{one.after:.4f}"]))
    return table


def _cells(one: "Comparison", queries: int) -> list[str]:
    assert one.before is not None and one.difference is not None and one.p_value is not None
    better, worse = one.better or 0, one.worse or 0
    p = f"{one.p_value:.4f}" if one.p_value >= 0.0001 else "<0.0001"
    figures = [f"{one.before:.4f}", f"{one.after:.4f}", f"{one.difference:+.4f}", p]
    return [*figures, f"{better:,}", f"{worse:,}", f"{queries - better - worse:,}"]


def _per_query(result: "Evaluation") -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("query", no_wrap=True)
    for name in result.after:
        for when in ("before", "after") if result.before is not None else ("",):
            table.add_column(f"{name} {when}".strip(), justify="right", no_wrap=True)
    for query in result.queries:
        cells = []
        for name, values in result.after.items():
            cells += [] if result.before is None else [f"{result.before[name][query]:.4f}"]
            cells.append(f"{values[query]:.4f}")
        table.add_row(query, *cells)
    return table


def _data(result: "Evaluation", *, per_query: bool) -> dict[str, Any]:
    data: dict[str, Any] = {
        "queries": len(result.queries),
        "measures": {
            one.measure: {
                "before": one.before,
                "after": one.after,
                "difference": one.difference,
                "p_value": one.p_value,
                "better": one.better,
                "worse": one.worse,
            }
            for one in result.comparisons
        },
        "notes": list(result.notes),
    }
    if per_query:
        data["per_query"] = {
            query: {
                name: {
                    "before": None if result.before is None else result.before[name][query],
                    "after": values[query],
                }
                for name, values in result.after.items()
            }
            for query in result.queries
        }
    return data
