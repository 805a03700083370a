"""Reads data in memory (tables, records, queries) by the same code and with the same checks as files."""

from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import pyarrow as pa

from batchrank.data import Candidate, Content, Query
from batchrank.errors import InputError, Place, QueryError
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read.base import ColumnsError, Item, SeenIds, Segment, Source, Unrecognised
from batchrank.read.groups import queries as joined
from batchrank.read.objects import Objects
from batchrank.read.pieces import pieces, plain_schema
from batchrank.read.tables import items, layout, oversized
from batchrank.read.values import (
    Labels,
    document_text,
    identifier,
    kind,
    query_identifier,
    query_text,
    unequal,
    unnamed,
)

NAME = "<queries>"
_PAIRS = (
    f"{NAME}: each row is one pair of a query and a document, and here each row has to be a query with the list of its "
    "candidates, as tables come in any order; group the rows by query first (with Ray: dataset.groupby(...)"
    ".map_groups(...)), or give one table with all pairs to batchrank.rerank"
)
_ROWS = {True: 32, False: 4096}
"""Rows taken at a time, of tables with a list of candidates in each row, and of those with a pair in each."""


@runtime_checkable
class ArrowStream(Protocol):
    """Anything that hands its columns over as Arrow's PyCapsule interface has it: data frames, tables, relations."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A capsule that holds a stream of record batches."""


def is_table(data: object) -> bool:
    """Whether something is a table, rather than an iterable of records."""
    return isinstance(data, ArrowStream) or _is_pandas(data) or _is_dataset(data)


def table(data: object, columns: Columns) -> Iterator[list[Item]]:
    """A table's rows, some at a time; rows count from 1.

    Raises:
        InputError: its columns don't tell what is what, or it can't be read as a table.
    """
    labels, row = Labels(Source(NAME, None, "memory")), 1
    try:
        for batch in _batches(data):
            where = layout(plain_schema(batch.schema), columns)
            most = _ROWS[where.record.candidates is not None or where.record.labelled]
            for piece in pieces(batch, row):
                if piece.bytes is not None:
                    yield [oversized(piece.rows, where, Place(NAME, "row", piece.first), piece.bytes)]
                    continue
                for start in range(0, piece.rows.num_rows, most):
                    place = Place(NAME, "row", piece.first + start)
                    yield items(piece.rows.slice(start, most), where, place, labels)
            row += batch.num_rows
    except ColumnsError as error:
        raise InputError(f"{NAME}: {in_call(str(error))}") from None
    except (
        pa.ArrowException,
        ValueError,
    ) as error:  # the second from pandas, such as of a column that comes twice
        raise InputError(f"{NAME}: {_named(data)} can't be read as a table: {error}") from error


def in_call(message: str) -> str:
    """A message about a job's keys, reworded for users who give them as an argument."""
    return message.replace("input.columns.", "columns.")


def _batches(data: object) -> Iterable[Any]:
    if isinstance(data, ArrowStream):
        yield from pa.RecordBatchReader.from_stream(data)
    elif _is_pandas(data):
        yield from pa.Table.from_pandas(data).to_batches()
    else:
        for found in data.with_format("arrow").iter(batch_size=_ROWS[False]):  # type: ignore[attr-defined]
            yield from found.to_batches()


def _is_pandas(data: object) -> bool:
    return type(data).__module__.partition(".")[0] == "pandas" and hasattr(data, "columns")


def _is_dataset(data: object) -> bool:
    return type(data).__module__.partition(".")[0] == "datasets" and hasattr(data, "iter")


class Records:
    """Turns queries and plain records into segments, one after the other."""

    def __init__(self, columns: Columns) -> None:
        self._objects = Objects(columns, Source(NAME, None, "memory"))
        self._number = 0

    def item(self, value: object) -> Item:
        """One query or record, or why it is none."""
        self._number += 1
        place = Place(NAME, "query", self._number)
        if isinstance(value, Query):
            return _segment(value, place if value.place.file == NAME else value.place)
        if isinstance(value, Mapping):
            item = self._objects.item(dict(value), place)
            # Most records are as JSON has them, so that they needn't be gone through.
            item = self._objects.item(_plain(value), place) if _cause(item) == "wrong-type" else item
            return _finite(item) if isinstance(item, Segment) else item
        message = (
            f"it is {_named(value)}; give a batchrank.Query, or a dict with query_id, query and candidates (or with "
            "query_id, query, doc_id and text: one a pair)"
        )
        return Failure(place, None, "wrong-type", message)


def _finite(item: Segment) -> Segment:
    """A record with its scores, which JSON could not hold if they were infinite."""
    infinite = item.scores is not None and np.isinf(item.scores).any()
    error = QueryError("bad-score", "a score is infinite; give a number, or NaN where there is none")
    return Segment.faulty(item.place, item.query_id, error, whole=item.whole) if infinite else item


def _plain(value: object) -> object:
    """A value as JSON has it: tuples and arrays as lists, numpy's numbers as Python's, candidates as objects."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Candidate):
        return {"id": _plain(value.id), "text": value.text, "score": _plain(value.score)}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _cause(item: Item) -> str | None:
    failure = item if isinstance(item, Failure) else item.fault if isinstance(item, Segment) else item.failure
    return None if failure is None else failure.cause


def _segment(query: Query, place: Place) -> Item:
    """A query that was made in Python, checked as one that was read."""
    try:
        query_id = query_identifier(_plain(query.id))
    except QueryError as error:
        return Failure(place, None, error.cause, str(error))
    try:
        text = _content(query.text) or query_text(query.text)
        documents: Sequence[Content] = query.documents
        if set(map(type, documents)) != {str}:
            documents = [_content(item) or document_text(item) for item in documents]
        ids: Sequence[str | None] = query.doc_ids
        if set(map(type, ids)) != {str}:
            ids = [identifier(_plain(item), "a candidate's id") for item in ids]
        if "" in ids:
            raise unnamed(f"candidate {list(ids).index('') + 1} of the list")
        if len(ids) != len(documents):
            raise unequal(len(ids), len(documents))
        return Segment(place, query_id, text, documents, ids, _scores(query), whole=True)
    except QueryError as error:
        return Segment.faulty(place, query_id, error, whole=True)


def _content(value: Any) -> Content | None:
    """An image or a video as it is; None for what must be a text."""
    return None if value is None or isinstance(value, str) or not hasattr(value, "kind") else value


def _scores(query: Query) -> Any:
    if query.first_stage_scores is None:
        return None
    try:
        scores = np.asarray(query.first_stage_scores, dtype=np.float64)
    except (TypeError, ValueError):
        raise QueryError(
            "bad-score", "a score is no number; give numbers, or NaN where there is none"
        ) from None
    if scores.shape != (len(query.documents),):
        message = f"there are {scores.size} scores and {len(query.documents)} candidates; give one for each, or none"
        raise QueryError("unequal-lists", message)
    if np.isinf(scores).any():
        raise QueryError("bad-score", "a score is infinite; give a number, or NaN where there is none")
    return scores


def _named(value: object) -> str:
    name = kind(value)
    return name if name != type(value).__name__ else f"a {name}"


Record: TypeAlias = Query | Mapping[str, Any]
"""A query, or a record as a file has it: a query with its candidates, or a pair of a query and a document."""
Queries: TypeAlias = Iterable[Record] | AsyncIterable[Record] | ArrowStream
"""What can be ranked: queries or records, one after the other, or a table of records: a data frame, an Arrow table."""


class Memory:
    """Queries from memory; pairs that follow one another and have the same query id are one query.

    Args:
        columns: what holds what, where the names don't tell.
        whole: refuse pairs, where nobody knows whether the next rows that come continue the query.
    """

    def __init__(self, columns: Columns, *, whole: bool = False) -> None:
        self._columns = columns
        self._whole = whole
        self._records = Records(columns)
        self._seen = SeenIds()
        self._held: list[Segment] = []

    def table(self, data: object) -> Iterator[list[Query | Failure]]:
        """The queries of a table, some at a time.

        Raises:
            InputError: its columns don't tell what is what.
        """
        for piece in table(data, self._columns):
            yield [found for item in piece for found in self._push(item)]
        yield self.end()

    def take(self, value: object) -> list[Query | Failure]:
        """The queries that are complete with one more query or record: a pair may be continued by the next one."""
        return self._push(self._records.item(value))

    def end(self) -> list[Query | Failure]:
        """The query that nothing continues any more."""
        held, self._held = self._held, []
        return list(joined(held, self._seen))

    def close(self) -> None:
        """Forget what came."""
        self._seen.close()

    def _push(self, item: Item) -> list[Query | Failure]:
        if isinstance(item, Unrecognised):
            failure = item.failure
            message = in_call(failure.message)
            return [Failure(failure.place, failure.query_id, failure.cause, message)]
        if isinstance(item, Failure):
            return [item]
        if self._whole and not item.whole:
            raise InputError(_PAIRS)
        if self._held and not item.whole and item.query_id == self._held[0].query_id:
            self._held.append(item)
            return []
        done = self.end()
        self._held.append(item)
        return done + self.end() if item.whole else done


def refuse_single(data: object) -> None:
    """Refuse what is no collection of queries.

    Raises:
        InputError: it is a single query or record, a text, or nothing that can be gone through.
    """
    name = type(data).__name__
    what = "give a list or another iterable of batchrank.Query objects or dicts, or a table of them"
    if isinstance(data, Query):
        raise InputError("rerank: queries is a single Query; put it into a list: [query]")
    if isinstance(data, Mapping):
        advice = "put it into a list: [record]"
        if data and not any(isinstance(value, str | list) for value in data.values()):
            advice = (
                f"name one of its parts, such as data[{next(iter(data))!r}]"  # a data set with its splits
            )
        raise InputError(f"rerank: queries is a single {name}; {advice}")
    if isinstance(data, str | bytes):
        raise InputError(
            f"rerank: queries is a {name}; {what}. batchrank.run() ranks a file that a job names"
        )
    if not is_table(data) and not isinstance(data, Iterable | AsyncIterable):
        raise InputError(
            f"rerank: queries is a {name}, which can't be gone through; {what} (collect a lazy one)"
        )
