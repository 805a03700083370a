"""Shows what a job would do and cost: what ``batchrank plan`` prints.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from batchrank.bars import duration
from batchrank.cli.terminal import bars as drawing
from batchrank.cli.terminal import console, say_json

if TYPE_CHECKING:
    from rich.table import Table

    from batchrank.job.config import Job
    from batchrank.models import Price
    from batchrank.planning.plan import Plan

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
