"""Judges a run's rankings against those of the last accepted run, which a small database keeps."""

import heapq
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from batchrank.errors import InputError
from batchrank.io.address import Where
from batchrank.job.sections import Gate
from batchrank.quality import judgements
from batchrank.quality.measures import Measures, Qrels, kendall_tau, rbo
from batchrank.quality.rankings import Run, tops
from batchrank.read import detect
from batchrank.write.folder import BASELINE, OutputFolder

_DEPTH = 100
"""Documents of each query that are kept at least, so that a later job may compare deeper than this one."""


class Baseline:
    """Rankings by query id, read from disk one at a time.

    Attributes:
        depth: the documents of each query that are known.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            InputError: it can't be read.
        """
        try:
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False
            )
            self.depth = int(self._db.execute("SELECT depth FROM about").fetchone()[0])
        except sqlite3.Error as error:
            raise InputError(f"{path} can't be read: {error}; remove it, and the gate starts anew") from None

    def get(self, query_id: str) -> list[str] | None:
        """The query's documents, best first; None when it was not ranked."""
        row = self._db.execute("SELECT documents FROM tops WHERE query_id = ?", (query_id,)).fetchone()
        return None if row is None else list(orjson.loads(row[0]))

    def __len__(self) -> int:
        return int(self._db.execute("SELECT COUNT(*) FROM tops").fetchone()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._db.close()


def keep(folder: Path, output: Where | None = None, *, depth: int = _DEPTH) -> Path | None:
    """Note the first documents of an accepted run, before its output makes way for another one's.

    Args:
        folder: where the baseline is kept.
        output: the run's output folder, by default the same.
        depth: documents of each query.

    Returns:
        The baseline, perhaps one that was kept before; None when there is none.

    Raises:
        InputError: the rankings can't be read.
    """
    path, output = folder / BASELINE, output or folder
    if OutputFolder(output).accepted():
        temporary = path.with_name(f".{BASELINE}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            _write(temporary, tops(os.fspath(output), max(depth, _DEPTH)), max(depth, _DEPTH))
            temporary.replace(path)
        except (sqlite3.Error, OSError) as error:
            raise InputError(f"{path} can't be written: {error}") from None
        finally:
            temporary.unlink(missing_ok=True)
    return path if path.exists() else None


def _write(path: Path, found: Iterator[tuple[str, list[str]]], depth: int) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("BEGIN")
        db.execute("CREATE TABLE about (depth INTEGER NOT NULL)")
        db.execute("CREATE TABLE tops (query_id TEXT PRIMARY KEY, documents BLOB NOT NULL) WITHOUT ROWID")
        db.execute("INSERT INTO about VALUES (?)", (depth,))
        rows = ((query_id, orjson.dumps(documents)) for query_id, documents in found)
        db.executemany("INSERT OR REPLACE INTO tops VALUES (?, ?)", rows)
        db.execute("COMMIT")
    finally:
        db.close()


_MOVED = 10
"""Queries that moved most, which the report lists."""
_SHOWN = 3
"""Those of them that a message names, so that it stays one line."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A query whose ranking changed."""

    query_id: str
    rbo: float
    tau: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gate found; means over the queries that both runs ranked.

    Attributes:
        passed: whether every threshold was kept to.
        reasons: which were not.
        depth: documents of each query that were compared.
        compared: queries that both runs ranked.
        appeared: queries that only this run ranked.
        vanished: queries that only the baseline has.
        rbo: mean rank-biased overlap; None when nothing was compared.
        tau: mean Kendall's tau.
        ndcg: at the depth, over judged queries that this run ranked; None without judgements.
        ndcg_before: the baseline's, over judged queries that both ranked.
        ndcg_drop: by how much it fell over those.
        moved: the queries that changed most, the most changed first.
    """

    passed: bool
    reasons: tuple[str, ...]
    depth: int
    compared: int = 0
    appeared: int = 0
    vanished: int = 0
    rbo: float | None = None
    tau: float | None = None
    ndcg: float | None = None
    ndcg_before: float | None = None
    ndcg_drop: float | None = None
    moved: tuple[Moved, ...] = ()

    def data(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def passing(self) -> Iterator[str]:
        """What to say of a run that passed: one that was not compared has passed for want of anything to go by."""
        if not self.compared:
            none = (
                "no query of the last run that passed is in this one"
                if self.vanished
                else "there is no earlier run"
            )
            yield f"gate: {none} to compare with"
        if self.figures:
            yield f"gate: passed: {self.figures}"

    @property
    def figures(self) -> str:
        """What was found, in words: the figures that there are; empty where there was nothing to judge by."""
        known = (
            ("rank-biased overlap", self.rbo),
            ("Kendall's tau", self.tau),
            (f"nDCG@{self.depth}", self.ndcg),
        )
        told = ", ".join(f"{name} {value:.4f}" for name, value in known if value is not None)
        return (
            f"{told} ({self.compared:,} queries compared, to depth {self.depth})" if self.compared else told
        )


class _Sums:
    """Sums over queries, and the most changed ones."""

    def __init__(self) -> None:
        self.compared = self.appeared = 0
        self.rbo = self.tau = 0.0
        self._moved: list[tuple[float, float, int, str]] = []

    def add(self, query_id: str, overlap: float, tau: float) -> None:
        self.compared += 1
        self.rbo += overlap
        self.tau += tau
        if overlap < 1:
            entry = (-overlap, -tau, -self.compared, query_id)
            (heapq.heappush if len(self._moved) < _MOVED else heapq.heappushpop)(self._moved, entry)

    @property
    def moved(self) -> tuple[Moved, ...]:
        entries = sorted(self._moved, reverse=True)
        return tuple(Moved(name, round(-overlap, 6), round(-tau, 6)) for overlap, tau, _, name in entries)


def judged(gate: Gate) -> Qrels:
    """The gate's judgements, none where it names none; a run asks for them before it spends anything.

    Raises:
        InputError: they can't be read.
        JobError: no measure can be made of them.
        MissingExtraError: ir-measures isn't installed.
    """
    if not gate.qrels:
        return {}
    found = judgements.load([detect.source(path) for path in gate.qrels])
    Measures([f"nDCG@{gate.depth}"], found)
    return found


def judge(gate: Gate, rankings: Iterable[tuple[str, list[str]]], baseline: Baseline | None) -> Judgement:
    """Compare rankings with a baseline.

    Args:
        gate: the thresholds.
        rankings: query ids with at least ``gate.depth`` documents, best first.
        baseline: the rankings to compare with; None when there are none yet, so that only quality counts.

    Raises:
        InputError: the judgements can't be read.
        MissingExtraError: there are judgements, and ir-measures isn't installed.
    """
    depth = gate.depth if baseline is None else min(gate.depth, baseline.depth)
    qrels = judged(gate)
    sums = _Sums()
    now: Run = {}
    before: Run = {}
    for query_id, documents in rankings:
        top = documents[:depth]
        if query_id in qrels:
            now[query_id] = top
        known = None if baseline is None else baseline.get(query_id)
        if known is None:
            sums.appeared += baseline is not None
            continue
        was = known[:depth]
        if query_id in qrels:
            before[query_id] = was
        sums.add(query_id, rbo(was, top, gate.persistence), kendall_tau(was, top))
    ndcg = _ndcg(qrels, now, depth, set(now)) if now else None
    ndcg_before = _ndcg(qrels, before, depth, set(before)) if before else None
    ndcg_same = _ndcg(qrels, now, depth, set(before)) if before else None
    rbo_mean = sums.rbo / sums.compared if sums.compared else None
    tau_mean = sums.tau / sums.compared if sums.compared else None
    drop = None if ndcg_before is None or ndcg_same is None else ndcg_before - ndcg_same
    reasons = tuple(_reasons(gate, rbo_mean, tau_mean, ndcg, drop))
    return Judgement(
        not reasons, _naming(reasons, sums.moved), depth,
        compared=sums.compared, appeared=sums.appeared,
        vanished=0 if baseline is None else len(baseline) - sums.compared,
        rbo=_rounded(rbo_mean), tau=_rounded(tau_mean), ndcg=_rounded(ndcg), ndcg_before=_rounded(ndcg_before),
        ndcg_drop=_rounded(drop), moved=sums.moved,
    )  # fmt: skip


def _ndcg(judged: Qrels, run: Run, depth: int, queries: set[str]) -> float:
    name = f"nDCG@{depth}"
    measures = Measures([name], judged)
    return measures.mean(name, measures.per_query(run, sorted(queries))[name])


def _reasons(
    gate: Gate, overlap: float | None, tau: float | None, ndcg: float | None, drop: float | None
) -> Iterable[str]:
    checks = (
        ("min_rbo", "rank-biased overlap", overlap, gate.min_rbo),
        ("min_tau", "Kendall's tau", tau, gate.min_tau),
        ("min_ndcg", "nDCG", ndcg, gate.min_ndcg),
    )
    for key, name, value, least in checks:
        if value is not None and least is not None and value < least:
            yield f"gate.{key}: {name} is {value:.4f}, less than {least:g}"
    if drop is not None and gate.max_ndcg_drop is not None and drop > gate.max_ndcg_drop:
        yield f"gate.max_ndcg_drop: nDCG fell by {drop:.4f}, more than {gate.max_ndcg_drop:g}"


def _naming(reasons: tuple[str, ...], moved: tuple[Moved, ...]) -> tuple[str, ...]:
    """The reasons with the queries that moved most."""
    if not reasons or not moved:
        return reasons
    names = ", ".join(f"{one.query_id!r} ({one.rbo:.2f})" for one in moved[:_SHOWN])
    return (*reasons, f"the queries that moved most, with their overlap: {names}")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
