"""``batchrank bench``: runs the cells of a benchmark that are not done, and writes one table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from batchrank.bench.matrix import Bench, Cell, load_bench
from batchrank.bench.table import Result, done, result, same_job
from batchrank.bench.table_ import markdown, write_tables
from batchrank.cli.logs import log_to_stderr
from batchrank.cli.options_ import Quiet, Set
from batchrank.cli.run import run_job
from batchrank.cli.terminal import keep_secret, say
from batchrank.errors import BatchrankError

_FAILED_CELLS = 3
_INTERRUPTED = (129, 130, 143)
_COMPLETE = (0, 3, 5)


def bench(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The benchmark file, .yaml.")],
    overrides: Set = None,
    only_table: Annotated[
        bool, typer.Option("--table", help="Run nothing; write the table of what is done.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Run datasets x models x instructs x merge methods, each as a job of its own, and write one table.

    What is done stays; what was cut short goes on where it stopped; a cell that fails does not stop the others.
    Exit codes: 0 all done; 3 some cells failed; 2 benchmark file; 129/130/143 interrupted: run it again to continue.
    """
    log_to_stderr(verbose=False, quiet=quiet)
    found, cells = load_bench(file)
    results: list[Result] = []
    code = 0
    for number, cell in enumerate(cells, 1):
        if not quiet:
            say(f"[{number}/{len(cells)}] {cell.name}", error=True)
        code = code if code in _INTERRUPTED else 0
        error = ""
        if not only_table and not code:
            code, error = _run(cell, overrides or (), quiet=quiet)
        told = "" if code in _INTERRUPTED else error
        results.append(result(cell, found.measures, overrides=overrides or (), error=told))
        _write(results, cells, found, file)
    for line in markdown(results).removesuffix("\n").split("\n"):
        say(line)
    failed = any(r.state == "failed" for r in results)
    raise typer.Exit(code if code in _INTERRUPTED else _FAILED_CELLS if failed else 0)


def _run(cell: Cell, overrides: Sequence[str], *, quiet: bool) -> tuple[int, str]:
    """Run one cell unless it is done; its exit code, and why it is not complete."""
    try:
        summary = done(cell)
        if summary is not None and same_job(cell, overrides, summary):
            return 0, ""
        job = cell.job(overrides)
        keep_secret(job)
        report = run_job(job, fresh=False, forget=False, only_failed=False, quiet=quiet)
    except BatchrankError as error:
        if not quiet:
            say(f"batchrank: {error}", error=True, lines=True)
        return error.exit_code, str(error)
    return report.exit_code, "" if report.exit_code in _COMPLETE else str(report.reason)


def _write(results: Sequence[Result], cells: Sequence[Cell], found: Bench, file: Path) -> None:
    """Write the table as it stands: cells to come are in it as such."""
    rest = [Result(cell, "missing") for cell in cells[len(results) :]]
    write_tables([*results, *rest], file.parent / Path(found.output).expanduser())
