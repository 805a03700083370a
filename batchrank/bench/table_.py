"""The table of a benchmark: Markdown for people, CSV and JSON for programs."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from batchrank.bench.table import Result
from batchrank.write.text import write_text

_KEYS = ("dataset", "model", "instruct", "method")
_FIGURES = ("queries", "failed", "documents", "tokens", "cost", "currency", "certified", "speed")


def write_tables(results: Sequence[Result], folder: str | Path) -> Path:
    """Write table.md, table.csv and table.json; the first one's path.

    Raises:
        OutputError: a file can't be written.
    """
    folder = Path(folder)
    write_text(folder / "table.csv", _csv(results))
    write_text(folder / "table.json", orjson.dumps(rows(results), option=orjson.OPT_INDENT_2).decode() + "\n")
    write_text(folder / "table.md", markdown(results))
    return folder / "table.md"


def rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The results as plain data, one mapping a cell."""
    names = _measures(results)
    return [
        {key: getattr(result.cell, key) for key in _KEYS}
        | {"state": result.state}
        | {name: result.quality.get(name) for name in names}
        | {name: getattr(result, name) if result.state == "done" else None for name in _FIGURES}
        | {"error": result.error or None}
        for result in results
    ]


def markdown(results: Sequence[Result]) -> str:
    """The table for people: the best value of each measure on each dataset is bold."""
    names = _measures(results)
    instructs = len({result.cell.instruct for result in results}) > 1
    keys = [key for key in _KEYS if key != "instruct" or instructs]
    unit = next((result.currency for result in results if result.currency), None)
    head = [*keys, *names, "tokens", f"cost, {unit}" if unit else "cost", "documents/s", "certified"]
    lines = [head, ["---" if i < len(keys) else "---:" for i in range(len(head))]]
    for result in results:
        cells = [_escaped(getattr(result.cell, key)) for key in keys]
        if result.state == "done":
            lines.append([*cells, *(_value(result, name, results) for name in names), *_figures(result)])
        else:
            told = _escaped(result.error) if result.error else "not run yet"
            lines.append([*cells, f"*{told}*", *[""] * (len(head) - len(keys) - 1)])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _csv(results: Sequence[Result]) -> str:
    data = rows(results)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(data[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(data)
    return file.getvalue()


def _measures(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.quality))


def _value(result: Result, name: str, results: Sequence[Result]) -> str:
    if (value := result.quality.get(name)) is None:
        return "-"
    same = [
        other.quality[name]
        for other in results
        if other.cell.dataset == result.cell.dataset and other.quality
    ]
    best = len(same) > 1 and value == max(same) and not name.endswith(" before")
    return f"**{value:.4f}**" if best else f"{value:.4f}"


def _figures(result: Result) -> list[str]:
    return [
        f"{result.tokens:,}",
        "-" if result.cost is None else f"{result.cost:,.4f}",
        "-" if result.speed is None else f"{result.speed:,.0f}",
        "-" if result.certified is None else f"{result.certified:.0%}",
    ]


def _escaped(text: str) -> str:
    """A text that neither ends a cell nor is HTML."""
    text = " ".join(text.split())
    for char, stands in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("*", "\\*"), ("`", "\\`")):
        text = text.replace(char, stands)
    return text
