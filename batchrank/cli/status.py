"""Defines the commands that look at a job and spend nothing: ``status`` and ``plan``.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchrank.bars import duration
from batchrank.cli.help import Json
from batchrank.cli.terminal import bars as drawing
from batchrank.cli.terminal import console, load, replicas, say_json
from batchrank.errors import JobError

if TYPE_CHECKING:
    from rich.table import Table

    from batchrank.job.config import Job
    from batchrank.models import Price
    from batchrank.observe.facts import Status
    from batchrank.planning.plan import Plan


_JOB_FILES = (".yaml", ".yml", ".toml")


def status(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A job's output folder, or its job file.")],
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on until the run ends, and end with its exit code."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell how a job stands: progress, time to go, spend. Disturbs nothing: the job may be running.

    With --follow and --json: one object a line whenever there is news.
    """
    from batchrank.observe.facts import read_status

    place = output_folder(folder)
    if follow:
        from batchrank.cli.follow import follow as watch

        raise typer.Exit(watch(place, _status_table, _status_line, as_json=as_json))
    found = read_status(place)
    if as_json:
        say_json(found.data())
        return
    console(soft_wrap=True).print(_status_table(found))


def _status_table(found: "Status") -> "Table":
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _status_facts(found):
        table.add_row(name, value)
    return table


def _status_line(found: "Status") -> str:
    left_out = ("job", "replicas", "note")
    return "; ".join(f"{name} {value}" for name, value in _status_facts(found) if name not in left_out)


def output_folder(path: str) -> Path:
    """The output's folder on this machine: the path itself, or that of the job that a job file holds.

    Raises:
        JobError: the job file can't be understood, or writes to standard output; or it is an address.
    """
    if "://" in path:
        raise JobError(
            f"{path}: how a job stands is told on the machine that runs it, not in the store; name its job file, or "
            "the folder that it keeps beside its ledger"
        )
    job = named_job(path)
    return Path(path) if job is None or job.output_folder is None else job.output_folder


def named_job(path: str) -> "Job | None":
    """The job that a job file holds; None where the path is no job file, but an output.

    Raises:
        JobError: the job file can't be understood, or writes to standard output.
    """
    if not is_job_file(Path(path)):
        return None
    job = load(Path(path))
    if job.output_folder is None:
        raise JobError(f"{path}: output.path is standard output, so there is no folder to look at")
    return job


def is_job_file(path: Path) -> bool:
    """Whether a path names a job file, as opposed to an output folder."""
    return path.suffix in _JOB_FILES and path.is_file()


def _status_facts(found: "Status") -> Iterator[tuple[str, str]]:
    yield "job", found.name
    code = "" if found.exit_code is None else f", exit code {found.exit_code}"
    ago = duration(max(0.0, found.age))
    yield "state", f"{found.state}{code}, process {found.pid} on {found.host}, last heard of {ago} ago"
    if found.progress is not None:
        yield from _progress(found, found.progress)
    if found.reason:
        yield "reason", found.reason
    if found.state == "killed":
        yield "hint", "run the job again: it goes on where it stopped"
    for notice in found.notices:
        yield "note", notice


def _progress(found: "Status", progress: dict[str, Any]) -> Iterator[tuple[str, str]]:
    failed = f", {progress['failed']:,} failed" if progress["failed"] else ""
    share = "" if found.state == "complete" else f" ({progress['share']:.0%} of the input)"
    under_way = f", {progress['unfinished']:,} under way" if found.state == "running" else ""
    yield "queries", f"{progress['queries']:,} ranked{share}{failed}{under_way}"
    if found.state == "running" and progress.get("trouble"):
        yield "trouble", progress["trouble"]
    if found.state == "running" and progress.get("forecast"):
        yield "forecast", progress["forecast"]
    seconds = max(progress["elapsed"], 1e-6)
    in_flight = f"{progress['in_flight']:,} in flight, " if found.state == "running" else ""
    yield "documents", f"{progress['documents']:,}, {progress['documents'] / seconds:,.0f}/s"
    yield (
        "requests",
        f"{progress['requests']:,} sent, {in_flight}{progress['retries']:,} retries, "
        f"{progress['throttled']:,} throttled (429), {progress['reused']:,} from the ledger",
    )
    if progress.get("replicas"):
        yield "replicas", replicas(progress["replicas"])
    if progress.get("keys"):
        yield "keys", replicas(progress["keys"])
    if found.state == "running" and progress.get("gate"):
        yield "held back by", progress["gate"]
    yield "quota", f"{progress['quota_used']:.0%} used in the last minute"
    possible = progress.get("possible_tokens")
    possibly = f", {possible:,} of them possibly billed without a result" if possible else ""
    cap = f" of {found.max_tokens:,} allowed" if found.max_tokens is not None and found.per == "run" else ""
    yield "tokens", f"{progress['tokens']:,}{cap}{possibly}"
    if progress["cost"] is not None:
        cap = f" of {found.max_cost:g} allowed" if found.max_cost is not None and found.per == "run" else ""
        yield "cost", f"{progress['cost']:,.4f} {progress['currency']}{cap}"
    if found.per != "run":
        yield "cap", _counted(found, progress)
    left = progress["eta"]
    running = found.state == "running" and left is not None
    yield "time", duration(seconds) + (f", about {duration(left)} to go" if running else "")


def _counted(found: "Status", progress: dict[str, Any]) -> str:
    """What counts against caps that hold for more or less than the run."""
    told = []
    if found.max_tokens is not None:
        told.append(f"{progress['counted_tokens']:,} of {found.max_tokens:,} tokens")
    if found.max_cost is not None and progress["counted_cost"] is not None:
        told.append(f"{progress['counted_cost']:,.4f} of {found.max_cost:g} {progress['currency']}")
    return ", ".join(told or ["none"]) + {"day": " a day (UTC)", "total": " in all"}.get(found.per, "")


_WIDTH = 120
"""Columns of the table, also in a pipe, which has no width."""
_NOTES = {
    "raw": "right only if scores are comparable across requests",
    "rrf": "no guarantee",
    "hub": "exact to merge.top_k",
    "full": "the whole order exact",
}


def show_plan(job: "Job", *, as_json: bool, bars: bool = True) -> None:
    """Print what running the job would take; nothing is sent."""
    from rich.table import Table

    from batchrank.pipeline.view import watching
    from batchrank.planning.plan import plan
    from batchrank.tokens import exact_counts

    found = plan(job, watch=watching(drawing(bars)))
    if as_json:
        say_json(found.data())
        return
    terminal = console(width=_WIDTH)
    facts = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _plan_facts(job, found):
        facts.add_row(name, value)
    terminal.print(facts)
    if not found.exact:
        terminal.print(exact_counts(job.card.tokenizer), soft_wrap=True)
    terminal.print(_methods(job, found))
    for line in _tonight(found):
        terminal.print(line, soft_wrap=True)
    if len(found.regions) > 1:
        terminal.print(_regions(job, found))
    if found.largest:
        terminal.print(_largest(found))


def _plan_facts(job: "Job", found: "Plan") -> list[tuple[str, str]]:
    kind = "exact" if found.exact else "estimated" if found.estimated else "at most, counted as bytes"
    rows = [
        ("queries", f"{found.queries:,}, {found.multi_chunk:,} of them in more than one request"),
        (
            "documents",
            f"{found.documents:,}" + (f", {found.blank:,} blank ones are not sent" if found.blank else ""),
        ),
        ("tokens", f"{found.tokens:,} in one pass ({kind})"),
        ("quota", "{:,.0f} requests and {:,.0f} tokens a minute".format(*job.quota)),
    ]
    if found.truncated:
        rows.append(
            (
                "truncated",
                f"{found.truncated:,} texts of more than {job.card.item_limits} are cut",
            )
        )
    if found.rejected:
        causes = ", ".join(f"{cause} {count:,}" for cause, count in sorted(found.rejected.items()))
        rows.append(("rejected", f"{sum(found.rejected.values()):,} queries or records: {causes}"))
    return rows


def _methods(job: "Job", found: "Plan") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("method")
    for name in (
        "requests",
        "documents",
        "tokens",
        f"cost, {found.currency}" if found.currency else "cost",
        "at least",
    ):
        table.add_column(name, justify="right")
    table.add_column("")
    for name, bill in found.methods.items():
        cost = "-" if bill.cost is None else f"{bill.cost:,.4f}"
        mark = f"{name} *" if name == job.merge.method else name
        row = (
            mark,
            f"{bill.requests:,}",
            f"{bill.documents:,}",
            f"{bill.tokens:,}",
            cost,
            duration(bill.seconds),
        )
        table.add_row(*row, _NOTES[name] + (" (this job)" if name == job.merge.method else ""))
    return table


def _tonight(found: "Plan") -> Iterator[str]:
    """What the job's run would really ask, in plain lines."""
    if found.notice is not None:
        yield f"what the ledger would save is not told: {found.notice}"
    net = found.net
    if net is None:
        return
    yield (
        f"tonight, net of the ledger: {net.documents:,} documents in {net.requests:,} requests, "
        f"{_price(found, net.tokens, net.cost)}, at least {duration(net.seconds)}"
    )
    if net.reused:
        yield (
            f"from the ledger: {net.reused:,} documents, which saves {_price(found, net.saved_tokens, net.saved_cost)}"
        )


def _price(found: "Plan", tokens: int, cost: float | None) -> str:
    return f"{tokens:,} tokens" + ("" if cost is None else f" ({cost:,.4f} {found.currency})")


def _regions(job: "Job", found: "Plan") -> "Table":
    """The same run in each region, side by side."""
    from rich.table import Table

    known = any(one.net_tokens is not None for one in found.regions)
    names = (
        "region",
        "price per 1M",
        f"cost ({job.merge.method})",
        *(["net of the ledger"] if known else []),
    )
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="left" if name == "region" else "right")
    for one in found.regions:
        row = [f"{one.name} *" if one.ours else one.name]
        if one.price is None:
            row += ["not known", "-"]
        else:
            unit = one.price.currency
            row += [_priced(one.price), f"{one.cost:,.4f} {unit}"]
            row += [] if one.net_cost is None else [f"{one.net_cost:,.4f} {unit}"]
        table.add_row(*row, *["-"] * (len(names) - len(row)))
    return table


def _priced(price: "Price") -> str:
    told = f"{price.text:g} {price.currency}"
    return told if price.image is None else f"{told}, images {price.image:g}"


def _largest(found: "Plan") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("largest lists")
    for name in ("documents", "chunks", "tokens"):
        table.add_column(name, justify="right")
    for entry in found.largest:
        table.add_row(
            entry["query_id"], f"{entry['documents']:,}", f"{entry['chunks']:,}", f"{entry['tokens']:,}"
        )
    return table
