"""Shows what a job's ledger holds, and drops what is no longer needed, as the user says.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from batchrank.bars import Bar, working
from batchrank.cli.terminal import console, say
from batchrank.errors import JobError

if TYPE_CHECKING:
    from rich.console import Console

    from batchrank.job.config import Job
    from batchrank.ledger.care import Compaction, Inventory


def show_ledger(
    job: "Job",
    *,
    unused: bool,
    max_age: str | None = None,
    backup: Path | None = None,
    bars: "Console | None" = None,
) -> None:
    """Print what the ledger holds, once what is to be dropped is dropped.

    Args:
        job: the job.
        unused: whether to drop what the last complete run did not use.
        max_age: drop answers older than this, such as ``30d``; None drops none for its age.
        backup: where a copy goes before anything is dropped; None for none.
        bars: where bars are drawn, if they are.

    Raises:
        JobError: there is no ledger, or the job's last run is not complete.
        BadParameter: the age is none.
        LedgerError: it can't be read, a run is using it, or the copy can't be written.
    """
    import anyio
    from rich.table import Table

    from batchrank.ledger.care import compact, inventory
    from batchrank.ledger.ledger import Ledger
    from batchrank.pipeline.resume import scope

    since = 0 if max_age is None else int(time.time()) - _age(max_age)
    path = job.ledger_path
    if path is None or not path.exists():
        raise JobError(f"{path}: there is no ledger yet: run the job first")
    ledger = Ledger(path)
    try:
        if backup is not None:
            with working(bars, lambda: Bar("copying", None)):
                ledger.copy(backup)
            say(f"copied to {backup}", error=True)
        if unused or since:
            with working(bars, lambda: Bar("making it smaller", None)):
                dropped = anyio.run(partial(compact, ledger, scope(job), unused=unused, since=since))
            for line in _dropped(dropped, max_age, unused=unused):
                say(line, error=True)
        with working(bars, lambda: Bar("counting", None)):
            found = anyio.run(inventory, ledger)
    finally:
        ledger.close()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("ledger", str(path))
    for name, value in _ledger_facts(job, found):
        table.add_row(name, value)
    console().print(table)


def _age(text: str) -> int:
    from batchrank.job.running import parse_age

    try:
        return parse_age(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--max-age") from None


def _dropped(found: "Compaction", max_age: str | None, *, unused: bool) -> Iterator[str]:
    if max_age is not None:
        undated = f", {found.undated:,} of them because their age is unknown" if found.undated else ""
        yield f"dropped {found.old:,} answers older than {max_age}{undated}"
    if unused:
        yield f"dropped {found.unused:,} entries that the last complete run did not use"
    yield f"the ledger took {_size(found.before)} and takes {_size(found.after)} now"


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.0f} KiB"


def _ledger_facts(job: "Job", found: "Inventory") -> list[tuple[str, str]]:
    price = job.price
    oldest = "unknown" if found.oldest is None else time.strftime("%Y-%m-%d", time.gmtime(found.oldest))
    undated = f", {found.undated:,} of unknown age" if found.undated else ""
    each = f", {found.size / found.documents:,.1f} bytes a score" if found.documents else ""
    cost = "" if price is None else f", {price.cost(found.tokens):,.4f} {price.currency} at this job's price"
    return [
        ("answers", f"{found.answers:,}, with {found.documents:,} scores"),
        ("reusable", f"{found.reusable:,} answers, document by document"),
        *([("oldest", f"answer of {oldest}{undated}")] if found.answers else []),
        ("tokens", f"{found.tokens:,}{cost}"),
        ("rejections", f"{found.rejections:,} kept, so that those requests are not sent again"),
        (
            "malformed",
            f"{found.malformed:,} unusable answers, {found.malformed_tokens:,} tokens possibly billed",
        ),
        (
            "ambiguous",
            f"{found.ambiguous:,} sent, no answer received, {found.ambiguous_tokens:,} tokens possibly billed",
        ),
        ("size", f"{_size(found.size)}{each}"),
    ]
