"""Arrow batches -> segments, a column at a time: no step takes one document after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as types
from numpy.typing import NDArray

from batchrank.errors import Place, QueryError
from batchrank.formats import arrow
from batchrank.formats.arrow import Array, DataType
from batchrank.formats.base import ColumnsError, Item, Segment
from batchrank.formats.columns import DocumentRoles, RecordRoles, document_roles, record_roles, refuse_plain
from batchrank.formats.labelled import Labels
from batchrank.formats.names import LABELLED, Path
from batchrank.formats.values import (
    document_content,
    query_content,
    query_identifier,
    query_text,
    titled,
    unequal,
)
from batchrank.job.sections import Columns
from batchrank.records import Content, Failure, Floats

_IMAGES = "strings, bytes, or structs of bytes and path"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a table has its parts.

    Attributes:
        record: of each row.
        document: of each candidate, or of the row itself when it is a pair; None for plain strings.
    """

    record: RecordRoles
    document: DocumentRoles | None


def layout(schema: Any, columns: Columns) -> Layout:
    """Find the roles in a schema, and check that each has a type that can hold it.

    Raises:
        ColumnsError: a role is missing, ambiguous or of a wrong type.
    """
    roles = record_roles(arrow.fields_of(schema), columns)
    _require(schema, roles.query_id, "the query id", arrow.is_identifier, "strings or whole numbers")
    _require(schema, roles.query, "the query", arrow.is_text, "strings")
    _require(schema, roles.query_image, "the query's image", arrow.is_image, _IMAGES)
    if roles.ids and not arrow.is_list(arrow.type_at(schema, roles.ids)):
        raise ColumnsError(
            "wrong-type", f"the candidates' ids ({'.'.join(roles.ids)}) are no lists; write lists"
        )
    if roles.candidates is None:
        return Layout(roles, _checked(schema, roles.document))
    kind = arrow.type_at(schema, roles.candidates)
    if types.is_null(kind):
        return Layout(roles, None)
    name = ".".join(roles.candidates)
    if not arrow.is_list(kind):
        raise ColumnsError("wrong-type", f"the candidates ({name}) are of type {kind}; write lists")
    item = arrow.plain(kind.value_type)
    if types.is_struct(item):
        return Layout(roles, _checked(item, document_roles(arrow.fields_of(item), columns)))
    if not arrow.is_text(item):
        raise ColumnsError(
            "wrong-type", f"each candidate ({name}) is of type {item}; write strings or structs"
        )
    refuse_plain(columns)
    return Layout(roles, None)


def _checked(type_: DataType, roles: DocumentRoles | None) -> DocumentRoles | None:
    if roles is not None:
        _require(type_, roles.text, "the document's text", arrow.is_text, "strings")
        _require(type_, roles.image, "the document's image", arrow.is_image, _IMAGES)
        _require(type_, roles.video, "the document's video", arrow.is_text, "strings")
        _require(type_, roles.title, "the document's title", arrow.is_text, "strings")
        _require(type_, roles.doc_id, "the document's id", arrow.is_identifier, "strings or whole numbers")
        _require(type_, roles.score, "the score", arrow.is_number, "numbers")
    return roles


def _require(
    type_: DataType, path: Path | None, what: str, allowed: Callable[[DataType], bool], wanted: str
) -> None:
    if path and not allowed(kind := arrow.type_at(type_, path)):
        raise ColumnsError("wrong-type", f"{what} ({'.'.join(path)}) is of type {kind}; write {wanted}")


def items(batch: Any, where: Layout, place: Place, labels: Labels) -> list[Item]:
    """The segments of a batch whose first row stands at ``place``; ``labels`` number the records without an id.

    Where a text is not UTF-8 the batch is halved until its row is found; the other rows are as without it.
    """
    rows = pa.StructArray.from_arrays(batch.columns, names=batch.schema.names)
    if where.record.labelled:
        return [_labelled(rows.slice(i, 1), where, _later(place, i), labels) for i in range(len(rows))]
    try:
        return (_pairs if where.record.candidates is None else _whole)(rows, where, place)
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            return [_not_utf8(rows, where, place, error)]
    half = batch.num_rows // 2
    first = items(batch.slice(0, half), where, place, labels)
    return first + items(batch.slice(half), where, _later(place, half), labels)


def _later(place: Place, rows: int) -> Place:
    return Place(place.file, place.unit, place.number + rows)


def _not_utf8(row: Array, where: Layout, place: Place, error: UnicodeDecodeError) -> Item:
    wrong = QueryError("invalid-utf8", f"a text in the row is not UTF-8 ({error.reason}); write it as UTF-8")
    try:
        query_id = query_identifier(arrow.strings(arrow.at(row, where.record.query_id))[0])
    except (UnicodeDecodeError, QueryError):
        return Failure(place, None, wrong.cause, str(wrong))
    return Segment.faulty(place, query_id, wrong, whole=where.record.candidates is not None)


def _labelled(row: Array, where: Layout, place: Place, labels: Labels) -> Item:
    roles = where.record
    try:
        given = arrow.strings(arrow.at(row, roles.query_id))[0] if roles.query_id else None
        query = arrow.at(row, roles.query or ()).to_pylist()[0]
        lists = [arrow.strings(arrow.lists(arrow.at(row, (name,)))[0]) for name in LABELLED]
    except UnicodeDecodeError as error:
        wrong = f"a text in the row is not UTF-8 ({error.reason}); write it as UTF-8"
        return Failure(place, None, "invalid-utf8", wrong)
    return labels.item(place, given, query, *lists)


class _Queries:
    """The queries of a batch."""

    def __init__(self, rows: Array, roles: RecordRoles) -> None:
        self._texts = arrow.strings(arrow.at(rows, roles.query)) if roles.query else [None] * len(rows)
        self._images = arrow.images(arrow.at(rows, roles.query_image)) if roles.query_image else None

    def __getitem__(self, row: int) -> Content:
        if self._images is None:
            return query_text(self._texts[row])
        return query_content(self._texts[row], self._images[row])


class _Documents:
    """The documents of a batch."""

    def __init__(self, array: Array, roles: DocumentRoles | None) -> None:
        self._ids: Sequence[str | None] | None = None
        self._texts: Sequence[Any]
        self._scores: Floats | None = None
        self._wrong: NDArray[np.bool_] | None = None
        self._visual = roles is not None and roles.visual
        if roles is None:
            self._texts = arrow.column(array, missing="")
            return
        missing: list[Any] = [None] * len(array) if self._visual else []
        self._texts = arrow.column(arrow.at(array, roles.text), missing="") if roles.text else missing
        titles = arrow.strings(arrow.at(array, roles.title), missing="") if roles.title else missing
        if self._visual:
            self._titles = titles
            self._images = arrow.images(arrow.at(array, roles.image)) if roles.image else missing
            self._videos = arrow.strings(arrow.at(array, roles.video)) if roles.video else missing
        elif roles.title:
            self._texts = list(map(titled, titles, self._texts))
        if roles.doc_id:
            self._ids = arrow.column(arrow.at(array, roles.doc_id))
        if roles.score:
            self._scores, self._wrong = arrow.numbers(arrow.at(array, roles.score))

    def _contents(self, start: int, end: int, place: Place, *, whole: bool) -> list[Content]:
        """The documents from ``start`` up to ``end``; an error names the one to blame."""
        found: list[Content] = []
        for i in range(start, end):
            try:
                content = document_content(
                    self._texts[i] or "", self._titles[i] or "", self._images[i], self._videos[i]
                )
            except QueryError as error:
                number = i - start
                where = f"candidate {number + 1} of the list" if whole else str(_later(place, number))
                error.args = (f"{where}: {error}",)
                raise
            found.append(content)
        return found

    def segment(
        self, start: int, end: int, place: Place, query_id: str, query: Content, *, whole: bool
    ) -> Segment:
        """The documents from ``start`` up to ``end`` as those of a query."""
        if self._wrong is not None and self._wrong[start:end].any():
            message = "a score is infinite; write a number, or null where there is none"
            raise QueryError("bad-score", message)
        ids = None if self._ids is None else self._ids[start:end]
        scores = None if self._scores is None else self._scores[start:end]
        texts: Sequence[Content] = self._texts[start:end]
        if self._visual:
            texts = self._contents(start, end, place, whole=whole)
        return Segment(place, query_id, query, texts, ids, scores, whole)


def _whole(rows: Array, where: Layout, place: Place) -> list[Item]:
    """One row a query."""
    ids = arrow.strings(arrow.at(rows, where.record.query_id))
    queries = _Queries(rows, where.record)
    flat, offsets = arrow.lists(arrow.at(rows, where.record.candidates or ()))
    documents = _Documents(flat, where.document)
    bounds = offsets.tolist()
    given: Sequence[Any] | None = None
    starts = bounds
    if where.record.ids:
        values, spans = arrow.lists(arrow.at(rows, where.record.ids))
        given, starts = arrow.column(values), spans.tolist()

    def row(i: int, query_id: str) -> Segment:
        here = _later(place, i)
        found = documents.segment(bounds[i], bounds[i + 1], here, query_id, queries[i], whole=True)
        if given is None:
            return found
        beside = given[starts[i] : starts[i + 1]]
        if len(beside) != len(found.documents):
            raise unequal(len(beside), len(found.documents))
        return replace(found, doc_ids=beside)

    return [_item(_later(place, i), ids[i], partial(row, i), whole=True) for i in range(len(rows))]


def _pairs(rows: Array, where: Layout, place: Place) -> list[Item]:
    """One row a pair: each run of equal query ids and queries is a segment."""
    roles = where.record
    ids = arrow.at(rows, roles.query_id)
    ends = arrow.runs(ids)
    for path in (roles.query, roles.query_image):
        ends = np.union1d(ends, arrow.runs(arrow.at(rows, path))) if path else ends
    starts = np.concatenate([[0], ends[:-1]]).astype(np.intp)
    run_ids = arrow.strings(ids.take(pa.array(starts)))
    queries = _Queries(rows.take(pa.array(starts)), roles)
    documents = _Documents(rows, where.document)

    def run(i: int, query_id: str) -> Segment:
        here = _later(place, int(starts[i]))
        return documents.segment(int(starts[i]), int(ends[i]), here, query_id, queries[i], whole=False)

    found: list[Item] = []
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        # Rows without a query id belong to no query: each is a record of its own.
        alone = range(start, end) if not run_ids[i] else (start,)
        found += [_item(_later(place, r), run_ids[i], partial(run, i), whole=False) for r in alone]
    return found


def _item(place: Place, raw_id: str | None, make: Callable[[str], Segment], *, whole: bool) -> Item:
    try:
        query_id = query_identifier(raw_id)
    except QueryError as error:
        return Failure(place, None, error.cause, str(error))
    try:
        return make(query_id)
    except QueryError as error:
        return Segment.faulty(place, query_id, error, whole=whole)
