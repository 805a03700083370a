"""``batchrank plan``: what a job would do and cost."""

from rich.table import Table

from batchrank.cli.display import duration
from batchrank.cli.said import console, say_json
from batchrank.errors import install_line
from batchrank.job import Job
from batchrank.pipeline import Plan, plan

_WIDTH = 120
_NOTES = {
    "raw": "right only if scores are comparable across requests",
    "rrf": "no guarantee",
    "hub": "exact to merge.top_k",
    "full": "the whole order exact",
}


def show_plan(job: Job, *, as_json: bool) -> None:
    """Print what running the job would take; nothing is sent."""
    found = plan(job)
    if as_json:
        say_json(found.data())
        return
    terminal = console(width=_WIDTH)
    facts = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _facts(job, found):
        facts.add_row(name, value)
    terminal.print(facts)
    if not found.exact:
        terminal.print(f"for exact counts: {install_line('qwen')}", soft_wrap=True)
    terminal.print(_methods(job, found))
    if found.largest:
        terminal.print(_largest(found))


def _facts(job: Job, found: Plan) -> list[tuple[str, str]]:
    kind = "exact" if found.exact else "at most, counted as bytes"
    rows = [
        ("queries", f"{found.queries:,}, {found.multi_chunk:,} of them in more than one request"),
        (
            "documents",
            f"{found.documents:,}" + (f", {found.blank:,} blank ones are not sent" if found.blank else ""),
        ),
        ("tokens", f"{found.tokens:,} in one pass ({kind})"),
        ("quota", f"{job.card.rpm:,.0f} requests and {job.card.tpm:,.0f} tokens a minute"),
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


def _methods(job: Job, found: Plan) -> Table:
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


def _largest(found: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("largest lists")
    for name in ("documents", "chunks", "tokens"):
        table.add_column(name, justify="right")
    for entry in found.largest:
        table.add_row(
            entry["query_id"], f"{entry['documents']:,}", f"{entry['chunks']:,}", f"{entry['tokens']:,}"
        )
    return table
