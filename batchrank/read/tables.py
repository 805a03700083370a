"""Turns Arrow batches into segments, a column at a time: no step takes one document after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as types
from numpy.typing import NDArray

from batchrank.data import Content, Floats
from batchrank.errors import Place, QueryError
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read import arrow, values
from batchrank.read.arrow import Array, DataType, nameless, refuse_nameless, which
from batchrank.read.base import ColumnsError, Item, Segment, later
from batchrank.read.columns import DocumentRoles, RecordRoles, document_roles, record_roles, refuse_plain
from batchrank.read.names import LABELLED, Path
from batchrank.read.pieces import candidates, decoded, lists, too_large

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


class Queries:
    """The queries of a batch."""

    def __init__(self, rows: Array, roles: RecordRoles) -> None:
        self._texts = arrow.strings(arrow.at(rows, roles.query)) if roles.query else [None] * len(rows)
        self._images = arrow.images(arrow.at(rows, roles.query_image)) if roles.query_image else None

    def __getitem__(self, row: int) -> Content:
        if self._images is None:
            return values.query_text(self._texts[row])
        return values.query_content(self._texts[row], self._images[row])


class Documents:
    """The documents of a batch."""

    def __init__(self, array: Array, roles: DocumentRoles | None) -> None:
        self._ids: Sequence[str | None] | None = None
        self._texts: Sequence[Any]
        self._scores: Floats | None = None
        self._wrong: NDArray[np.bool_] | None = None
        self._nameless: NDArray[np.bool_] | None = None
        self._visual = roles is not None and bool(roles.image or roles.video)
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
            self._texts = list(map(values.titled, titles, self._texts))
        if roles.doc_id:
            ids = arrow.at(array, roles.doc_id)
            self._ids, self._nameless = arrow.column(ids), nameless(ids)
        if roles.score:
            self._scores, self._wrong = arrow.numbers(arrow.at(array, roles.score))

    def _contents(self, start: int, end: int, place: Place, *, whole: bool) -> list[Content]:
        """The documents from ``start`` up to ``end``; an error names the one to blame."""
        found: list[Content] = []
        for i in range(start, end):
            try:
                content = values.document_content(
                    self._texts[i] or "", self._titles[i] or "", self._images[i], self._videos[i]
                )
            except QueryError as error:
                error.args = (f"{which(i - start, place, whole=whole)}: {error}",)
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
        if self._nameless is not None:
            refuse_nameless(self._nameless[start:end], place, whole=whole)
        ids = None if self._ids is None else self._ids[start:end]
        scores = None if self._scores is None else self._scores[start:end]
        texts: Sequence[Content] = self._texts[start:end]
        if self._visual:
            texts = self._contents(start, end, place, whole=whole)
        return Segment(place, query_id, query, texts, ids, scores, whole)


def layout(schema: Any, columns: Columns) -> Layout:
    """Find the roles in a schema of plain types, and check that each has a type that can hold it.

    Raises:
        ColumnsError: a role is missing, ambiguous or of a wrong type.
    """
    roles = record_roles(arrow.fields_of(schema), columns)
    arrow.require(schema, roles.query_id, "the query id", arrow.is_identifier, "strings or whole numbers")
    arrow.require(schema, roles.query, "the query", arrow.is_text, "strings")
    arrow.require(schema, roles.query_image, "the query's image", arrow.is_image, _IMAGES)
    arrow.require(
        schema, roles.ids, "the list of the candidates' ids", arrow.is_list_of_ids, "lists of strings"
    )
    if roles.labelled:
        for name in LABELLED:
            arrow.require(
                schema, (name,), f"the list of {name} texts", arrow.is_list_of_texts, "lists of strings"
            )
        return Layout(roles, None)
    if roles.candidates is None:
        return Layout(roles, _checked(schema, roles.document))
    kind = arrow.type_at(schema, roles.candidates)
    if types.is_null(kind):
        return Layout(roles, None)
    name = ".".join(roles.candidates)
    item = arrow.candidate_type(kind, name)
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
        arrow.require(type_, roles.text, "the document's text", arrow.is_text, "strings")
        arrow.require(type_, roles.image, "the document's image", arrow.is_image, _IMAGES)
        arrow.require(type_, roles.video, "the document's video", arrow.is_text, "strings")
        arrow.require(type_, roles.title, "the document's title", arrow.is_text, "strings")
        arrow.require(
            type_, roles.doc_id, "the document's id", arrow.is_identifier, "strings or whole numbers"
        )
        arrow.require(type_, roles.score, "the score", arrow.is_number, "numbers")
        if roles.doc_id and types.is_null(arrow.type_at(type_, roles.doc_id)):
            raise ColumnsError(
                "no-document-id",
                f"the document's id ({'.'.join(roles.doc_id)}) is null in every row; fill it in, or drop the column: "
                "then documents are numbered",
            )
    return roles


def items(batch: Any, where: Layout, place: Place, labels: values.Labels) -> list[Item]:
    """The segments of a batch whose first row stands at ``place``; ``labels`` number the records without an id.

    Where a text is not UTF-8 the batch is halved until its row is found; the other rows are as without it.
    """
    rows = pa.StructArray.from_arrays(batch.columns, names=batch.schema.names)
    if where.record.labelled:
        return [_labelled(rows.slice(i, 1), where, later(place, i), labels) for i in range(len(rows))]
    try:
        return (_pairs if where.record.candidates is None else _whole)(rows, where, place)
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            return [_not_utf8(rows, where, place, error)]
    half = batch.num_rows // 2
    first = items(batch.slice(0, half), where, place, labels)
    return first + items(batch.slice(half), where, later(place, half), labels)


def oversized(row: Any, where: Layout, place: Place, size: int) -> Item:
    """What to say of a row that is too large to be decoded; its query is named if it can be."""
    outer = pa.StructArray.from_arrays(row.columns, names=row.schema.names)
    return _named(outer, where, place, QueryError("row-too-large", too_large(size)))


def _not_utf8(row: Array, where: Layout, place: Place, error: UnicodeDecodeError) -> Item:
    message = f"a text in the row is not UTF-8 ({error.reason}); write it as UTF-8"
    return _named(row, where, place, QueryError("invalid-utf8", message))


def _named(row: Array, where: Layout, place: Place, wrong: QueryError) -> Item:
    """A row that can't be ranked, as its query's where the query's id can be read."""
    roles = where.record
    try:
        if not roles.query_id:
            return Failure(place, None, wrong.cause, str(wrong))
        outer = pa.StructArray.from_arrays([row.field(roles.query_id[0])], names=[roles.query_id[0]])
        query_id = values.query_identifier(arrow.strings(arrow.at(decoded(outer), roles.query_id))[0])
    except (UnicodeDecodeError, QueryError):
        return Failure(place, None, wrong.cause, str(wrong))
    return Segment.faulty(place, query_id, wrong, whole=roles.candidates is not None)


def _labelled(row: Array, where: Layout, place: Place, labels: values.Labels) -> Item:
    roles = where.record
    try:
        given = None
        if roles.query_id:
            given = values.query_identifier(arrow.strings(arrow.at(row, roles.query_id))[0])
        query = arrow.strings(arrow.at(row, roles.query or ()))[0]
        texts = [arrow.strings(lists(arrow.at(row, (name,)))[0]) for name in LABELLED]
    except UnicodeDecodeError as error:
        return _not_utf8(row, where, place, error)
    except QueryError as error:
        return Failure(place, None, error.cause, str(error))
    return labels.item(place, given, query, *texts)


def _whole(rows: Array, where: Layout, place: Place) -> list[Item]:
    """One row a query."""
    roles = where.record
    ids = arrow.strings(arrow.at(rows, roles.query_id))
    queries = Queries(rows, roles)
    flat, offsets, lengths = candidates(arrow.at(rows, roles.candidates or ()))
    names = [field.name for field in flat.type] if lengths is not None else []
    documents = Documents(flat, where.document)
    beside = _Beside(rows, roles.ids) if roles.ids else None
    bounds = offsets.tolist()

    def row(i: int, here: Place, query_id: str) -> Segment:
        if lengths is not None and len(set(lengths[:, i].tolist())) > 1:
            raise values.unequal_columns(dict(zip(names, lengths[:, i].tolist(), strict=True)))
        found = documents.segment(bounds[i], bounds[i + 1], here, query_id, queries[i], whole=True)
        return found if beside is None else replace(found, doc_ids=beside.ids(i, found))

    return [_item(later(place, i), ids[i], partial(row, i), whole=True) for i in range(len(rows))]


class _Beside:
    """Lists of the candidates' ids that stand in a column of their own."""

    def __init__(self, rows: Array, path: Path) -> None:
        flat, offsets = lists(arrow.at(rows, path))
        self._ids, self._nameless = arrow.column(flat), nameless(flat)
        self._bounds = offsets.tolist()

    def ids(self, row: int, found: Segment) -> Sequence[str]:
        """Those of a row.

        Raises:
            QueryError: they aren't as many as the documents, or one is null or empty.
        """
        start, end = self._bounds[row], self._bounds[row + 1]
        if end - start != len(found.documents):
            raise values.unequal(end - start, len(found.documents))
        if self._nameless is not None:
            refuse_nameless(self._nameless[start:end], found.place, whole=True)
        return self._ids[start:end]


def _pairs(rows: Array, where: Layout, place: Place) -> list[Item]:
    """One row a pair: each run of equal query ids and queries is a segment."""
    roles = where.record
    ids = arrow.at(rows, roles.query_id)
    ends = arrow.runs(ids)
    for path in (roles.query, roles.query_image):
        ends = np.union1d(ends, arrow.runs(arrow.at(rows, path))) if path else ends
    starts = np.concatenate([[0], ends[:-1]]).astype(np.intp)
    run_ids = arrow.strings(ids.take(pa.array(starts)))
    queries = Queries(rows.take(pa.array(starts)), roles)
    documents = Documents(rows, where.document)

    def run(i: int, here: Place, query_id: str) -> Segment:
        return documents.segment(int(starts[i]), int(ends[i]), here, query_id, queries[i], whole=False)

    found: list[Item] = []
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        # Rows without a query id belong to no query: each is a record of its own.
        alone = range(start, end) if not run_ids[i] else (start,)
        found += [_item(later(place, r), run_ids[i], partial(run, i), whole=False) for r in alone]
    return found


def _item(place: Place, raw_id: str | None, make: Callable[[Place, str], Segment], *, whole: bool) -> Item:
    try:
        query_id = values.query_identifier(raw_id)
    except QueryError as error:
        return Failure(place, None, error.cause, str(error))
    try:
        return make(place, query_id)
    except QueryError as error:
        return Segment.faulty(place, query_id, error, whole=whole)
