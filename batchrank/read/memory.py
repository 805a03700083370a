"""Data in memory -> items, by the same code that reads files: tables by their columns, records by their keys.

A table is whatever offers its columns as an Arrow stream (Arrow's and Polars' tables, pandas' frames, DuckDB's
relations), an older pandas frame, or a data set of Hugging Face's. Nothing of theirs is imported: who has such an
object has its library.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from batchrank.content import Content
from batchrank.data import Candidate, Query
from batchrank.errors import InputError, Place, QueryError
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read.base import ColumnsError, Item, Segment, Source
from batchrank.read.labelled import Labels
from batchrank.read.objects import Objects
from batchrank.read.pieces import pieces
from batchrank.read.plain import plain_schema
from batchrank.read.tables import items, layout, oversized
from batchrank.read.values import (
    document_text,
    identifier,
    kind,
    query_identifier,
    query_text,
    unequal,
    unnamed,
)

NAME = "<queries>"
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
    """A message about a job's keys, for who gives them as an argument."""
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
