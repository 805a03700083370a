"""Reads rankings to be judged: from a job's output folder, or from a run in any format that can be read.

Only what the qrels judge is kept, so that a large run needs little memory. A run whose documents have scores is put in
trec_eval's order: by score as a 32-bit float, and among equal ones by document id, both falling. Otherwise ranks count,
or the order of the file. A job's own output has ranks, so there they count.
"""

import os
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
import orjson

from batchrank.errors import InputError
from batchrank.io.address import located
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read import detect, runs
from batchrank.read.arrow import at, strings
from batchrank.read.base import Source, ended
from batchrank.read.columnar import names_in
from batchrank.read.jsonl import Lines
from batchrank.read.parquet import batches, opened
from batchrank.write.folder import OutputFolder

Run: TypeAlias = dict[str, Sequence[str]]
"""Query id -> document ids, best first."""

_PREDICTIONS = re.compile(
    rb'\s*\{\s*"(mteb_model_meta"|[^"]*"\s*:\s*\{\s*"[^"]*"\s*:\s*\{\s*"[^"]*"\s*:\s*\{)'
)
"""An object of subsets, of splits, of queries, of documents."""
_START = 4096
"""Bytes in which mteb's predictions show their form, even if a subset's name is long."""
_OWN = ("query_id", "doc_id", "rank", "first_stage_rank")
_ROWS = 65_536
"""Rows at a time: large enough for speed, and little memory."""
_BYTES = 16 * 1024 * 1024
"""16 MiB at a time, where rows are wide."""


@dataclass(frozen=True, slots=True)
class Rankings:
    """What was read.

    Attributes:
        after: the rankings.
        before: the first stage's, None where they aren't known whole: only an output that holds ranks of both and all
            documents tells them.
        queries: how many queries there were, judged or not.
        notes: what the reader of a result should know.
    """

    after: Run
    before: Run | None
    queries: int
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Documents:
    """One query's documents as they come, none of whose columns need be known but their ids.

    Attributes:
        ids: the documents.
        ranks: their ranks from 1; where there are none, scores tell the order, or else the file's.
        first: the first stage's ranks.
        scores: higher is better; NaN for none.
    """

    ids: list[str] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def after(self) -> list[str]:
        """The documents, best first."""
        if self.ranks:
            return [self.ids[i] for i in np.argsort(self.ranks, kind="stable")]
        if not self.scores or all(score != score for score in self.scores):
            return self.ids
        return trec_order(self.ids, self.scores)

    def add(self, more: "Documents") -> None:
        """Take in further documents of the query."""
        self.ids += more.ids
        self.ranks += more.ranks
        self.first += more.first
        self.scores += more.scores

    def before(self) -> list[str] | None:
        """The first stage's order; None when documents of it are missing, as ``output.top_n`` leaves them out."""
        if sorted(self.first) != list(range(1, len(self.ids) + 1)):
            return None
        return [self.ids[i] for i in np.argsort(self.first)]


def trec_order(ids: Sequence[str], scores: Sequence[float]) -> list[str]:
    """Documents in the order in which trec_eval reads a run; those without a score (NaN) last."""
    values = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    with np.errstate(over="ignore"):
        keys = values.astype(np.float32).tolist()
    pairs = sorted(
        zip(keys, (i.encode("utf-8", "surrogatepass") for i in ids), ids, strict=True), reverse=True
    )
    return [name for _, _, name in pairs]


def load(path: str, judged: Container[str]) -> Rankings:
    """Read the rankings of judged queries.

    Raises:
        InputError: there is no ranking at the path, or it can't be read.
    """
    sources = [detect.source(part) for part in _parts(path)]
    notes = []
    if located(path).is_dir() and OutputFolder(path).complete() is None:
        notes.append(
            f"{located(path)} is the output of a run that has not ended: only what it has ranked so far is judged"
        )
    found: dict[str, Documents] = {}
    seen: set[str] = set()
    for source in sources:
        for query, documents in _read(source):
            seen.add(query)
            if query in judged:
                found.setdefault(query, Documents()).add(documents)
    if not seen:
        raise InputError(f"{sources[0].name}: no ranking in it; correct the path")
    before = [(query, documents.before()) for query, documents in found.items() if documents.first]
    known: Run = {query: order for query, order in before if order is not None}
    whole = known if before and len(known) == len(found) else None
    if before and whole is None:
        notes.append(
            "the output holds only the first documents of each query (output.top_n), so the first stage's ranking is "
            "not known; name it with --before"
        )
    return Rankings({q: d.after() for q, d in found.items()}, whole, len(seen), tuple(notes))


def tops(path: str, depth: int) -> Iterator[tuple[str, list[str]]]:
    """Each query's first documents, best first, in the order of the files; holds one query at a time.

    Raises:
        InputError: there is no ranking at the path, or it can't be read.
    """
    for query, documents in _whole(path):
        yield query, documents.after()[:depth]


def moves(path: str, depth: int) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each query's first documents, before and after reranking, in the order of the files; holds one query at a time.

    Left out are those whose first stage the output doesn't tell so deep.

    Raises:
        InputError: there is no ranking at the path, or it can't be read.
    """
    for query, documents in _whole(path):
        first = [at for at, rank in enumerate(documents.first) if rank <= depth]
        if first and len(first) == min(depth, max(documents.first)):
            first.sort(key=documents.first.__getitem__)
            yield query, [documents.ids[at] for at in first], documents.after()[:depth]


def _whole(path: str) -> Iterator[tuple[str, Documents]]:
    """Queries with all of their documents, which stand together, perhaps in two parts of a file."""
    for query, pieces in groupby(stretches(path), key=itemgetter(0)):
        (_, documents), *more = pieces
        for _, further in more:
            documents.add(further)
        yield query, documents


def stretches(path: str) -> Iterator[tuple[str, Documents]]:
    """Queries with as many of their documents as stand together; a query may come again. Holds one at a time.

    Raises:
        InputError: there is no ranking at the path, or it can't be read.
    """
    for part in _parts(path):
        yield from _read(detect.source(part))


def _parts(path: str) -> list[str]:
    if not located(path).is_dir():
        return [path]
    parts = [os.fspath(part) for part in OutputFolder(path).parts()]
    if not parts:
        raise InputError(
            f"{located(path)}: no ranking-*.parquet (or .jsonl, .trec, .tsv, .json) in it; run the job first"
        )
    return parts


def _read(source: Source) -> Iterator[tuple[str, Documents]]:
    if source.format == "jsonl" and _is_predictions(source):
        return _predictions(source)
    if source.format == "parquet" and set(_OWN) <= set(names_in(source)):
        return _own_parquet(source)
    if source.format == "jsonl":
        return _jsonl(source)
    return _run(source)


def _own_parquet(source: Source) -> Iterator[tuple[str, Documents]]:
    with opened(source) as file:
        for batch in batches(file, _ROWS, _BYTES, *_OWN):
            query, ids = strings(at(batch.column("query_id"), ())), strings(at(batch.column("doc_id"), ()))
            ranks, first = batch.column("rank").to_pylist(), batch.column("first_stage_rank").to_pylist()
            for start, end in _stretches(query):
                yield query[start], Documents(ids[start:end], ranks[start:end], first[start:end])


def _jsonl(source: Source) -> Iterator[tuple[str, Documents]]:
    """A job's own JSON lines with both ranks; any other as a run."""
    try:
        place_and_first = next(runs.records(source, _refuse), None)
    except OSError as error:
        raise ended(source, error) from error
    if place_and_first is None or not _is_own(place_and_first[1]):
        return _run(source)
    return _own_jsonl(source)


def _is_own(record: dict[str, Any]) -> bool:
    ranking = record.get("ranking")
    return isinstance(ranking, list) and all(isinstance(e, dict) and "first_stage_rank" in e for e in ranking)


def _own_jsonl(source: Source) -> Iterator[tuple[str, Documents]]:
    for place, record in runs.records(source, _refuse):
        try:
            rows = record["ranking"]
            columns = [[row[name] for row in rows] for name in ("doc_id", "rank", "first_stage_rank")]
            yield record["query_id"], Documents(*columns)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{place}: the line is no ranking as the lines before it are: {error}; correct the file"
            ) from error


def _is_predictions(source: Source) -> bool:
    try:
        lines = Lines(source)
        with lines.closing():
            return _PREDICTIONS.match(lines.decompress().peek(_START)[:_START]) is not None
    except OSError as error:
        raise ended(source, error) from error


def _predictions(source: Source) -> Iterator[tuple[str, Documents]]:
    """Mteb's predictions: query -> document -> score, below a subset and a split."""
    try:
        lines = Lines(source)
        with lines.closing():
            data = orjson.loads(lines.decompress().read())
        subsets = [v for k, v in data.items() if k != "mteb_model_meta"]
        (queries,) = [split for subset in subsets for split in subset.values()]
        for query, scores in queries.items():
            yield query, Documents(list(scores), scores=[float(score) for score in scores.values()])
    except (OSError, orjson.JSONDecodeError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{source.name}: no predictions of one subset and split as mteb has them: {error}"
        ) from error


def _run(source: Source) -> Iterator[tuple[str, Documents]]:
    for entries in runs.read(replace(source, role="run"), Columns(), _refuse):
        batch, without = runs.with_documents(entries, source)
        yield from ((query, Documents()) for query in without)
        query, ids = batch.column("query_id").to_pylist(), batch.column("doc_id").to_pylist()
        scores = batch.column("score").to_numpy(zero_copy_only=False).tolist()
        ranks = batch.column("rank").to_pylist()
        if any(batch.column("judged").to_pylist()):
            raise InputError(
                f"{source.name}: these are relevance judgements, not a ranking; give them as --qrels"
            )
        for start, end in _stretches(query):
            own = [] if ranks[start] is None else ranks[start:end]
            yield query[start], Documents(ids[start:end], own, [], scores[start:end])


def _stretches(values: list[str]) -> Iterator[tuple[int, int]]:
    """Where equal values that stand together begin and end."""
    start = 0
    for _, equal in groupby(values):
        end = start + sum(1 for _ in equal)
        yield start, end
        start = end


def _refuse(failure: Failure) -> None:
    raise InputError(f"{failure.place}: {failure.message}; correct the file")
