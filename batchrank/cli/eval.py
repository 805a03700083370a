"""Defines the commands that judge rankings: ``bench``, ``eval`` and ``report``.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchrank.bars import Bar, working
from batchrank.cli.benchplan import show_bench_plan
from batchrank.cli.experiment import p_cell, show_experiment
from batchrank.cli.help import Json, NoProgress, Quiet, Set
from batchrank.cli.jobs import run_job
from batchrank.cli.status import named_job
from batchrank.cli.terminal import bars as drawing
from batchrank.cli.terminal import console, keep_secret, log_to_stderr, say, say_json
from batchrank.errors import BatchrankError, ExitCode, JobError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from batchrank.bench.matrix import Bench, Cell
    from batchrank.bench.table import Result
    from batchrank.quality.judgements import Comparison, Evaluation


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
        raise typer.Exit(show_bench_plan(cells, overrides or (), bars=not (quiet or no_progress)))
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


_WIDTH = 160
"""Columns of the table, also in a pipe, which has no width: the benchmark's has the most columns."""


def evaluate(
    ranking: Annotated[
        list[str],
        typer.Argument(
            metavar="RANKING",
            help="A job's output folder, or a run, here or at an address; of several, the first is compared with.",
        ),
    ],
    qrels: Annotated[
        list[str], typer.Option("--qrels", metavar="FILE", help="Relevance judgements. Repeatable.")
    ],
    measures: Annotated[
        list[str] | None,
        typer.Option(
            "--measure", "-m", help="A measure by its name in ir-measures: nDCG@10, P@5, ... Repeatable."
        ),
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
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw each query's difference in the first measure, as .svg, .png or .pdf. Needs batchrank[report].",
        ),
    ] = None,
    as_json: Json = False,
    no_progress: NoProgress = False,
) -> None:
    """Judge rankings by relevance judgements: before and after reranking, with a paired test of the difference.

    Of several, each is tested against the first. p is that of Fisher's randomisation test, two-sided: how often
    swapping the two values of some queries at random gives as large a difference; several are corrected by Holm.
    """
    from batchrank.quality.measures import DEFAULT

    names = measures or DEFAULT
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
