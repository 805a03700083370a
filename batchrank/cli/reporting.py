"""``batchrank report``: how a run went, as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from batchrank.cli.status import output_folder
from batchrank.cli.terminal import say
from batchrank.write.text import write_text


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A job's output folder, or its job file.")],
    qrels: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Judgements: shows quality before and after. Repeatable."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: report.html in DIR.")
    ] = None,
    plan: Annotated[bool, typer.Option(help="Read the input once more, to compare with the plan.")] = True,
) -> None:
    """Write one self-contained HTML file that tells how a run went.

    It opens from disk, asks the network for nothing and runs no script. Needs batchrank[report].
    """
    from batchrank.report.facts import gather
    from batchrank.report.page import render

    folder = output_folder(folder)
    path = output or folder / "report.html"
    page = render(gather(folder, qrels=qrels or (), with_plan=plan))
    write_text(path, page)
    say(str(path))
