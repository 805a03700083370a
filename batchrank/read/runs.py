"""Reads files that name documents by id (runs, qrels, lists of ids), and the collections that hold their texts."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from batchrank.errors import InputError, Place, QueryError
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read import arrow, entries, jsonl, textfiles, tsv
from batchrank.read.arrow import nameless
from batchrank.read.base import TRUNCATED, Source, ended, later
from batchrank.read.columnar import opened, reason
from batchrank.read.entries import ENTRIES, Array, Report, readable
from batchrank.read.jsonl import Lines
from batchrank.read.names import EntryRoles, ItemRoles, TextRoles, entry_roles, item_roles, text_roles
from batchrank.read.objects import listed
from batchrank.read.values import document_text, identifier, kind, query_identifier, score, unidentified

_ROWS = 16_384
"""Rows at a time: enough for speed, as each batch costs a call to DuckDB."""
_BYTES = 8 * 1024 * 1024
"""8 MiB at a time, where rows are wide."""


def read(source: Source, columns: Columns, report: Report) -> Iterator[Array]:
    """The entries of one file, in batches; what can't be read is reported in its place.

    Raises:
        InputError: the file can't be read to its end, or its first line doesn't show what it holds.
    """
    readers: Mapping[str, Callable[[Source, Columns, Report], Iterator[Array]]] = {
        "jsonl": _from_jsonl, "parquet": entries.read_entries, "arrow": entries.read_entries, "tsv": _from_text,
        "csv": _from_text,
    }  # fmt: skip
    try:
        yield from readers[source.format](source, columns, report)
    except (OSError, pa.ArrowException) as error:
        raise ended(source, error, reason(error)) from error
    except QueryError as error:
        raise InputError(f"{Place(source.name, source.unit, 1)}: {error}") from error


def with_documents(batch: Array, source: Source) -> tuple[Array, list[str]]:
    """The entries of a batch that name a document, and the queries of records that list none.

    Raises:
        InputError: a document's id is null or empty.
    """
    import pyarrow.compute as pc

    named = batch.column("doc_id")
    if pc.any(pc.equal(named, "")).as_py():
        query = batch.column("query_id")[pc.index(named, "").as_py()].as_py()
        raise InputError(
            f"{source.name}: a document's id of query {query!r} is null or empty; correct the file"
        )
    if not named.null_count:
        return batch, []
    without = batch.filter(pc.is_null(named)).column("query_id").to_pylist()
    return batch.filter(pc.is_valid(named)), without


class _Rows:
    """Entries as they come, until they are a batch."""

    def __init__(self, *, judged: bool) -> None:
        self.judged = judged
        self._rows: list[tuple[int, tsv.Entry]] = []
        self._bytes = 0

    def add(self, number: int, entry: tsv.Entry) -> None:
        self._rows.append((number, entry))
        self._bytes += len(entry.text or "")

    @property
    def full(self) -> bool:
        return len(self._rows) >= _ROWS or self._bytes >= _BYTES

    def take(self) -> Array:
        rows, self._rows, self._bytes = self._rows, [], 0
        found = [entry for _, entry in rows]
        values = {name: [getattr(entry, name) for entry in found] for name in tsv.Entry.__slots__}
        values |= {"number": [number for number, _ in rows], "judged": [self.judged] * len(rows)}
        return pa.RecordBatch.from_arrays([pa.array(values[f.name], f.type) for f in ENTRIES], schema=ENTRIES)


def _from_text(source: Source, columns: Columns, report: Report) -> Iterator[Array]:
    rows = _Rows(judged=False)
    for judged, number, entry in textfiles.entries(source, columns, report):
        rows.judged = judged
        rows.add(number, entry)
        if rows.full:
            yield rows.take()
    yield rows.take()


def records(source: Source, report: Report) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The JSON objects of a file."""
    lines = Lines(source)
    with lines.closing():
        lines.decompress()
        for place, record in jsonl.records(lines, source):
            if type(record) is dict:
                yield place, record
            elif not isinstance(record, Failure):
                why = f"it is {kind(record)}, not an object; write one object a line"
                report(Failure(place, None, "wrong-type", why))
            elif record.cause == TRUNCATED:
                raise OSError(f"{place}: {record.message}")
            else:
                report(record)


def _from_jsonl(source: Source, columns: Columns, report: Report) -> Iterator[Array]:
    known: dict[tuple[str, ...], EntryRoles] = {}
    rows: dict[bool, _Rows] = {judged: _Rows(judged=judged) for judged in (False, True)}
    for place, record in records(source, report):
        query_id = None
        try:
            roles = known.get(tuple(record)) or known.setdefault(
                tuple(record), entry_roles(_shape(record), columns)
            )
            query_id = query_identifier(value_at(record, roles.query_id))
            for entry in _entries(query_id, record, roles, columns):
                rows[roles.judged].add(place.number, entry)
        except QueryError as error:
            report(Failure(place, query_id, error.cause, str(error)))
        for batch in rows.values():
            if batch.full:
                yield batch.take()
    for batch in rows.values():
        yield batch.take()


def _shape(record: dict[str, Any]) -> dict[str, tuple[str, ...] | None]:
    return {name: tuple(value) if type(value) is dict else None for name, value in record.items()}


def _entries(query_id: str, record: dict[str, Any], roles: EntryRoles, columns: Columns) -> list[tsv.Entry]:
    query = value_at(record, roles.query) if roles.query else None
    if roles.many is None:
        item = ItemRoles(roles.doc_id or (), roles.score)
        return [_entry(query_id, query, *_item(record, item))]
    items = value_at(record, roles.many)
    items = listed(items) if type(items) is dict else items
    if not items and (items is None or type(items) is list):
        return [tsv.Entry(query_id, None, query=_text(query))]
    if type(items) is not list:
        raise QueryError("wrong-type", f"{'.'.join(roles.many)} is {kind(items)}; write a list of ids")
    found = []
    for item in items:
        parts = _item(item, item_roles(_shape(item), columns)) if type(item) is dict else (item, None)
        found.append(_entry(query_id, query, *parts))
    return found


def _item(record: dict[str, Any], roles: ItemRoles) -> tuple[Any, float | None]:
    value = score(value_at(record, roles.score)) if roles.score else None
    return value_at(record, roles.doc_id), None if value is None or value != value else value


def _entry(query_id: str, query: Any, doc_id: Any, value: float | None) -> tsv.Entry:
    return tsv.Entry(query_id, identifier(doc_id, "the document's id") or "", value, query=_text(query))


def _text(query: Any) -> str | None:
    if query is not None and type(query) is not str:
        raise QueryError("wrong-type", f"the query is {kind(query)}, not a string; write its text")
    return query


def value_at(record: dict[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path below a record."""
    value: Any = record
    for name in path:
        value = value.get(name) if type(value) is dict else None
    return value


TEXTS = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
"""What a batch holds."""

_TEXT_ROWS = 8192
"""Texts at a time, fewer than ids, as each is larger."""
_TEXT_BYTES = 8 * 1024 * 1024
"""8 MiB of texts at a time, which bounds memory."""


def read_texts(source: Source, columns: Columns, report: Report, *, queries: bool) -> Iterator[Array]:
    """The texts of one file, in batches; a record that can't be read is reported.

    Raises:
        InputError: the file can't be read to its end, or its names don't show what it holds.
    """
    readers: Mapping[str, Callable[..., Iterator[Array]]] = {
        "jsonl": _texts_of_jsonl, "parquet": _texts_of_table, "arrow": _texts_of_table, "tsv": _texts_of_columns,
        "csv": _texts_of_columns,
    }  # fmt: skip
    try:
        yield from readers[source.format](source, columns, report, queries)
    except (OSError, pa.ArrowException) as error:
        raise ended(source, error, reason(error)) from error
    except QueryError as error:
        raise InputError(f"{Place(source.name, source.unit, 1)}: {error}") from error


class _Texts:
    """Texts as they come, until they are a batch."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str]] = []
        self._bytes = 0

    def add(self, row: tuple[str, str, str]) -> None:
        self._rows.append(row)
        self._bytes += len(row[2])

    @property
    def full(self) -> bool:
        return len(self._rows) >= _TEXT_ROWS or self._bytes >= _TEXT_BYTES

    def take(self) -> Array:
        columns = list(zip(*self._rows, strict=True)) or [(), (), ()]
        self._rows, self._bytes = [], 0
        return pa.RecordBatch.from_arrays([pa.array(c, pa.string()) for c in columns], schema=TEXTS)


def _texts_of_jsonl(source: Source, columns: Columns, report: Report, queries: bool) -> Iterator[Array]:
    known: dict[tuple[str, ...], TextRoles] = {}
    texts = _Texts()
    for place, record in records(source, report):
        shape = tuple(record)
        roles = known.get(shape)
        if roles is None:
            roles = known[shape] = text_roles(dict.fromkeys(record), columns, queries=queries)
        try:
            texts.add(_row(record, roles))
        except QueryError as error:
            report(Failure(place, None, error.cause, str(error)))
        if texts.full:
            yield texts.take()
    yield texts.take()


def _row(record: dict[str, Any], roles: TextRoles) -> tuple[str, str, str]:
    name = identifier(value_at(record, roles.id), "the id")
    if not name:
        raise unidentified()
    title = document_text(value_at(record, roles.title)) if roles.title else ""
    return name, title, document_text(value_at(record, roles.text))


def _texts_of_columns(source: Source, columns: Columns, report: Report, queries: bool) -> Iterator[Array]:
    texts = _Texts()
    for row in textfiles.texts(source, columns, report, queries=queries):
        texts.add(row)
        if texts.full:
            yield texts.take()
    yield texts.take()


def _texts_of_table(source: Source, columns: Columns, report: Report, queries: bool) -> Iterator[Array]:
    with opened(source) as file:
        roles = text_roles(arrow.fields_of(file.schema), columns, queries=queries)
        arrow.require(file.schema, roles.id, "the id", arrow.is_identifier, "strings or whole numbers")
        arrow.require(file.schema, roles.text, "the text", arrow.is_text, "strings")
        arrow.require(file.schema, roles.title, "the title", arrow.is_text, "strings")
        wanted = {".".join(path) for path in (roles.id, roles.text, roles.title) if path}
        for piece in file.pieces(
            wanted.__contains__, rows=_TEXT_ROWS, documents=_TEXT_ROWS, size=_TEXT_BYTES
        ):
            yield from readable(piece, Place(source.name, "row", piece.first), partial(_made, roles), report)
            source.gauge.at(file.share)


def _made(roles: TextRoles, rows: Array, place: Place, report: Report) -> Array:
    """The texts of some rows, the first of which stands at ``place``; one without an id is reported."""
    import pyarrow.compute as pc

    names = arrow.texts(arrow.at(rows, roles.id))
    texts = pc.fill_null(arrow.texts(arrow.at(rows, roles.text)), "")
    titles = arrow.texts(arrow.at(rows, roles.title)) if roles.title else pa.nulls(len(rows), pa.string())
    batch = pa.RecordBatch.from_arrays([names, titles, texts], schema=TEXTS)
    wrong = nameless(names)
    if wrong is None:
        return batch
    error = unidentified()
    for row in np.flatnonzero(wrong).tolist():
        report(Failure(later(place, row), None, error.cause, str(error)))
    return batch.filter(pa.array(~wrong))
