"""Files that name documents by id (runs, qrels, lists of ids) -> Arrow batches of one row a document.

From JSON lines and Parquet, one record is a query with a list of ids (``candidate_ids``, ``corpus-ids``), a query with
a list of objects that have an id, or a pair. Text files are those of ``tsv``.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from batchrank.errors import InputError, Place, QueryError
from batchrank.formats import arrow, jsonl, textfiles, tsv
from batchrank.formats.base import TRUNCATED, ColumnsError, Source, ended
from batchrank.formats.idroles import EntryRoles, ItemRoles, entry_roles, item_roles
from batchrank.formats.lines import Lines
from batchrank.formats.parquet import batches, opened
from batchrank.formats.partition import batch_with, schema_with
from batchrank.formats.values import identifier, kind, query_identifier, score
from batchrank.job.sections import Columns
from batchrank.records import Failure

Report: TypeAlias = Callable[[Failure], None]
Array: TypeAlias = Any  # pyarrow has no type hints

ENTRIES = pa.schema(
    [
        ("number", pa.int64()),
        ("query_id", pa.string()),
        ("doc_id", pa.string()),
        ("score", pa.float64()),
        ("rank", pa.int64()),
        ("judged", pa.bool_()),
        ("query", pa.string()),
        ("text", pa.string()),
    ]
)
"""What a batch holds: the line or row it stems from, and the parts of ``tsv.Entry``; ``judged`` marks relevances."""

_ROWS = 16_384
_BYTES = 8 * 1024 * 1024


def read(source: Source, columns: Columns, report: Report) -> Iterator[Array]:
    """The entries of one file, in batches; what can't be read is reported in its place.

    Raises:
        InputError: the file can't be read to its end, or its first line tells nothing.
    """
    readers: Mapping[str, Callable[[Source, Columns, Report], Iterator[Array]]] = {
        "jsonl": _from_jsonl, "parquet": _from_parquet, "tsv": _from_text, "csv": _from_text,
    }  # fmt: skip
    unit = "row" if source.format == "parquet" else "line"
    try:
        yield from readers[source.format](source, columns, report)
    except (OSError, pa.ArrowException) as error:
        raise ended(source, error) from error
    except QueryError as error:
        raise InputError(f"{Place(source.name, unit, 1)}: {error}") from error


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
        entries = [entry for _, entry in rows]
        values = {name: [getattr(entry, name) for entry in entries] for name in tsv.Entry.__slots__}
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
        try:
            roles = known.get(tuple(record)) or known.setdefault(
                tuple(record), entry_roles(_shape(record), columns)
            )
            for entry in _entries(record, roles, columns):
                rows[roles.judged].add(place.number, entry)
        except QueryError as error:
            report(Failure(place, None, error.cause, str(error)))
        for batch in rows.values():
            if batch.full:
                yield batch.take()
    for batch in rows.values():
        yield batch.take()


def _shape(record: dict[str, Any]) -> dict[str, tuple[str, ...] | None]:
    return {name: tuple(value) if type(value) is dict else None for name, value in record.items()}


def _entries(record: dict[str, Any], roles: EntryRoles, columns: Columns) -> list[tsv.Entry]:
    query_id = query_identifier(value_at(record, roles.query_id))
    query = value_at(record, roles.query) if roles.query else None
    if roles.many is None:
        item = ItemRoles(roles.doc_id or (), roles.score)
        return [_entry(query_id, query, *_item(record, item))]
    items = value_at(record, roles.many)
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
    name = identifier(doc_id, "the document's id")
    if not name:
        raise QueryError(
            "no-document-id", "a document's id is null or empty; give it, or remove the document"
        )
    if query is not None and type(query) is not str:
        raise QueryError("wrong-type", f"the query is {kind(query)}, not a string; write its text")
    return tsv.Entry(query_id, name, value, query=query)


def value_at(record: dict[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path below a record."""
    value: Any = record
    for name in path:
        value = value.get(name) if type(value) is dict else None
    return value


def _from_parquet(source: Source, columns: Columns, report: Report) -> Iterator[Array]:
    with opened(source) as file:
        own = file.schema_arrow.names
        roles = entry_roles(arrow.fields_of(schema_with(file.schema_arrow, source.partition)), columns)
        row = 1
        for batch in batches(file, _ROWS, _BYTES, *[p[0] for p in roles.paths if p[0] in own]):
            yield _table(batch_with(batch, source.partition), roles, columns, row)
            row += batch.num_rows
            source.gauge.at(row / max(file.metadata.num_rows, 1))


def _table(batch: Array, roles: EntryRoles, columns: Columns, first: int) -> Array:
    rows = pa.StructArray.from_arrays(batch.columns, names=batch.schema.names)
    count = len(rows)
    index, items = np.arange(count), rows
    item = ItemRoles(roles.doc_id or (), roles.score)
    if roles.many is not None:
        items, offsets = arrow.lists(arrow.at(rows, roles.many))
        index = np.repeat(index, np.diff(offsets))
        inner = arrow.plain(items.type)
        item = (
            item_roles(arrow.fields_of(inner), columns) if pa.types.is_struct(inner) else ItemRoles((), None)
        )
    nothing = pa.nulls(len(items), pa.string())
    take = pa.array(index)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(index + first),
            arrow.texts(arrow.at(rows, roles.query_id), "the query id").take(take),
            arrow.texts(arrow.at(items, item.doc_id), "the document id"),
            pa.array(_scores(items, item), pa.float64(), from_pandas=True),
            pa.nulls(len(items), pa.int64()),
            pa.array(np.full(len(items), roles.judged)),
            arrow.texts(arrow.at(rows, roles.query), "the query").take(take) if roles.query else nothing,
            nothing,
        ],
        schema=ENTRIES,
    )


def _scores(items: Array, roles: ItemRoles) -> Any:
    if not roles.score:
        return np.full(len(items), np.nan)
    column = arrow.at(items, roles.score)
    if not arrow.is_number(arrow.plain(column.type)):
        raise ColumnsError("wrong-type", f"the score is of type {column.type}; write numbers")
    return arrow.numbers(column)[0]
