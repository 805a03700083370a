"""Turns JSON objects into segments.

What holds what is found once for each set of keys. A list whose candidates are all alike is taken apart column by
column; any other candidate by candidate, which also finds the one to blame.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import numpy as np

from batchrank.data import Content, Floats
from batchrank.errors import Place, QueryError
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read.base import ColumnsError, Item, Segment, Source, Unrecognised
from batchrank.read.columns import DocumentRoles, RecordRoles, document_roles, record_roles, refuse_plain
from batchrank.read.names import LABELLED, Fields, Path
from batchrank.read.order import value_in
from batchrank.read.values import (
    Labels,
    document_content,
    document_text,
    identifier,
    kind,
    query_content,
    query_identifier,
    query_text,
    score,
    titled,
    unequal,
    unequal_columns,
    unnamed,
)

Object: TypeAlias = dict[str, Any]
Parts: TypeAlias = tuple[Sequence[Content], Sequence[str | None] | None, Sequence[float] | Floats | None]
T = TypeVar("T")

_PLAIN: set[type] = {str, type(None)}
_IDS: set[type] = {str, int}
_NUMBERS: set[type] = {int, float, type(None)}
_SHAPES_KEPT = 1024
"""Sets of keys that are remembered: bounds memory where each record has keys of its own."""


class Objects:
    """Turns the objects of one file into segments."""

    def __init__(self, columns: Columns, source: Source) -> None:
        self._columns = columns
        self._labels = Labels(source)
        self._order = source.order
        self._record_roles: dict[object, RecordRoles] = {}
        self._document_roles: dict[object, DocumentRoles] = {}

    def item(self, record: object, place: Place) -> Item:
        """One record as a segment, or why it isn't one."""
        found = self._item(record, place)
        if self._order is None or not isinstance(found, Segment) or type(record) is not dict:
            return found
        return replace(found, order=value_in(record, self._order))

    def _item(self, record: object, place: Place) -> Item:
        if type(record) is not dict:
            message = f"the line holds {kind(record)}, not an object; write one object a line"
            return Failure(place, None, "wrong-type", message)
        try:
            roles = _cached(self._record_roles, record, self._find_record)
            if roles.labelled:
                given = query_identifier(_get(record, roles.query_id)) if roles.query_id else None
                lists = [record[name] for name in LABELLED]
                return self._labels.item(place, given, _get(record, roles.query or ()), *lists)
            query_id = query_identifier(_get(record, roles.query_id))
        except ColumnsError as error:
            return Unrecognised.of(place, error)
        except QueryError as error:
            return Failure(place, None, error.cause, str(error))
        try:
            query = _query(record, roles)
            documents, ids, scores = self._documents(record, roles)
        except ColumnsError as error:
            return Unrecognised.of(place, error, query_id)
        except QueryError as error:
            return Segment.faulty(place, query_id, error, whole=roles.candidates is not None)
        return Segment(place, query_id, query, documents, ids, scores, roles.candidates is not None)

    def _documents(self, record: Object, roles: RecordRoles) -> Parts:
        if roles.document is not None:
            text, doc_id, value = _parts(record, roles.document)
            return [text], [doc_id], [value]
        candidates = _get(record, roles.candidates or ())
        if candidates is None:
            return [], None, None
        if type(candidates) is dict:
            candidates = listed(candidates)
        if type(candidates) is not list:
            raise QueryError("wrong-type", f"the candidates are {kind(candidates)}; write a list")
        kinds = set(map(type, candidates))
        ids = None if roles.ids is None else _ids(_get(record, roles.ids), len(candidates))
        if kinds <= _PLAIN:
            refuse_plain(self._columns, sparse=True)
            return [text or "" for text in candidates], ids, None
        alike = self._alike(candidates) if kinds == {dict} else None
        texts, own_ids, scores = self._one_by_one(candidates) if alike is None else alike
        return texts, own_ids if ids is None else ids, scores

    def _alike(self, candidates: list[Object]) -> Parts | None:
        """The columns of candidates that are texts with the same keys; None when any of them is peculiar."""
        if len(set(map(tuple, candidates))) > 1:
            return None
        roles = self._roles_of(candidates[0])
        if roles.text is None or roles.visual:
            return None
        try:
            texts = _column(candidates, roles.text, _PLAIN)
            titles = _column(candidates, roles.title, _PLAIN) if roles.title else None
            ids = _column(candidates, roles.doc_id, _IDS) if roles.doc_id else None
            numbers = _column(candidates, roles.score, _NUMBERS) if roles.score else None
            scores = None if numbers is None else np.array(numbers, dtype=np.float64)
        except (LookupError, OverflowError):
            return None
        if None in texts:
            texts = [text or "" for text in texts]
        if titles is not None:
            texts = [titled(title or "", text) for title, text in zip(titles, texts, strict=True)]
        if ids is not None and set(map(type, ids)) != {str}:
            ids = list(map(str, ids))
        if ids is not None and "" in ids:
            raise unnamed(f"candidate {ids.index('') + 1} of the list")
        return texts, ids, scores

    def _one_by_one(self, candidates: list[object]) -> Parts:
        texts, ids, scores = [], [], []
        for number, candidate in enumerate(candidates, 1):
            try:
                text, doc_id, value = self._candidate(candidate)
            except QueryError as error:
                error.args = (f"candidate {number} of the list: {error}",)
                raise
            texts.append(text)
            ids.append(doc_id)
            scores.append(value)
        # In Parquet, a null candidate of a column of structs has a null id; the same list is refused here too.
        given = [i for i, candidate in zip(ids, candidates, strict=True) if candidate is not None]
        if len(given) < len(ids) and any(given) and all(given):
            raise unnamed(f"candidate {candidates.index(None) + 1} of the list")
        return texts, ids, scores

    def _candidate(self, candidate: object) -> tuple[Content, str | None, float]:
        if candidate is None or type(candidate) is str:
            return candidate or "", None, score(None)
        if type(candidate) is not dict:
            raise QueryError("wrong-type", f"it is {kind(candidate)}; write a string or an object")
        return _parts(candidate, self._roles_of(candidate))

    def _roles_of(self, candidate: Object) -> DocumentRoles:
        return _cached(self._document_roles, candidate, self._find_document)

    def _find_record(self, fields: Fields) -> RecordRoles:
        return record_roles(fields, self._columns, sparse=True)

    def _find_document(self, fields: Fields) -> DocumentRoles:
        return document_roles(fields, self._columns, sparse=True)


def _cached(cache: dict[object, T], record: Object, find: Callable[[Fields], T]) -> T:
    shape = tuple([(k, tuple(v)) if type(v) is dict else k for k, v in record.items()])
    roles = cache.get(shape)
    if roles is None:
        if len(cache) >= _SHAPES_KEPT:
            cache.clear()
        roles = find({k: tuple(v) if type(v) is dict else None for k, v in record.items()})
        cache[shape] = roles
    return roles


def _get(record: Object, path: Path) -> Any:
    value: Any = record
    for name in path:
        value = value.get(name)
    return value


def _column(candidates: list[Object], path: Path, types: set[type]) -> list[Any]:
    """One value of each.

    Raises:
        LookupError: one of them has no such path, or a value of another type there.
    """
    rows: list[Any] = candidates
    for name in path:
        if set(map(type, rows)) != {dict}:
            raise LookupError
        rows = [row[name] for row in rows]
    if not set(map(type, rows)) <= types:
        raise LookupError
    return rows


def _ids(values: Any, documents: int) -> list[str]:
    """The list of ids beside a list of documents."""
    if type(values) is not list:
        raise QueryError("wrong-type", f"the candidates' ids are {kind(values)}; write a list")
    if len(values) != documents:
        raise unequal(len(values), documents)
    return [_named(value, f"candidate {number} of the list") for number, value in enumerate(values, 1)]


def _named(value: Any, which: str = "") -> str:
    """A document's id where there is a place for one.

    Raises:
        QueryError: it is null, empty or of a wrong type.
    """
    found = identifier(value, "the document's id")
    if not found:
        raise unnamed(which)
    return found


def listed(columns: Object) -> Any:
    """An object of lists as the list of objects that it means; anything else as it is.

    Raises:
        QueryError: the lists are of different lengths.
    """
    if not columns or not all(type(values) is list for values in columns.values()):
        return columns
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise unequal_columns(lengths)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _query(record: Object, roles: RecordRoles) -> Content:
    text = _get(record, roles.query) if roles.query else None
    return query_content(text, _get(record, roles.query_image)) if roles.query_image else query_text(text)


def _parts(record: Object, roles: DocumentRoles) -> tuple[Content, str | None, float]:
    text = document_text(_get(record, roles.text)) if roles.text else ""
    title = document_text(_get(record, roles.title)) if roles.title else ""
    image = _get(record, roles.image) if roles.image else None
    video = _get(record, roles.video) if roles.video else None
    found = document_content(text, title, image, video) if roles.visual else titled(title, text)
    doc_id = _named(_get(record, roles.doc_id)) if roles.doc_id else None
    return found, doc_id, score(_get(record, roles.score)) if roles.score else score(None)
