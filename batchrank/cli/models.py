"""Defines ``models``: the models that are known, with their limits, quotas, prices and where each number stands.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it.
"""

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchrank.cli.help import Json, complete_model
from batchrank.cli.terminal import console, say_json

if TYPE_CHECKING:
    from rich.table import Table

    from batchrank.models import Card, Price


_WIDTH = 160
"""Columns of a table, also where output goes to a pipe, which has no width: no model's line is folded."""
_PRICE = "price per 1M"
_WORDS = ("model", "wire", "scores", _PRICE)
"""Columns that hold words; the others hold numbers."""
_FIRST = ("model", "wire", "documents", _PRICE)
"""Columns that there is always room for."""
_WIDE = 145
"""Columns of a terminal that has room for all of them."""


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="Show all of one, with its sources.", autocompletion=complete_model
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the models that are known: limits, quotas, prices; or all that is known of one, and where it stands."""
    from batchrank.models import card, cards

    found = [card(name)] if name is not None else list(cards().values())
    if as_json:
        say_json([_data(one) for one in found])
        return
    terminal = console(width=_WIDTH)
    if name is not None:
        terminal.print(_whole(found[0]))
        return
    narrow = terminal.width < _WIDE
    terminal.print(_listed(found, narrow=narrow))
    if narrow:
        terminal.print("limits and quotas: batchrank models MODEL, or a wider terminal", soft_wrap=True)


def _listed(found: "list[Card]", *, narrow: bool) -> "Table":
    """A table in which no name and no number is cut or folded; a narrow one has fewer columns."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    rows = [_row(card) for card in found]
    for column in rows[0] if not narrow else _FIRST:
        words = column in _WORDS
        table.add_column(column, justify="left" if words else "right", no_wrap=column != _PRICE)
    for row in rows:
        table.add_row(*(row[str(column.header)] for column in table.columns))
    return table


def _row(card: "Card") -> dict[str, str]:
    return {
        "model": card.name,
        "wire": card.wire,
        "documents": f"{card.documents:,}",
        "tokens/item": _number(card.item_tokens),
        "tokens/request": _number(card.request_tokens),
        "rpm": _number(card.rpm),
        "tpm": _number(card.tpm),
        "scores": card.scores,
        _PRICE: _prices(card),
    }


def _prices(card: "Card") -> str:
    several = len(card.prices) > 1
    told = (f"{_priced(price)}{f' ({region})' if several else ''}" for region, price in card.prices.items())
    return ", ".join(told) or "-"


def _whole(card: "Card") -> "Table":
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for key, value in {**_data(card), "prices": _prices(card)}.items():
        if value not in (None, {}, [], "", "-"):
            table.add_row(key, _shown(value))
    return table


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_shown(inner)}" for key, inner in value.items() if inner not in (None, ""))
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return value if isinstance(value, str) else _number(value)


def _data(card: "Card") -> dict[str, Any]:
    """A card as plain data; null where nothing limits."""
    from batchrank.models import UNLIMITED

    data = card.model_dump(mode="json")
    return {
        key: None if isinstance(value, int | float) and (value == UNLIMITED or math.isinf(value)) else value
        for key, value in data.items()
    }


def _number(value: float) -> str:
    from batchrank.models import UNLIMITED

    return "-" if value == UNLIMITED or math.isinf(value) else f"{value:,.0f}"


def _priced(price: "Price") -> str:
    """A price for people: of a million tokens, or of a thousand searches."""
    if price.search is not None:
        return f"{price.search:g} {price.currency} per 1k searches"
    return f"{price.text:g} {price.currency}"
