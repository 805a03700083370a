"""What came of one cell."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from batchrank.bench.matrix import Cell
from batchrank.errors import BatchrankError, MissingExtraError
from batchrank.quality.compare import evaluate

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
    try:
        data = orjson.loads((cell.output / "summary.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return data if isinstance(data, dict) and data.get("complete") else None


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
    wanted, made = job.public(), dict(summary["job"])
    unlike = {key for key in wanted if key not in _IRRELEVANT and wanted[key] != made.get(key)}
    return not unlike and not _newer_input(cell, job.input.path if job.input else ())


_IRRELEVANT = {"name", "rate", "retry", "budget", "failures", "ledger", "gate"}
"""Keys on which no ranking depends."""


def _newer_input(cell: Cell, paths: Sequence[str]) -> bool:
    made = (cell.output / "summary.json").stat().st_mtime_ns
    return any(Path(path).is_file() and Path(path).stat().st_mtime_ns > made for path in paths)
