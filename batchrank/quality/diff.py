"""Compares two outputs query by query: how alike their rankings are, which queries moved most, what each has cost.

The outputs may be of different jobs and models, in any format that can be read, and their queries in any order.
"""

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from batchrank.errors import InputError, OutputError
from batchrank.io import storage
from batchrank.io.address import located
from batchrank.quality.measures import churn, common_tau, rbo
from batchrank.quality.sidebyside import gathered, queries
from batchrank.write.folder import OutputFolder

CUTOFFS = (1, 5, 10)
"""Depths at which the exchange of documents is told, besides the jobs' own ``merge.top_k``."""


@dataclass(frozen=True, slots=True)
class Output:
    """One of the outputs, as far as its summary tells of it; None where there is none, as beside a TREC run.

    Attributes:
        path: where it is.
        queries: how many queries it ranks.
        tokens: tokens that the run took, and ``cost`` what they cost in ``currency``.
    """

    path: str
    queries: int
    job: str | None = None
    model: str | None = None
    method: str | None = None
    top_k: int | None = None
    tokens: int | None = None
    cost: float | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """A query whose ranking changed.

    Attributes:
        rbo: rank-biased overlap.
        tau: Kendall's tau over common documents; None where there are fewer than two.
        churn: by depth, the share of documents that were exchanged.
        first: the best document of either output; None where it ranks none.
    """

    query_id: str
    rbo: float
    tau: float | None
    churn: dict[int, float]
    first: tuple[str | None, str | None]


@dataclass(frozen=True, slots=True)
class Figure:
    """A measure over all common queries.

    Attributes:
        mean: over the queries that have it; None where none has.
        worst: that of the query that changed most by it.
        changed: queries in which it tells a change.
    """

    mean: float | None
    worst: float | None
    changed: int


@dataclass(frozen=True, slots=True)
class Difference:
    """What two outputs have in common.

    Attributes:
        outputs: the two.
        queries: queries that both rank.
        persistence: the p of rank-biased overlap.
        depth: documents of each query that were compared; None for all.
        rbo: rank-biased overlap.
        tau: Kendall's tau over common documents.
        churn: by depth.
        moved: the queries that moved most, the most moved first.
        only: of either output, how many queries only it ranks, and the first ids of them.
    """

    outputs: tuple[Output, Output]
    queries: int
    persistence: float
    depth: int | None
    rbo: Figure
    tau: Figure
    churn: dict[int, Figure]
    moved: Sequence[Moved]
    only: tuple[tuple[int, Sequence[str]], tuple[int, Sequence[str]]]

    def data(self) -> dict[str, Any]:
        """As plain data."""
        data = asdict(self)
        for one in [data, *data["moved"]]:
            one["churn"] = {str(k): value for k, value in one["churn"].items()}
        return data


class _Measure:
    """Sums up one measure; ``same`` is its value for a query that did not change."""

    def __init__(self, same: float) -> None:
        self._same = same
        self._sum = 0.0
        self._count = self._changed = 0
        self._worst = same

    def add(self, value: float | None) -> None:
        if value is None:
            return
        self._sum += value
        self._count += 1
        self._changed += value != self._same
        if abs(value - self._same) > abs(self._worst - self._same):
            self._worst = value

    def figure(self) -> Figure:
        if not self._count:
            return Figure(None, None, 0)
        return Figure(round(self._sum / self._count, 6), round(self._worst, 6), self._changed)


class _Comparison:
    """Goes through both outputs once, and sums up."""

    def __init__(self, cutoffs: Sequence[int], persistence: float, depth: int | None, top: int) -> None:
        self.rbo, self.tau = _Measure(1.0), _Measure(1.0)
        self.churn = {k: _Measure(0.0) for k in cutoffs}
        self.queries = [0, 0]
        self.common = 0
        self.only: tuple[list[str], list[str]] = [], []
        self.only_count = [0, 0]
        self._persistence, self._depth, self._top = persistence, depth, top

    def moved(self, queries: Iterator[tuple[str, list[list[str] | None]]]) -> list[Moved]:
        """Take all queries in; the most moved ones, of which no more are held at a time."""
        found = (one for query in queries if (one := self._compare(*query)) is not None and one.rbo < 1)
        return heapq.nsmallest(self._top, found, key=lambda one: (one.rbo, one.tau or 0.0, one.query_id))

    def _compare(self, query: str, sides: list[list[str] | None]) -> Moved | None:
        for side, documents in enumerate(sides):
            self.queries[side] += documents is not None
        first, second = (None if side is None else side[: self._depth] for side in sides)
        if first is None or second is None:
            side = 1 if first is None else 0
            self.only_count[side] += 1
            if len(self.only[side]) < self._top:
                self.only[side].append(query)
            return None
        self.common += 1
        overlap, tau = rbo(first, second, self._persistence), common_tau(first, second)
        exchanged = {k: churn(first, second, k) for k in self.churn}
        self.rbo.add(overlap)
        self.tau.add(tau)
        for k, value in exchanged.items():
            self.churn[k].add(value)
        best = (first[0] if first else None, second[0] if second else None)
        shown = {k: round(value, 6) for k, value in exchanged.items()}
        return Moved(query, round(overlap, 6), None if tau is None else round(tau, 6), shown, best)


def diff(
    first: str,
    second: str,
    *,
    cutoffs: Sequence[int] = (),
    persistence: float = 0.9,
    depth: int | None = None,
    top: int = 10,
) -> Difference:
    """Compare two outputs.

    Args:
        first: a job's output folder, or a run in any format that can be read.
        second: likewise; of another job or model, too.
        cutoffs: depths at which the exchange of documents is told; by default ``CUTOFFS`` and the jobs' ``top_k``.
        persistence: the p of rank-biased overlap.
        depth: documents of each query that are compared; None for all.
        top: the queries that moved most are named, so many; and as many of those that only one output ranks.

    Raises:
        InputError: there is no ranking at a path, it can't be read, or no query is in both.
        OutputError: there is no room for temporary files.
    """
    paths = (first, second)
    for path in paths:
        if not storage.exists(path):
            raise InputError(f"diff: {storage.shown(path)}: no such file or folder; correct the path")
    told = [_summary(path) for path in paths]
    known = {one["job"]["merge"]["top_k"] for one in told if one is not None}
    found = _Comparison(cutoffs or sorted({*CUTOFFS, *known}), persistence, depth, top)
    try:
        with closing(gathered(paths)) as db:
            moved = found.moved(queries(db))
    except sqlite3.Error as error:
        raise OutputError(
            f"diff: a temporary file can't be written: {error}; set TMPDIR to a folder with room for both outputs"
        ) from error
    if not found.common:
        raise InputError(
            f"diff: no query of {first} is in {second} ({_some(found.only[0])} against {_some(found.only[1])}); "
            "compare outputs of the same queries"
        )
    one, two = (
        _output(path, summary, count) for path, summary, count in zip(paths, told, found.queries, strict=True)
    )
    only_first, only_second = ((found.only_count[side], found.only[side]) for side in (0, 1))
    return Difference(
        (one, two), found.common, persistence, depth,
        found.rbo.figure(), found.tau.figure(), {k: measure.figure() for k, measure in found.churn.items()},
        moved, (only_first, only_second),
    )  # fmt: skip


def _summary(path: str) -> dict[str, Any] | None:
    return OutputFolder(path).complete() if located(path).is_dir() else None


def _output(path: str, summary: dict[str, Any] | None, queries: int) -> Output:
    if summary is None:
        return Output(path, queries)
    job, spend = summary["job"], summary["spend"]
    model = (
        job["model"]
        if isinstance(job["model"], str)
        else job["model"].get("name") or job["model"].get("base")
    )
    merge = job["merge"]
    return Output(
        path, queries, summary["name"], model, merge["method"], merge["top_k"],
        spend["tokens"], spend["cost"], spend["currency"],
    )  # fmt: skip


def _some(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:3])) or "no query"
