"""Groups pairs that follow one another into queries, and refuses pairs of a query that stand apart."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any, TypeAlias, cast

import numpy as np
import pyarrow as pa

from batchrank.data import Content, Floats, Query, is_blank
from batchrank.errors import BatchrankError, Place, QueryError, UnsortedError, install_line
from batchrank.io import storage
from batchrank.io.strings import Strings
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read import arrow
from batchrank.read.base import COLUMNAR, TRUNCATED, Gauge, SeenIds, Segment, Source
from batchrank.read.columnar import UNDECODABLE, opened
from batchrank.read.detect import INPUTS
from batchrank.read.pieces import ROW_BYTES, query_too_large
from batchrank.read.tables import layout

Run: TypeAlias = tuple[str, Place, int, int]
"""Pairs of one query that follow one another: its id, their first place, their number, their characters."""

ROWS = 100_000
"""So many rows are looked through, or as many as hold so many characters."""
_CHARACTERS = 256_000_000
"""About 256 MB of text: a few seconds of reading."""
_BATCH_ROWS = 16_384
"""Rows at a time: enough for speed."""
_BATCH_BYTES = 4 << 20
"""4 MiB at a time, so that long texts take little memory."""


def refuse_unsorted(sources: Sequence[Source], columns: Columns) -> None:
    """Look through the first pairs; records of whole queries, and what can be read only once, are not looked at.

    Raises:
        UnsortedError: a query's pairs stand apart.
    """
    if any(source.path is None or not storage.is_file(source.path) for source in sources):
        return
    with suppress(OSError, pa.ArrowException, UnicodeDecodeError):  # its reader will say what is wrong
        _look_through(_runs(sources, columns))


def _look_through(runs: Iterable[Run]) -> None:
    places: dict[str, Place] = {}
    last: str | None = None
    rows = characters = 0
    for query_id, place, count, size in runs:
        if query_id != last and query_id in places:
            raise unsorted(query_id, places[query_id], place)
        last = query_id
        places.setdefault(query_id, place)
        rows, characters = rows + count, characters + size
        if rows >= ROWS or characters >= _CHARACTERS:
            return


_SORT = f"set input.sort: true (DuckDB groups them on disk: {install_line('corpus')}), or sort the input"


def unsorted(query_id: str, first: Place, again: Place) -> UnsortedError:
    """What to raise where a query's pairs stand apart."""
    return UnsortedError(
        f"pairs are not grouped by query: query id {query_id!r} at {again} was already used at {first}, with other "
        f"queries between; {'sort the records' if first.unit == 'query' else _SORT} by query id"
    )


def _runs(sources: Iterable[Source], columns: Columns) -> Iterator[Run]:
    for source in sources:
        alone = replace(source, gauge=Gauge(), counts={})
        if source.format in COLUMNAR:
            if (ids := _ids(alone, columns)) is None:
                return
            yield from ids
            continue
        with closing(INPUTS[source.format].read(alone, columns)) as items:  # type: ignore[type-var]
            for item in items:
                if not isinstance(item, Segment):
                    continue
                if item.whole:
                    return
                size = sum(len(one if isinstance(one, str) else one.value) for one in item.documents)
                yield item.query_id, item.place, max(1, len(item.documents)), size


def _ids(source: Source, columns: Columns) -> Iterator[Run] | None:
    """Of tables only the column of ids is read; None where rows are whole queries, or can't be read."""
    try:
        with opened(source) as file:
            roles = layout(file.schema, columns).record
            if roles.candidates or roles.labelled:
                return None
    except (BatchrankError, OSError, ValueError):
        return None  # its reader will say what is wrong
    return _column(source, roles.query_id)


def _column(source: Source, path: tuple[str, ...]) -> Iterator[Run]:
    def wanted(name: str) -> bool:
        return name == ".".join(path)

    with opened(source) as file:
        for piece in file.pieces(wanted, rows=_BATCH_ROWS, documents=_BATCH_ROWS, size=_BATCH_BYTES):
            if piece.bytes is not None:
                continue  # its reader will say what is wrong
            row = piece.first
            for query_id, count in _lengths(arrow.at(piece.rows.column(path[0]), path[1:])):
                if query_id:
                    yield query_id, Place(source.name, "row", row), count, 0
                row += count


def _lengths(column: Any) -> Iterator[tuple[str | None, int]]:
    ends = arrow.runs(column)
    starts = [0, *ends[:-1].tolist()]
    ids = arrow.strings(column.take(starts))
    yield from zip(ids, (ends - starts).tolist(), strict=True)


LOST = (TRUNCATED, UNDECODABLE, "encrypted-file")
"""Causes of failures that stand for a file, or for all that follows in it."""


def queries(items: Iterable[Segment | Failure], seen: SeenIds) -> Iterator[Query | Failure]:
    """Join segments to queries, in order; failures of single records pass through as they come.

    Where a file, or its end, is lost, pairs of the queries on either side of the gap may be lost with it: they fail.

    Raises:
        UnsortedError: the pairs of a query don't follow one another.
    """
    group: _Group | None = None
    lost: Failure | None = None
    for item in items:
        if isinstance(item, Failure):
            if item.cause in LOST:
                lost = item
                if group:
                    group.cut(f"from {item.place} on", item.cause)
            yield item
        elif group and group.continues(item):
            group.add(item)
        else:
            if group:
                yield group.result()
            earlier = seen.add(item.query_id, item.place)
            if earlier and not item.whole:
                raise unsorted(item.query_id, earlier, item.place)
            group = _Group(item, earlier)
            if lost and not item.whole:
                group.cut(f"in {lost.place.file}", lost.cause)
            lost = None
            if item.whole:
                yield group.result()
                group = None
    if group:
        yield group.result()


class _Group:
    """One query while its segments come in."""

    def __init__(self, first: Segment, earlier: Place | None) -> None:
        self._first = first
        self._fault = _duplicate(first, earlier) if earlier else first.fault
        self._more: list[Segment] = []
        self._bytes = 0 if first.whole else _size(first)

    def continues(self, segment: Segment) -> bool:
        return not segment.whole and segment.query_id == self._first.query_id

    def add(self, segment: Segment) -> None:
        """Take more of the query's documents; none of them is kept once the query can't be ranked."""
        if segment.fault is None and segment.query != self._first.query:
            message = (
                f"{segment.place} has the same query id but another query text; give each query its own id"
            )
            self._fault = self._fault or self._failure(QueryError("conflicting-query", message))
        self._fault = self._fault or segment.fault
        self._bytes += _size(segment)
        if self._bytes > ROW_BYTES:
            self._fault = self._fault or self._failure(query_too_large())
        if self._fault:
            self._more.clear()
        else:
            self._more.append(segment)

    def cut(self, what: str, cause: str) -> None:
        """Rows next to the query's own can't be read, in this file or a neighbouring one: some may be the query's."""
        message = (
            f"what stands {what} can't be read, so documents of this query may be missing; restore the file and run "
            "again"
        )
        self._fault = self._fault or self._failure(QueryError(cause, message))

    def result(self) -> Query | Failure:
        """The query, or why it can't be ranked."""
        if self._fault:
            return self._fault
        texts, ids, scores = self._columns()
        try:
            _check(texts, ids)
        except QueryError as error:
            return self._failure(error)
        first = self._first
        return Query.from_columns(first.query_id, first.query, ids, texts, scores, first.place)

    def _columns(self) -> tuple[Sequence[Content], Sequence[str], Sequence[float] | Floats | None]:
        parts = [self._first, *self._more]
        raw: Sequence[str | None] | None
        if len(parts) == 1:
            first = self._first
            found = first.documents
            texts = found.tolist() if isinstance(found, Strings) else list(found)
            raw, scores = first.doc_ids, first.scores
        else:
            texts = [text for part in parts for text in part.documents]
            raw = [i for part in parts for i in part.doc_ids or [None] * len(part.documents)]
            scores = [s for part in parts for s in _scores(part)]
        if raw is None:
            return texts, list(map(str, range(len(texts)))), scores
        if not isinstance(raw, Strings) and None in raw:
            return texts, [str(i) if doc_id is None else doc_id for i, doc_id in enumerate(raw)], scores
        return texts, cast(Sequence[str], raw), scores

    def _failure(self, error: QueryError) -> Failure:
        return Failure(self._first.place, self._first.query_id, error.cause, str(error))


def _size(part: Segment) -> int:
    """About how many bytes its documents take."""
    if isinstance(part.documents, Strings):
        return int(part.documents.array.nbytes)
    return sum(len(d) if isinstance(d, str) else len(d.value) for d in part.documents)


def _scores(part: Segment) -> Sequence[float]:
    if part.scores is None:
        return [np.nan] * len(part.documents)
    return part.scores.tolist() if isinstance(part.scores, np.ndarray) else part.scores


def _duplicate(segment: Segment, earlier: Place) -> Failure:
    message = (
        f"query id {segment.query_id!r} at {segment.place} was already used at {earlier}; give each query an id of its "
        "own"
    )
    return Failure(segment.place, segment.query_id, "duplicate-query", message)


_MANY = 256
"""Ids from which Arrow's call takes less time than making them Python's own."""


def _check(texts: Sequence[Content], ids: Sequence[str]) -> None:
    """Refuse what can't be ranked, or not without mixing documents up.

    Raises:
        QueryError: no candidates, all blank, or two with one id.
    """
    if not texts:
        raise QueryError("no-candidates", "the query has no candidates; give it some, or remove the record")
    if len(ids.array.unique() if isinstance(ids, Strings) and len(ids) >= _MANY else set(ids)) != len(ids):
        first: dict[str, int] = {}
        second, again = next((i, d) for i, d in enumerate(ids, 1) if first.setdefault(d, i) != i)
        raise QueryError(
            "duplicate-document",
            f"document id {again!r} comes twice among the query's candidates, as number {first[again]} and number "
            f"{second}; keep one of them, or give each its own id",
        )
    if all(map(is_blank, texts)):
        raise QueryError(
            "all-documents-blank", f"all {len(texts)} documents of the query are empty; fill in their texts"
        )
