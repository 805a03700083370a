"""Shows and compacts a ledger."""

import anyio
from rich.table import Table

from batchrank.cli.said import console
from batchrank.errors import JobError
from batchrank.job import Job
from batchrank.ledger import Ledger
from batchrank.pipeline import Inventory, compact_ledger, inventory


def show_ledger(job: Job, *, compact: bool) -> None:
    """Print what the ledger holds; with ``compact``, drop what the last complete run did not use first.

    Raises:
        JobError: there is no ledger.
        LedgerError: it can't be read, or a run is using it.
    """
    path = job.ledger_path
    if path is None or not path.exists():
        raise JobError(f"{path}: there is no ledger yet: run the job first")
    ledger = Ledger(path)
    try:
        if compact:
            dropped = anyio.run(compact_ledger, ledger, job)
            console(error=True).print(f"dropped {dropped:,} entries that the last complete run did not use")
        found = anyio.run(inventory, ledger)
    finally:
        ledger.close()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("ledger", str(path))
    for name, value in _facts(job, found, path.stat().st_size):
        table.add_row(name, value)
    console().print(table)


def _facts(job: Job, found: Inventory, size: int) -> list[tuple[str, str]]:
    price = job.price
    cost = "" if price is None else f", {price.cost(found.tokens):,.4f} {price.currency} at this job's price"
    return [
        ("answers", f"{found.answers:,}, with {found.documents:,} scores"),
        ("tokens", f"{found.tokens:,}{cost}"),
        ("rejections", f"{found.rejections:,} that decided something"),
        (
            "malformed",
            f"{found.malformed:,} answers of no use, {found.malformed_tokens:,} tokens possibly billed",
        ),
        (
            "ambiguous",
            f"{found.ambiguous:,} sent, no answer seen, {found.ambiguous_tokens:,} tokens possibly billed",
        ),
        ("size", f"{size / 2**20:,.1f} MiB"),
    ]
