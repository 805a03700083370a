"""Defines ``view``, which shows a ranking before and after, and what it shares with ``explain``.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from batchrank.cli.status import named_job
from batchrank.cli.terminal import console, keep_secret, log_to_stderr, say, say_json_line, shown

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from batchrank.io.address import Where
    from batchrank.look.source import Origin
    from batchrank.look.view import Document, View

_QUERIES = 10
"""Queries that are shown where none is named."""
_LONGEST = 600
"""Characters of a text that can be seen on any terminal."""

Out = Annotated[str, typer.Argument(metavar="OUT", help="A job's output folder or address, or its job file.")]


def view(
    out: Out,
    query: Annotated[
        str | None,
        typer.Argument(metavar="QUERY", help="A query's id. Without it, the first queries are shown."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Documents to show.")] = 10,
    only_moved: Annotated[
        bool, typer.Option("--only-moved", help="Leave out documents that stand where they stood before.")
    ] = False,
    texts: Annotated[
        bool, typer.Option(help="Look texts up in the input, where the ranking doesn't hold them.")
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines, one a document, as in a pipe.")
    ] = False,
) -> None:
    """Show a ranking: each document's rank after and before reranking, its score, and its text.

    On a terminal it is a table, in a pipe JSON lines. Of a run that goes on, what it has published can be seen.
    """
    from batchrank.look.view import Views

    folder, known = opened(out)
    views = Views(folder, known, texts=texts)
    found = views.first(_QUERIES) if query is None else [views.one(query)]
    terminal = console()
    if as_json or not terminal.is_terminal:
        for one in found:
            _print_lines(one, _chosen(one, top if query else 1, only_moved=only_moved))
    elif query is None:
        _paged(terminal, [_queries(found, terminal.width), _hint(out, found)])
    else:
        _paged(
            terminal, list(_ranking(found[0], _chosen(found[0], top, only_moved=only_moved), top, terminal))
        )
    for note in views.notes:
        say(f"note: {note}", error=True)


def opened(out: str) -> "tuple[Where, Origin]":
    """The output folder, and its job: where a job file is named, that one; else the one in the summary."""
    from batchrank.io.address import located
    from batchrank.look.source import Origin, origin

    log_to_stderr(verbose=False, quiet=False)
    job = named_job(out)
    folder = located(out) if job is None or job.destination is None else job.destination
    known = origin(folder) if job is None else Origin(job, given=True)
    if known.job is not None:
        keep_secret(known.job)
    return folder, known


def _chosen(one: "View", top: int, *, only_moved: bool) -> "Sequence[Document]":
    return (one.moved() if only_moved else one.documents)[:top]


def _print_lines(one: "View", documents: "Sequence[Document]") -> None:
    for document in documents:
        data = {
            "query_id": one.query_id,
            "query": one.query,
            "rank": document.rank,
            "doc_id": document.doc_id,
        }
        more = {"before": document.before, "move": document.move, "score": document.score}
        say_json_line(data | more | {"certified": document.certified, "text": document.text})


def _paged(terminal: "Console", parts: "Sequence[RenderableType]") -> None:
    """Print it, through a pager where it is longer than the screen."""
    lines = sum(len(terminal.render_lines(part, pad=False)) for part in parts)
    if lines < terminal.height or not sys.stdin.isatty():
        for part in parts:
            terminal.print(part)
        return
    os.environ.setdefault("LESS", "-FRX")  # colours are shown, and what fits isn't held up
    with terminal.pager(styles=True):
        for part in parts:
            terminal.print(part)


def one_line(text: str | None) -> str:
    """A text on one line, as far as it can be seen."""
    return shown(" ".join((text or "")[: 2 * _LONGEST].split())[:_LONGEST])


def _queries(found: "Sequence[View]", width: int) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("query", no_wrap=True)
    table.add_column("text", no_wrap=True, ratio=1)
    table.add_column("best document", no_wrap=True, max_width=max(16, width // 4))
    for name in ("before", "of"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        best = one.documents[0] if one.documents else None
        before = "" if best is None or best.before is None else f"{best.before:,}"
        name, count = "" if best is None else shown(best.doc_id), f"{len(one.documents):,}"
        table.add_row(shown(one.query_id), one_line(one.query), name, before, count)
    return table


def _hint(out: str, found: "Sequence[View]") -> "Text":
    from rich.text import Text

    name = shown(found[0].query_id) if found else "QUERY"
    return Text(f"\nThe first queries. One of them: batchrank view {shown(str(out))} {name}", style="dim")


def _ranking(
    one: "View", documents: "Sequence[Document]", top: int, terminal: "Console"
) -> "Iterator[RenderableType]":
    """A title, the table, and what fell out of the top."""
    from rich.text import Text

    yield Text.assemble((shown(one.query_id), "bold"), f": {one_line(one.query)}" if one.query else "")
    proven = f"; proven down to rank {one.certified:,}" if one.certified else ""
    yield Text(f"{len(one.documents):,} documents{proven}\n", style="dim")
    yield _documents(documents, terminal)
    fell = [d for d in one.documents[top:] if d.before is not None and d.before <= top]
    if fell:
        fell.sort(key=lambda document: document.before or 0)
        told = ", ".join(f"{shown(d.doc_id)} {d.before:,} → {d.rank:,}" for d in fell[:5])
        more = f", and {len(fell) - 5:,} more" if len(fell) > 5 else ""
        yield Text(f"\nOut of the top {top:,}: {told}{more}", style="dim")


def _documents(documents: "Sequence[Document]", terminal: "Console") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, expand=True)
    for name in ("rank", "before", "move", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("document", no_wrap=True, max_width=max(16, terminal.width // 4))
    table.add_column("text", no_wrap=True, ratio=1)
    for one in documents:
        before = "" if one.before is None else f"{one.before:,}"
        score = "" if one.score is None else f"{one.score:.4g}"
        table.add_row(f"{one.rank:,}", before, _arrow(one.move), score, shown(one.doc_id), one_line(one.text))
    return table


def _arrow(move: int | None) -> "Text":
    from rich.text import Text

    if move is None:
        return Text("")
    if not move:
        return Text("=", style="dim")
    return Text(f"↑{move:,}", style="green") if move > 0 else Text(f"↓{-move:,}", style="red")
