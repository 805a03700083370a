"""Collections of texts by id (corpora, queries) -> Arrow batches of id, title and text.

From JSON lines (``_id``, ``title``, ``text``; ``id``, ``contents``), Parquet, Arrow, and text files of columns: those
that a header names, or id, (url,) (title,) text.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrank.errors import InputError, Place, QueryError
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read import arrow, textfiles
from batchrank.read.base import Source, ended
from batchrank.read.columnar import opened, reason
from batchrank.read.corpus import Array, Report, readable
from batchrank.read.documents import later, nameless
from batchrank.read.names import TextRoles, text_roles
from batchrank.read.runs import records, value_at
from batchrank.read.values import document_text, identifier, unidentified

TEXTS = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
"""What a batch holds."""

_ROWS = 8192
_BYTES = 8 * 1024 * 1024


def read(source: Source, columns: Columns, report: Report, *, queries: bool) -> Iterator[Array]:
    """The texts of one file, in batches; a record that can't be read is reported.

    Raises:
        InputError: the file can't be read to its end, or its names tell nothing.
    """
    readers: Mapping[str, Callable[..., Iterator[Array]]] = {
        "jsonl": _from_jsonl, "parquet": _from_table, "arrow": _from_table, "tsv": _from_text, "csv": _from_text,
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
        return len(self._rows) >= _ROWS or self._bytes >= _BYTES

    def take(self) -> Array:
        columns = list(zip(*self._rows, strict=True)) or [(), (), ()]
        self._rows, self._bytes = [], 0
        return pa.RecordBatch.from_arrays([pa.array(c, pa.string()) for c in columns], schema=TEXTS)


def _from_jsonl(source: Source, columns: Columns, report: Report, queries: bool) -> Iterator[Array]:
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


def _from_text(source: Source, columns: Columns, report: Report, queries: bool) -> Iterator[Array]:
    texts = _Texts()
    for row in textfiles.texts(source, columns, report, queries=queries):
        texts.add(row)
        if texts.full:
            yield texts.take()
    yield texts.take()


def _from_table(source: Source, columns: Columns, report: Report, queries: bool) -> Iterator[Array]:
    with opened(source) as file:
        roles = text_roles(arrow.fields_of(file.schema), columns, queries=queries)
        arrow.require(file.schema, roles.id, "the id", arrow.is_identifier, "strings or whole numbers")
        arrow.require(file.schema, roles.text, "the text", arrow.is_text, "strings")
        arrow.require(file.schema, roles.title, "the title", arrow.is_text, "strings")
        wanted = {".".join(path) for path in (roles.id, roles.text, roles.title) if path}
        for piece in file.pieces(wanted.__contains__, rows=_ROWS, documents=_ROWS, size=_BYTES):
            yield from readable(piece, Place(source.name, "row", piece.first), partial(_made, roles), report)
            source.gauge.at(file.share)


def _made(roles: TextRoles, rows: Array, place: Place, report: Report) -> Array:
    """The texts of some rows, the first of which stands at ``place``; one without an id is reported."""
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
