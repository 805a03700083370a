"""Keeps the result of each cell of a benchmark and writes the table: Markdown for people, CSV and JSON for programs."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from batchrank.bench.matrix import Cell
from batchrank.errors import BatchrankError, MissingExtraError
from batchrank.pipeline.earlier import input_fingerprint
from batchrank.quality.judgements import evaluate
from batchrank.read.layout import facts
from batchrank.write.folder import OutputFolder, write_text

State = Literal["done", "failed", "missing"]


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table.

    Attributes:
        cell: what was run.
        state: ``done``, ``failed``, or ``missing`` when it was not run yet.
        error: why it failed.
        quality: each measure's mean after reranking, and before (``... before``); empty without judgements.
        queries: ranked, and ``failed`` ones that could not be.
        documents: candidates ranked.
        tokens: tokens of all requests that the rankings took, whenever they were asked.
        cost: of those tokens; None without a price.
        currency: of the cost.
        certified: the share of queries that are proven exact to ``merge.top_k``.
        speed: documents a second in the process that ended the cell.
    """

    cell: Cell
    state: State
    error: str = ""
    quality: dict[str, float] = field(default_factory=dict)
    queries: int = 0
    failed: int = 0
    documents: int = 0
    tokens: int = 0
    cost: float | None = None
    currency: str | None = None
    certified: float | None = None
    speed: float | None = None


def done(cell: Cell) -> dict[str, Any] | None:
    """The summary of a cell whose run is complete; None when there is none."""
    return OutputFolder(cell.output).complete()


def result(cell: Cell, measures: Sequence[str], *, overrides: Sequence[str] = (), error: str = "") -> Result:
    """Read what a cell has left; ``error`` tells why its run ended without being complete.

    Raises:
        MissingExtraError: there are judgements, and ir-measures isn't installed.
    """
    summary = done(cell)
    if error or summary is None:
        return Result(cell, "failed" if error else "missing", error)
    totals = summary["totals"]
    try:
        if not same_job(cell, overrides, summary):
            return Result(cell, "missing")  # what is in place was made by the job as it was before
        price = cell.job(overrides).price
        quality = _quality(cell, measures)
    except MissingExtraError:
        raise
    except BatchrankError as fault:
        return Result(cell, "failed", str(fault))
    return Result(
        cell, "done", quality=quality,
        queries=totals["queries"], failed=totals["failed"], documents=totals["documents"], tokens=totals["tokens"],
        cost=None if price is None else price.cost(totals["tokens"], searches=totals.get("searches", 0)),
        currency=None if price is None else price.currency,
        certified=totals["certified"] / totals["queries"] if totals["queries"] else None,
        speed=summary["process"]["documents_per_second"],
    )  # fmt: skip


def _quality(cell: Cell, measures: Sequence[str]) -> dict[str, float]:
    if not cell.qrels:
        return {}
    found: dict[str, float] = {}
    for comparison in evaluate(str(cell.output), cell.qrels, measures=measures).comparisons:
        found[comparison.measure] = comparison.after
        if comparison.before is not None:
            found[f"{comparison.measure} before"] = comparison.before
    return found


def same_job(cell: Cell, overrides: Sequence[str], summary: dict[str, Any]) -> bool:
    """Whether a complete cell was made by the job that the benchmark file asks for now, from the input as it is now."""
    job = cell.job(overrides)
    assert job.input is not None
    wanted, made = job.public(), dict(summary["job"])
    unlike = {key for key in wanted if key not in _IRRELEVANT and wanted[key] != made.get(key)}
    return not unlike and input_fingerprint(facts(job.input)) == summary["hashes"]["input"]


_IRRELEVANT = {"name", "rate", "retry", "budget", "failures", "ledger", "gate"}
"""Keys on which no ranking depends."""


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
