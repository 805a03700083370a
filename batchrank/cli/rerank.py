"""Defines ``rerank``: ranks one list for one query without a job file, by what the library's ``rerank`` does.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchrank.cli.help import Json, Model, Quiet, Set, Url
from batchrank.cli.terminal import console, keep_secret, log_to_stderr, say, say_json, shown
from batchrank.errors import ExitCode, JobError

if TYPE_CHECKING:
    from batchrank.data import Content, Query
    from batchrank.job.config import Job
    from batchrank.outcomes import Failure, Ranking


_NOT_HERE = ("input", "output")
"""Sections of a job that the command's own arguments stand for, so that a job's environment doesn't count here."""
_COLUMNS = "input.columns."


def rerank(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What the documents are ranked for.")],
    documents: Annotated[
        str,
        typer.Argument(
            metavar="DOCUMENTS",
            help="One document a line; or JSON: texts or {id, text}, one a line or in an array. - is standard input.",
        ),
    ] = "-",
    top: Annotated[int | None, typer.Option(min=1, metavar="N", help="Print the first N only.")] = None,
    as_json: Json = False,
    model: Model = None,
    url: Url = None,
    emulated: Annotated[
        bool, typer.Option("--emulated", help="Ask the API on loopback: no key, no cost.")
    ] = False,
    overrides: Set = None,
    quiet: Quiet = False,
) -> None:
    """Rank one list of documents for a query, and print rank, score and text.

    A list beyond one request is merged as in a job. Nothing is kept, unless --set ledger=FILE names a ledger: then
    what it knows is not asked again. The key is taken from the environment, as for jobs.
    Exit codes: 0 ranked; 3 ranked, but some documents were refused, or the query was; 4 no documents; 1, 2, 75 as run.
    """
    if not query.strip():
        raise typer.BadParameter("it is blank; say what to rank for", param_hint="QUERY")
    if emulated and url is not None:
        raise typer.BadParameter("the emulator has no address to ask; leave out --url or --emulated")
    log_to_stderr(verbose=False, quiet=quiet)
    job = _job(model, "emulator" if emulated else url, overrides or [], top)
    keep_secret(job)
    if documents == "-" and sys.stdin.isatty() and not quiet:
        say("reading documents from the terminal, one a line; Ctrl-D ends them", error=True)

    from batchrank.pipeline.rerank import rerank_sync
    from batchrank.read.documents import read_documents

    given = read_documents(documents, query, job.input.columns if job.input else None)
    _require_key(job)
    failures: list[Failure] = []
    found = rerank_sync([given], job, on_failure=failures.append, progress=False)
    for ranking in found:
        entries = list(_entries(given, ranking))[:top]
        if as_json:
            say_json(_data(query, job, ranking, entries))
        else:
            _print(entries, named=any(doc_id != str(i) for i, doc_id in enumerate(given.doc_ids)))
        if not quiet:
            say(_told(job, ranking), error=True)
    for failure in failures:
        say(f"batchrank: {failure.cause}: {failure.message}", error=True)
    raise typer.Exit(ExitCode.FAILED_QUERIES if failures else ExitCode.COMPLETE)


def _job(model: str | None, url: str | None, overrides: list[str], top: int | None) -> "Job":
    """The job that the options make up; the depth that must be exact is at least what is printed."""
    from batchrank.job.load import PREFIX, make_job

    for item in overrides:
        if item.split(".")[0].partition("=")[0] in _NOT_HERE and not item.startswith(_COLUMNS):
            raise JobError(
                f"--set {item.partition('=')[0]}: DOCUMENTS is the input here, and standard output the output; "
                "batchrank run takes a job with both"
            )
    inner = tuple(f"{PREFIX}{name.upper()}" for name in _NOT_HERE)
    environ = {name: value for name, value in os.environ.items() if not name.upper().startswith(inner)}
    own = [f"model={model}"] if model else []
    own += [f"endpoint.url={url}"] if url else []
    data: dict[str, Any] = {"model": "qwen3-rerank"}
    if any(item.startswith(_COLUMNS) for item in overrides):
        data["input"] = {"path": "-"}
    job = make_job(data, name="rerank", overrides=[*own, *overrides], environ=environ)
    if top is None or "top_k" in job.merge.model_fields_set:
        return job
    return job.model_copy(update={"merge": job.merge.model_copy(update={"top_k": top})})


def _require_key(job: "Job") -> None:
    try:
        job.api_key()
    except JobError as error:
        raise JobError(f"{error}; or try it without one: --emulated") from None


def _entries(query: "Query", ranking: "Ranking") -> Iterator[dict[str, Any]]:
    ranked = zip(ranking.doc_ids, ranking.scores.tolist(), ranking.first_stage_ranks.tolist(), strict=True)
    for rank, (doc_id, score, first) in enumerate(ranked, 1):
        known = None if score != score else score
        yield {"rank": rank, "score": known, "doc_id": doc_id, "text": _text(query.documents[first - 1])}


def _text(content: "Content") -> str:
    if isinstance(content, str):
        return content
    return content.value if isinstance(content.value, str) else f"({content.kind})"


def _data(query: str, job: "Job", ranking: "Ranking", entries: list[dict[str, Any]]) -> dict[str, Any]:
    cost = ranking.cost
    return {
        "query": query,
        "model": job.card.name,
        "ranking": entries,
        "documents": len(ranking),
        "certified": ranking.merge.certified,
        "method": ranking.merge.method,
        "requests": cost.requests,
        "tokens": cost.tokens,
        "cost": cost.cost,
        "currency": job.price.currency if job.price else None,
    }


def _print(entries: list[dict[str, Any]], *, named: bool) -> None:
    """A table on a terminal, each document on one line; in a pipe whole lines with tabs between the fields."""
    terminal = console()
    rows = [
        [str(entry["rank"]), "-" if entry["score"] is None else f"{entry['score']:.4g}"]
        + ([entry["doc_id"]] if named else [])
        + [" ".join(entry["text"].split())]
        for entry in entries
    ]
    if not terminal.is_terminal:
        for row in rows:
            print("\t".join(map(shown, row)))
        return
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for column in ("rank", "score", *(["id"] if named else []), "text"):
        table.add_column(
            column, justify="right" if column in ("rank", "score") else "left",
            no_wrap=True, overflow="ellipsis", ratio=1 if column == "text" else None,
        )  # fmt: skip
    for row in rows:
        table.add_row(*row)
    terminal.print(table)


def _told(job: "Job", ranking: "Ranking") -> str:
    cost, merge = ranking.cost, ranking.merge
    money = "" if cost.cost is None else f", {cost.cost:,.6f} {job.price.currency if job.price else ''}"
    exact = "" if merge.certified >= len(merge.order) else f"; proven to rank {merge.certified:,}"
    what = " (emulated: no real model was asked)" if job.emulated else ""
    requests = f"{cost.requests:,} request{'s' if cost.requests != 1 else ''}"
    return f"{len(ranking):,} documents, {requests}, {cost.tokens:,} tokens{money}{exact}{what}"
