"""Defines ``explain``, which tells why a document stands where it does.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from batchrank.cli.help import Json
from batchrank.cli.terminal import console, say, say_json, shown
from batchrank.cli.view import Out, one_line, opened

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from batchrank.look.explanation import Explanation, Held, Order

_WIDTH = 160
"""Columns of a table in a pipe, which has no width."""


def explain(
    out: Out,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A query's id.")],
    document: Annotated[str, typer.Argument(metavar="DOC", help="A document's id.")],
    against: Annotated[
        str | None,
        typer.Option(metavar="DOC", help="Tell also why it stands above or below this document."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell why a document stands where it does: the requests that held it, and what proves its place.

    The query is ranked again from the ledger, by the run's own code; nothing is sent and nothing is changed.
    """
    from batchrank.look.explain import explain as explained

    folder, known = opened(out)
    found = explained(folder, query, document, against=against, known=known)
    if as_json:
        say_json(found.data())
        return
    terminal = console(width=_WIDTH)
    for part in _explanation(found):
        terminal.print(part, soft_wrap=not terminal.is_terminal)
    for note in found.notes:
        say(f"note: {note}", error=True)


_PROOFS = {
    "request": "",
    "chain": "by requests that each have one above the next:",
    "tie": "with the same score; ties stand in the order of what else is known of them, then of the first stage:",
    "comparable": "scores of different requests were found, or are declared, to be comparable, so they tell:",
    "estimate": "by an estimate: no request, nor several together, say which of the two is better.",
    "raw": "by raw scores of different requests, which nothing shows to be comparable: this proves nothing.",
    "fusion": "by reciprocal rank fusion of the requests, which proves nothing.",
    "contradiction": "by an estimate, as answers to this query contradict each other: nothing is proven, and what "
    "several tell of a document is averaged.",
    "unscored": "because the lower one has no score; such documents stand last, in the order of the first stage.",
    "unknown": "what proves it can't be told, as the answers aren't known.",
}
"""What is said of each kind of proof."""
_HUB = "Both were put on the hub's scale, each by its place among the documents that its own request shares with it."


def _explanation(found: "Explanation") -> "Iterator[RenderableType]":
    from rich.text import Text

    before = "" if found.before is None else f" (first stage: {found.before:,})"
    score = "no score" if found.score is None else f"score {found.score:.4g}"
    yield Text.assemble(
        (shown(found.doc_id), "bold"), f": rank {found.rank:,} of {found.documents:,}{before}, {score}"
    )
    if found.query is not None:
        yield Text(f"query {shown(found.query_id)}: {one_line(found.query)}", style="dim")
    yield Text(_depth(found))
    if any(one.rank for one in found.requests):
        yield Text("\nRequests that held it", style="bold")
        yield _requests(found)
        yield from map(Text, _servers(found))
    for order in found.orders:
        yield from _order(found, order)
    for line in _more(found):
        yield Text(f"\n{line}")


def _depth(found: "Explanation") -> str:
    if found.unscored is not None:
        return f"It has no score: {shown(found.unscored)}"
    if not found.certified:
        return "No rank of this query is proven."
    if found.rank <= found.certified:
        return f"This rank is proven, as are the first {found.certified:,}."
    wanted = "" if found.top_k is None else f"; the job asks for {found.top_k:,} (merge.top_k)"
    return f"The first {found.certified:,} ranks are proven{wanted}. This one is not."


def _requests(found: "Explanation") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("", "round", "asked as", "rank in it", "score", "answered", "by"):
        right = name not in ("asked as", "answered", "by")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for one in found.requests:
        if one.rank is None or one.score is None:
            continue
        table.add_row(
            f"{one.number}", f"{one.round or ''}", _asked_as(one), f"{one.rank:,} of {one.documents:,}",
            f"{one.score:.6g}", "" if one.at is None else one.at[:16].replace("T", " "),
            f"run {one.run}, earlier" if one.earlier else f"run {one.run}",
        )  # fmt: skip
    return table


def _servers(found: "Explanation") -> "Iterator[str]":
    """Who answered the query's requests, by server and key, as addresses are too long for the table."""
    numbers: dict[tuple[str, str | None], list[int]] = {}
    for one in found.requests:
        if one.server is not None:
            numbers.setdefault((one.server, one.key_name), []).append(one.number)
    for (url, key_name), own in numbers.items():
        which = f"request{'s' * (len(own) > 1)} {', '.join(map(str, own))}"
        if 1 < len(own) == len(found.requests):
            which = f"all {len(own):,} requests"
        yield f"{which}: answered by {shown(url)}{f', key {shown(key_name)}' if key_name else ''}"


def _asked_as(one: "Held") -> str:
    """What a request was for."""
    if one.round is None:
        return f"{one.purpose}, of {one.at[:10]}" if one.at else one.purpose
    if one.purpose == "pass":
        return f"chunk {one.chunk} of {one.chunks}"
    return one.purpose if (one.chunks or 1) == 1 or one.purpose == "probe" else f"{one.purpose} {one.chunk}"


def _order(found: "Explanation", order: "Order") -> "Iterator[RenderableType]":
    from rich.text import Text

    below = order.lower == found.doc_id
    other, rank = (order.upper, order.upper_rank) if below else (order.lower, order.lower_rank)
    yield Text(f"\n{'Below' if below else 'Above'} {shown(other)} (rank {rank:,})", style="bold")
    if said := _PROOFS[order.proof]:
        yield Text(said)
    if order.proof == "estimate" and (found.method or "").startswith(("hub", "full")):
        yield Text(_HUB)
    if order.proof == "comparable":
        fact = order.chain[0]
        yield Text(
            f"  {shown(fact.upper)} {fact.upper_score:.6g}, {shown(fact.lower)} {fact.lower_score:.6g}"
        )
        return
    for fact in (*order.chain, *order.evidence):
        where = f"request {fact.request} ({_asked_as(found.requests[fact.request - 1])})"
        sign = "=" if fact.tie else ">"
        upper, lower = (
            f"{shown(name)} {score:.6g}"
            for name, score in ((fact.upper, fact.upper_score), (fact.lower, fact.lower_score))
        )
        yield Text(f"  {where}: {upper} {sign} {lower}")


def _more(found: "Explanation") -> "Iterator[str]":
    """What else is to be told."""
    for text in found.refused:
        yield f"Refused, and asked in halves: {shown(text)}"
    for text in found.attempts:
        yield f"Tried again after: {shown(text)}"
    if found.reused:
        since = f", the oldest of {found.oldest[:10]}" if found.oldest else ""
        count = f"Of {found.reused:,} documents of this query the run asked nothing"
        yield f"{count}: answers of earlier runs tell of them{since}."
    sent = found.sent
    if sent is None:
        return
    if sent.passages > 1:
        yield f"Its text was sent in {sent.passages} passages; it stands where the best of them does."
    if sent.cut_to is not None:
        yield f"Its text was cut to {sent.cut_to:,} characters before it was sent."
    if sent.cut:
        yield f"The API reads the first {sent.tokens:,} tokens of its text."
