"""Shows, compacts and copies a ledger."""

from pathlib import Path

import anyio
from rich.table import Table

from batchrank.cli.terminal import console, say
from batchrank.errors import JobError
from batchrank.job.config import Job
from batchrank.ledger.ledger import Ledger
from batchrank.planning.inventory import Inventory, compact_ledger, inventory


def show_ledger(job: Job, *, compact: bool, backup: Path | None = None) -> None:
    """Print what the ledger holds; before that, with ``compact``, drop what the last complete run did not use.

    Args:
        job: the job.
        compact: whether to drop something.
        backup: where a copy goes before anything is dropped; None for none.

    Raises:
        JobError: there is no ledger.
        LedgerError: it can't be read, a run is using it, or the copy can't be written.
    """
    path = job.ledger_path
    if path is None or not path.exists():
        raise JobError(f"{path}: there is no ledger yet: run the job first")
    ledger = Ledger(path)
    try:
        if backup is not None:
            ledger.copy(backup)
            say(f"copied to {backup}", error=True)
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
