"""Defines the commands that judge rankings: ``eval`` and ``report``.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchrank.bars import Bar, working
from batchrank.cli.experiment import p_cell, show_experiment
from batchrank.cli.help import Json, NoProgress
from batchrank.cli.status import named_job, output_of
from batchrank.cli.terminal import bars as drawing
from batchrank.cli.terminal import console, say, say_json
from batchrank.errors import JobError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from batchrank.quality.judgements import Comparison, Evaluation


_WIDTH = 160
"""Columns of the table, also in a pipe, which has no width: the benchmark's has the most columns."""


_Rankings = Annotated[
    list[str],
    typer.Argument(
        metavar="RANKING",
        help="A job's output folder or job file, or a run, here or at an address; of several, the first is compared "
        "with.",
    ),
]
_Qrels = Annotated[
    list[str], typer.Option("--qrels", metavar="FILE", help="Relevance judgements. Repeatable.")
]
_Measures = Annotated[
    list[str] | None,
    typer.Option(
        "--measure", "-m", help="A measure by its name in ir-measures: nDCG@10, P@5, ... Repeatable."
    ),
]
_PerQuery = Annotated[bool, typer.Option("--per-query", "-q", help="Also show each query's values.")]
_Before = Annotated[
    str | None,
    typer.Option(
        metavar="RANKING", help="What to compare with; default: the first stage, as the output tells it."
    ),
]
_RankedOnly = Annotated[
    bool, typer.Option("--ranked-only", help="Leave judged queries without a ranking out.")
]
_Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Draw each query's difference in the first measure, as .svg, .png or .pdf. Needs batchrank[report].",
    ),
]


def evaluate(
    ranking: _Rankings,
    qrels: _Qrels,
    measures: _Measures = None,
    per_query: _PerQuery = False,
    before: _Before = None,
    ranked_only: _RankedOnly = False,
    plot: _Plot = None,
    as_json: Json = False,
    no_progress: NoProgress = False,
) -> None:
    """Judge rankings by relevance judgements: before and after reranking, with a paired test of the difference.

    Of several, each is tested against the first. p is that of Fisher's randomisation test, two-sided: how often
    swapping the two values of some queries at random gives as large a difference; several are corrected by Holm.
    """
    from batchrank.quality.measures import DEFAULT

    names, ranking = measures or DEFAULT, [output_of(path) for path in ranking]
    if len(ranking) > 1:
        if before is not None:
            raise typer.BadParameter(
                "several rankings are compared with the first one; give the earlier one as the first",
                param_hint="--before",
            )
        _several(
            ranking, qrels, names,
            ranked_only=ranked_only, per_query=per_query, plot=plot, as_json=as_json, bars=drawing(not no_progress),
        )  # fmt: skip
        return
    from batchrank.quality.judgements import evaluate as judge

    with working(drawing(not no_progress), partial(Bar, "judging", None)):
        result = judge(ranking[0], qrels, measures=names, before=before, ranked_only=ranked_only)
    if plot is not None:
        _plot_one(plot, ranking[0], result)
    if as_json:
        say_json(_data(result, per_query=per_query))
        return
    terminal = console(width=_WIDTH)
    if per_query:
        terminal.print(_per_query(result), soft_wrap=not terminal.is_terminal)
    terminal.print(_summary(result))
    for note in result.notes:
        terminal.print(f"note: {note}", soft_wrap=True)


def _several(
    targets: list[str],
    qrels: list[str],
    measures: Sequence[str],
    *,
    ranked_only: bool,
    per_query: bool,
    plot: Path | None,
    as_json: bool,
    bars: "Console | None",
) -> None:
    from batchrank.quality.experiment import experiment

    with working(bars, partial(Bar, "judging", None)):
        found = experiment(targets, qrels, measures=measures, ranked_only=ranked_only)
    if plot is not None:
        from batchrank.quality.chart import draw

        first, *others = found.runs
        name = next(iter(first.values))
        draw(plot, name, {run.path: (first.values[name], run.values[name]) for run in others})
    show_experiment(found, per_query=per_query, as_json=as_json)


def _plot_one(path: Path, target: str, result: "Evaluation") -> None:
    from batchrank.quality.chart import draw

    if result.before is None:
        raise JobError(
            "eval --plot: there is nothing to compare with; name it with --before, or give several rankings"
        )
    name = next(iter(result.after))
    draw(path, name, {target: (result.before[name], result.after[name])})


def _summary(result: "Evaluation") -> "Table":
    from rich.table import Table

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
    figures = [f"{one.before:.4f}", f"{one.after:.4f}", f"{one.difference:+.4f}", p_cell(one.p_value)]
    return [*figures, f"{better:,}", f"{worse:,}", f"{queries - better - worse:,}"]


def _per_query(result: "Evaluation") -> "Table":
    from rich.table import Table

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


def report(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="A job's output folder or address, or its job file.")
    ],
    qrels: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Judgements: shows quality before and after. Repeatable."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: report.html in DIR.")
    ] = None,
    plan: Annotated[
        bool, typer.Option(help="Read the input once more, to compare with the plan, and for texts.")
    ] = True,
) -> None:
    """Write one self-contained HTML file that tells how a run went.

    It opens from disk, asks the network for nothing and runs no script. Needs batchrank[report].
    """
    from batchrank.io.address import Address, located
    from batchrank.observe.facts import gather
    from batchrank.observe.page import render
    from batchrank.write.folder import REPORT, write_text

    job = named_job(folder)
    where = located(folder) if job is None or job.destination is None else job.destination
    path = output or (where if job is None else job.output_folder or where) / REPORT
    if isinstance(path, Address):
        raise JobError(f"{where}: the report is written on this machine; say where with --output FILE")
    page = render(gather(where, qrels=qrels or (), with_plan=plan))
    write_text(path, page)
    say(str(path))
