"""Joined files -> segments, one a query, in the order in which the candidates name the queries.

What may be wrong, beside what may be wrong in any input:

1. a line or record of any of the files can't be read: a failure of its own; too many of them end the run;
2. a query has no text: it can't be ranked, ``missing-query``;
3. a document has no text: a failure of its own, ``missing-document``, and the document is ranked last without a score;
4. a query has no instruction, where the dataset has instructions: it can't be ranked, ``missing-instruction``;
5. none of a query's documents has one: it can't be ranked, ``all-documents-missing``;
6. the first hundred queries are all like that: it is the wrong corpus, and the run ends.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from batchrank.errors import InputError, Place, QueryError
from batchrank.formats import Gauge, Item, Segment, Source, Unrecognised, corpus, runs
from batchrank.formats.values import query_text
from batchrank.job.sections import Columns
from batchrank.read import instructions
from batchrank.read.join import Array, Asked, Join, numbered, numbering
from batchrank.read.layout import Joined
from batchrank.records import Failure

_BROKEN = 1000
"""So many records that can't be read, and the files are wrong, not the records."""
_SHOWN = 3


def items(files: Joined, columns: Columns, gauge: Gauge) -> Generator[Item, None, None]:
    """The queries of joined files; see the list above for what is yielded in the place of one.

    Raises:
        InputError: a file can't be read to its end, or too many records can't be read.
        MissingExtraError: DuckDB isn't installed.
    """
    broken = _Broken()
    reads = [runs.read(source, columns, broken) for source in files.candidates]
    bare: set[str] = set()
    with Join() as join:
        count = join.entries(numbered(runs.ENTRIES), numbering(reads))
        if files.queries:
            join.questions(corpus.TEXTS, _texts(files.queries, columns, broken, queries=True))
            if files.instructions:
                bare = join.instructions(corpus.TEXTS, instructions.texts(files.instructions, broken))
        elif files.candidates and count and _lacks_queries(join):
            raise InputError(
                f"{files.candidates[0].name}: it names queries by id only; set input.queries to the file that holds "
                "their texts"
            )
        texts = _texts(files.corpus, columns, broken, queries=False) if files.corpus else None
        documents = _by_query(join.documents(corpus.TEXTS, texts))
        first: Sequence[_Documents] = [one] if (one := next(documents, None)) else []
        if not files.corpus and first and first[0].missing.all():
            raise InputError(
                f"{files.candidates[0].name}: it names documents by id only; set input.corpus to the file that holds "
                "their texts"
            )
        yield from broken.failures
        gauge.start(1)
        gauge.file(1)
        for number, (asked, found) in enumerate(zip(join.asked(), _chain(first, documents), strict=True), 1):
            gauge.at(number / count)
            if asked.query_id in bare:
                yield _uninstructed(asked, files)
                continue
            yield from _query(asked, found, files)


class _Broken:
    """Records that can't be read."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []

    def __call__(self, failure: Failure) -> None:
        self.failures.append(failure)
        if len(self.failures) >= _BROKEN:
            first = self.failures[0]
            raise InputError(
                f"{_BROKEN} records can't be read; the first, {first.place}: {first.message}; correct the file"
            )


class _Documents:
    """One query's documents: ids, texts, scores (NaN where unknown), which are missing, which entry each stems from."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.texts: list[str] = []
        self._scores: list[Any] = []
        self._missing: list[Any] = []
        self._seq: list[Any] = []

    def add(self, batch: Array) -> None:
        self.ids += batch.column("doc_id").to_pylist()
        self.texts += batch.column("text").to_pylist()
        self._scores.append(batch.column("score").to_numpy(zero_copy_only=False))
        self._missing.append(batch.column("missing").to_numpy(zero_copy_only=False))
        self._seq.append(batch.column("seq").to_numpy())

    @property
    def scores(self) -> Any:
        return np.concatenate(self._scores).astype(np.float64)

    @property
    def missing(self) -> Any:
        return np.concatenate(self._missing).astype(bool)

    def repeated(self) -> str | None:
        """The id of a document that the corpus holds more than once."""
        seq = np.concatenate(self._seq)
        again = np.flatnonzero(seq[1:] == seq[:-1])
        return self.ids[again[0]] if len(again) else None


def _by_query(batches: Iterable[Array]) -> Iterator[_Documents]:
    current, documents = -1, _Documents()
    for batch in batches:
        ordinals = batch.column("ordinal").to_numpy()
        bounds = [0, *(np.flatnonzero(np.diff(ordinals)) + 1).tolist(), len(ordinals)]
        for start, end in pairwise(bounds):
            if end == start:
                continue
            if ordinals[start] != current:
                if current >= 0:
                    yield documents
                current, documents = ordinals[start], _Documents()
            documents.add(batch.slice(start, end - start))
    if current >= 0:
        yield documents


def _chain(first: Iterable[_Documents], rest: Iterable[_Documents]) -> Iterator[_Documents]:
    yield from first
    yield from rest


def _query(asked: Asked, found: _Documents, files: Joined) -> Iterator[Item]:
    place = _place(files.candidates[asked.file], asked.number)
    failure = partial(Failure, place, asked.query_id)
    if asked.text is None:
        name = _names(files.queries)
        message = f"query id {asked.query_id!r} is not in {name}; add it there, or correct input.queries"
        yield Unrecognised(failure("missing-query", message), ambiguous=False)
        return
    missing = found.missing
    where = _names(files.corpus) or files.candidates[asked.file].name
    if missing.all():
        some = ", ".join(map(repr, found.ids[:_SHOWN]))
        message = (
            f"none of the query's {len(missing)} documents ({some}, ...) is in {where}; correct input.corpus"
        )
        yield Unrecognised(failure("all-documents-missing", message), ambiguous=False)
        return
    for at in np.flatnonzero(missing).tolist():
        message = (
            f"document {found.ids[at]!r} is not in {where}; it is ranked last, without a score: add it there"
        )
        yield failure("missing-document", message)
    try:
        yield _segment(asked, found, place, where)
    except QueryError as error:
        yield Segment.faulty(place, asked.query_id, error, whole=True)


def _uninstructed(asked: Asked, files: Joined) -> Failure:
    name = _names(files.instructions)
    message = (
        f"query id {asked.query_id!r} is not in {name}, which holds the queries' instructions; add it there"
    )
    place = _place(files.candidates[asked.file], asked.number)
    return Failure(place, asked.query_id, "missing-instruction", message)


def _segment(asked: Asked, found: _Documents, place: Place, where: str) -> Segment:
    text = query_text(asked.text)
    if asked.conflict:
        message = f"query id {asked.query_id!r} comes with different texts; give each query its own id"
        raise QueryError("conflicting-query", message)
    if (again := found.repeated()) is not None:
        message = f"document id {again!r} comes more than once in {where}; keep one of them"
        raise QueryError("duplicate-document", message)
    scores = found.scores
    if np.isinf(scores).any():
        raise QueryError("bad-score", "a score is infinite; write a number")
    known = None if np.isnan(scores).all() else scores
    return Segment(place, asked.query_id, text, found.texts, found.ids, known, whole=True)


def _texts(
    files: Iterable[Source], columns: Columns, report: runs.Report, *, queries: bool
) -> Iterator[Array]:
    for source in files:
        source.gauge.file(source.bytes)
        yield from corpus.read(source, columns, report, queries=queries)


def _lacks_queries(join: Join) -> bool:
    return next(join.asked()).text is None


def _place(source: Source, number: int) -> Place:
    return Place(source.name, "row" if source.format == "parquet" else "line", number)


def _names(files: Sequence[Source]) -> str:
    more = f" and {len(files) - 1} more files" if len(files) > 1 else ""
    return files[0].name + more if files else ""
