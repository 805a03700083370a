"""Makes segments of joined files, one a query, in the order in which the candidates name the queries.

What may be wrong, beside what may be wrong in any input:

1. a line or record of any of the files can't be read: its query can't be ranked, where it says which that is, and else
   it is a failure of its own; too many of them end the run;
2. a query has no text: it can't be ranked, ``missing-query``;
3. a query names no document, or one by an empty id: it can't be ranked, ``no-candidates``, ``no-document-id``;
4. a document has no text: a failure of its own, ``missing-document``, and the document is ranked last without a score;
5. a query has no instruction, where the dataset has instructions: it can't be ranked, ``missing-instruction``;
6. none of a query's documents has one: it can't be ranked, ``all-documents-missing``;
7. the first hundred queries are all like that: it is the wrong corpus, and the run ends;
8. the corpus has different texts for a document: its queries can't be ranked, ``duplicate-document``; the same text
   twice does no harm.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from batchrank.data import taken
from batchrank.errors import InputError, Place, QueryError
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read import files as instructions
from batchrank.read import runs
from batchrank.read.base import Gauge, Item, Segment, Source, Unrecognised
from batchrank.read.entries import ENTRIES, Report, numbered, numbering
from batchrank.read.join import Array, Asked, Join
from batchrank.read.layout import Joined
from batchrank.read.pieces import ROW_BYTES, query_too_large
from batchrank.read.values import query_text

Read: TypeAlias = Callable[[int, int], str]

_SORTING = "sorting by query"
_BROKEN = 1000
"""So many records that can't be read, and the files are wrong, not the records."""
_SHOWN = 3
"""Ids that a message shows: enough to see that two files name documents differently."""


def items(files: Joined, columns: Columns, gauge: Gauge) -> Generator[Item, None, None]:
    """The queries of joined files; see the list above for what is yielded in the place of one.

    Raises:
        InputError: a file can't be read to its end, or too many records can't be read.
        MissingExtraError: DuckDB isn't installed.
    """
    broken = _Broken()
    files = _gauged(files, gauge)
    reads = [_entered(source, columns, broken) for source in files.candidates]
    uninstructed: set[str] = set()
    with Join() as join:
        count = join.entries(numbered(ENTRIES), numbering(reads))
        if files.queries:
            join.questions(runs.TEXTS, _texts(files.queries, columns, broken, queries=True))
            if files.instructions:
                uninstructed = join.instructions(runs.TEXTS, instructions.texts(files.instructions, broken))
        elif files.candidates and count and join.lacks_texts():
            raise InputError(
                f"{files.candidates[0].name}: it names queries by id only; set input.queries to the file that holds "
                "their texts"
            )
        texts = (
            gauge.then(_texts(files.corpus, columns, broken, queries=False), _SORTING)
            if files.corpus
            else None
        )
        if texts is None:
            gauge.begin(_SORTING)
        documents = _by_query(join.documents(texts), join.text)
        first = next(documents, None)
        if not files.corpus and first and first.missing.all():
            raise InputError(
                f"{files.candidates[0].name}: it names documents by id only; set input.corpus to the file that holds "
                "their texts"
            )
        yield from broken.failures
        gauge.count()
        found = first
        for asked in join.asked():
            gauge.at((asked.ordinal + 1) / count)
            own = found if found is not None and found.ordinal == asked.ordinal else None
            if (fault := broken.faults.pop(asked.query_id, None)) is not None:
                yield _faulty(fault)
            elif asked.query_id in uninstructed:
                yield _uninstructed(asked, files)
            elif own is None:
                yield _without_documents(asked, files)
            else:
                yield from _query(asked, own, files)
            if own is not None:
                found = next(documents, None)
        if found is not None:
            raise AssertionError(
                f"documents of query number {found.ordinal}, which is none that was asked for"
            )
        yield from map(_faulty, broken.faults.values())


def _gauged(files: Joined, gauge: Gauge) -> Joined:
    """The files, all of which tell one gauge how far reading them has come, as no query comes before that."""
    ahead = gauge.begin("joining texts", sum(source.bytes for source in files.sources))
    parts = {
        field.name: [replace(source, gauge=ahead) for source in getattr(files, field.name)]
        for field in fields(files)
    }
    return Joined(**parts)


def _entered(source: Source, columns: Columns, broken: Report) -> Iterator[Array]:
    source.gauge.file(source.bytes)
    yield from runs.read(source, columns, broken)


class _Broken:
    """Records that can't be read.

    Attributes:
        failures: those whose query isn't known.
        faults: of each query of the others the first.
    """

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.faults: dict[str, Failure] = {}
        self._first: Failure | None = None
        self._count = 0

    def __call__(self, failure: Failure) -> None:
        if failure.query_id is None:
            self.failures.append(failure)
        else:
            self.faults.setdefault(failure.query_id, failure)
        first = self._first = self._first or failure
        self._count += 1
        if self._count >= _BROKEN:
            raise InputError(
                f"{_BROKEN} records can't be read; the first, {first.place}: {first.message}; correct the file"
            )


class _Documents:
    """One query's documents: ids, texts, scores (NaN where unknown), which are missing.

    Attributes:
        ordinal: the query's number.
        conflict: the id of a document for which the corpus has different texts.
        bytes: what the texts take; past the bound they are kept no more.
    """

    def __init__(self, ordinal: int, text: Read) -> None:
        self.ordinal = ordinal
        self._text = text
        self.conflict: str | None = None
        self.bytes = 0
        self.ids: list[str] = []
        self.texts: list[str] = []
        self._scores: list[Any] = []
        self._missing: list[Any] = []
        self._last = -1
        self._before = ""

    def add(self, batch: Array) -> None:
        """Take more of them; rows of one entry follow one another, a row for each time that the corpus has it."""
        seq = batch.column("seq").to_numpy()
        ids = batch.column("doc_id").to_pylist()
        again = np.diff(seq, prepend=self._last) == 0
        keep = np.flatnonzero(~again)
        sizes = batch.column("size")
        self.bytes += int(sizes.to_numpy()[keep].sum())
        texts: list[str] = [""] * len(ids)
        if self.bytes <= ROW_BYTES:
            texts = list(map(self._text, batch.column("place").to_pylist(), sizes.to_pylist()))
        for row in np.flatnonzero(again).tolist():
            if texts[row] != (texts[row - 1] if row else self._before):
                self.conflict = self.conflict or ids[row]
        self._before = texts[-1]
        self.ids += taken(ids, keep)
        self.texts += taken(texts, keep)
        self._scores.append(batch.column("score").to_numpy(zero_copy_only=False)[keep])
        self._missing.append(batch.column("missing").to_numpy(zero_copy_only=False)[keep])
        self._last = seq[-1]

    @property
    def scores(self) -> Any:
        return np.concatenate(self._scores).astype(np.float64)

    @property
    def missing(self) -> Any:
        return np.concatenate(self._missing).astype(bool)


def _by_query(batches: Iterable[Array], text: Read) -> Iterator[_Documents]:
    documents: _Documents | None = None
    for batch in batches:
        ordinals = batch.column("ordinal").to_numpy()
        bounds = [0, *(np.flatnonzero(np.diff(ordinals)) + 1).tolist(), len(ordinals)]
        for start, end in pairwise(bounds):
            if end == start:
                continue
            if documents is None or ordinals[start] != documents.ordinal:
                if documents is not None:
                    yield documents
                documents = _Documents(int(ordinals[start]), text)
            documents.add(batch.slice(start, end - start))
    if documents is not None:
        yield documents


def _faulty(fault: Failure) -> Segment:
    return Segment(fault.place, fault.query_id or "", "", [], None, None, whole=True, fault=fault)


def _without_documents(asked: Asked, files: Joined) -> Item:
    place = _place(files.candidates[asked.file], asked.number)
    if asked.nameless is None:
        message = "the query has no candidates; give it some, or remove the record"
        return Segment.faulty(place, asked.query_id, QueryError("no-candidates", message), whole=True)
    where = _place(files.candidates[asked.nameless[0]], asked.nameless[1])
    message = f"a document's id at {where} is null or empty; fill it in, or remove the document"
    return Segment.faulty(place, asked.query_id, QueryError("no-document-id", message), whole=True)


def _query(asked: Asked, found: _Documents, files: Joined) -> Iterator[Item]:
    place = _place(files.candidates[asked.file], asked.number)
    failure = partial(Failure, place, asked.query_id)
    if asked.text is None and files.queries:
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
    if found.bytes > ROW_BYTES:
        raise query_too_large()
    if found.conflict is not None:
        name = repr(found.conflict)
        message = (
            f"document id {name} comes more than once in {where}, with different texts; keep one of them"
        )
        raise QueryError("duplicate-document", message)
    scores = found.scores
    if np.isinf(scores).any():
        raise QueryError("bad-score", "a score is infinite; write a number")
    known = None if np.isnan(scores).all() else scores
    return Segment(place, asked.query_id, text, found.texts, found.ids, known, whole=True)


def _texts(files: Iterable[Source], columns: Columns, report: Report, *, queries: bool) -> Iterator[Array]:
    for source in files:
        source.gauge.file(source.bytes)
        yield from runs.read_texts(source, columns, report, queries=queries)


def _place(source: Source, number: int) -> Place:
    return Place(source.name, source.unit, number)


def _names(files: Sequence[Source]) -> str:
    more = f" and {len(files) - 1} more files" if len(files) > 1 else ""
    return files[0].name + more if files else ""
