"""Defines ``gate``, which shows what the gate of a job found, and accepts rankings that did not pass.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchrank.cli.help import Json
from batchrank.cli.status import named_job, output_folder
from batchrank.cli.terminal import console, say, say_json
from batchrank.errors import ExitCode

if TYPE_CHECKING:
    from batchrank.quality.accept import Found


_WIDTH = 160
"""Columns of the table, also in a pipe, which has no width: a reason is one line there."""


class Act(StrEnum):
    """What to do."""

    SHOW = "show"
    ACCEPT = "accept"


def gate(
    act: Annotated[Act, typer.Argument(metavar="show|accept", help="Tell what was found, or accept it.")],
    folder: Annotated[str, typer.Argument(metavar="OUT", help="A job's output folder, or its job file.")],
    as_json: Json = False,
) -> None:
    """Show what the gate of a job's last complete run found, or accept the rankings although they did not pass.

    What is accepted is the new reference: the next runs are compared with it, and held to its nDCG where that is below
    min_ndcg, until the job says another min_ndcg. Exit codes: 0 passed, accepted or no gate to pass; 5 not passed;
    4 no complete run.
    """
    from batchrank.io.address import located
    from batchrank.quality.accept import accept, found

    job = named_job(folder)
    place = located(folder) if job is None or job.destination is None else job.destination
    kept = output_folder(folder) if job is None or job.output_folder is None else job.output_folder
    result = accept(place, kept) if act is Act.ACCEPT else found(place)
    if as_json:
        say_json({"passed": result.passed, "accepted": result.accepted, "judgement": result.judgement})
    else:
        _show(folder, result)
        if act is Act.ACCEPT and result.accepted is None:
            say("there is nothing to accept: it passed")
    raise typer.Exit(ExitCode.COMPLETE if result.passed else ExitCode.GATE)


def _show(folder: str, result: "Found") -> None:
    from rich.table import Table

    judgement = result.judgement
    if judgement is None:
        say(f"{folder}: the job has no gate")
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _facts(result, judgement):
        table.add_row(name, value)
    console(width=_WIDTH).print(table)
    if not result.passed:
        say(f"to accept it all the same: batchrank gate accept {folder}")


def _facts(result: "Found", judgement: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "gate", "passed" if judgement["passed"] else "NOT passed"
    if result.accepted:
        yield "accepted", f"{result.accepted}; the next runs are held to this one"
    for reason in judgement["reasons"]:
        yield "why", reason
    apart = [f"{judgement[name]:,} {name}" for name in ("appeared", "vanished") if judgement[name]]
    yield "queries", ", ".join([f"{judgement['compared']:,} compared, to depth {judgement['depth']}", *apart])
    for key, name in (("rbo", "rank-biased overlap"), ("tau", "Kendall's tau"), ("ndcg", "nDCG")):
        if judgement[key] is not None:
            before = judgement["ndcg_before"] if key == "ndcg" else None
            yield name, f"{judgement[key]:.4f}" + ("" if before is None else f", before {before:.4f}")
    for one in judgement["moved"]:
        yield "moved", f"{one['query_id']}, overlap {one['rbo']:.4f}"
