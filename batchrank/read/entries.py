"""Turns rows that name documents by id (runs, qrels, lists of ids) into Arrow batches of one row a document.

What a file holds is told from its columns once; a row is a query with a list of ids, a query with a list of objects
that have an id, or a pair. A row without a query is reported. A row without documents is kept, so
that the join can report that its query can't be ranked.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchrank.data import Positions
from batchrank.errors import Place
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read import arrow
from batchrank.read.arrow import is_list, nameless
from batchrank.read.base import ColumnsError, Source, later
from batchrank.read.columnar import opened
from batchrank.read.names import EntryRoles, ItemRoles, Path, entry_roles, item_roles
from batchrank.read.pieces import Piece, candidates, too_large

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
"""What a batch holds: the line or row it stems from, and the parts of ``tsv.Entry``; ``judged`` marks relevances.

``doc_id`` is null where a record lists no documents, and empty where a document has no id: either way the query can't
be ranked.
"""

_ROWS = 16_384
"""Rows at a time: enough for speed, as each batch costs a call to DuckDB."""
_BYTES = 8 * 1024 * 1024
"""8 MiB at a time, where rows are wide."""
_IDS = "strings or whole numbers"


def read_entries(source: Source, columns: Columns, report: Report) -> Iterator[Array]:
    """The entries of one file of columns, in batches; what can't be read is reported.

    Raises:
        ColumnsError: its names or types don't show what it holds.
        OSError, pyarrow.ArrowException: it can't be read to its end.
    """
    with opened(source) as file:
        shape = _shape(file.schema, columns)
        for piece in file.pieces(_wanted(shape.roles.paths), rows=_ROWS, documents=_ROWS, size=_BYTES):
            yield from readable(piece, Place(source.name, "row", piece.first), shape.entries, report)
            source.gauge.at(file.share)


def readable(
    piece: Piece, place: Place, make: Callable[[Array, Place, Report], Array], report: Report
) -> Iterator[Array]:
    """What is made of a piece's rows; one that is too large or not UTF-8 is reported, and the others are kept."""
    if piece.bytes is not None:
        report(Failure(place, None, "row-too-large", too_large(piece.bytes)))
        return
    rows = pa.StructArray.from_arrays(piece.rows.columns, names=piece.rows.schema.names)
    yield from _by_halves(rows, place, make, report)


def _by_halves(
    rows: Array, place: Place, make: Callable[[Array, Place, Report], Array], report: Report
) -> Iterator[Array]:
    try:
        made = make(rows, place, report)
    except UnicodeDecodeError as error:
        if len(rows) == 1:
            message = f"a text in the row is not UTF-8 ({error.reason}); write it as UTF-8"
            report(Failure(place, None, "invalid-utf8", message))
            return
    else:
        yield made
        return
    half = len(rows) // 2
    yield from _by_halves(rows.slice(0, half), place, make, report)
    yield from _by_halves(rows.slice(half), later(place, half), make, report)


def _wanted(paths: list[Path]) -> Callable[[str], bool]:
    names = {path[0] for path in paths}
    return lambda path: any(f"{path}.".startswith(f"{name}.") for name in names)


def _shape(schema: Any, columns: Columns) -> "_Shape":
    """Find the roles in a schema of plain types.

    Raises:
        ColumnsError: a role is missing, ambiguous or of a wrong type.
    """
    roles = entry_roles(arrow.fields_of(schema), columns)
    arrow.require(schema, roles.query_id, "the query id", arrow.is_identifier, _IDS)
    arrow.require(schema, roles.query, "the query", arrow.is_text, "strings")
    item, item_type = ItemRoles(roles.doc_id or (), roles.score), schema
    if roles.many is not None:
        item_type = _item_type(arrow.type_at(schema, roles.many), ".".join(roles.many))
        item = ItemRoles((), None)
        if pa.types.is_struct(item_type):
            item = item_roles(arrow.fields_of(item_type), columns)
        elif not arrow.is_identifier(item_type):
            name = ".".join(roles.many)
            raise ColumnsError(
                "wrong-type", f"each document id ({name}) is of type {item_type}; write {_IDS}"
            )
    arrow.require(item_type, item.doc_id, "the document id", arrow.is_identifier, _IDS)
    arrow.require(item_type, item.score, "the score", arrow.is_number, "numbers")
    return _Shape(roles, item)


def _item_type(kind: Any, name: str) -> Any:
    if pa.types.is_null(kind):
        return kind
    if is_list(kind):
        return kind.value_type
    if pa.types.is_struct(kind) and kind.num_fields and all(is_list(field.type) for field in kind):
        return pa.struct([pa.field(field.name, field.type.value_type) for field in kind])
    raise ColumnsError("wrong-type", f"the documents ({name}) are of type {kind}; write lists of ids")


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where a row has its parts, and each item of its list, or the row itself where there is none."""

    roles: EntryRoles
    item: ItemRoles

    def entries(self, rows: Array, place: Place, report: Report) -> Array:
        """The entries of some rows, the first of which stands at ``place``."""
        import pyarrow.compute as pc

        roles = self.roles
        query_ids = arrow.texts(arrow.at(rows, roles.query_id))
        kept = np.ones(len(rows), bool)
        if (wrong := nameless(query_ids)) is not None:
            message = "the query id is null or empty; give the query an id"
            _report(wrong, place, "no-query-id", message, report)
            kept &= ~wrong
        items, index, chosen = self._documents(rows, query_ids, kept, place, report)
        take = pa.array(index)
        nothing = pa.nulls(len(index), pa.string())
        columns = [
            pa.array(index + place.number),
            query_ids.take(take),
            pc.fill_null(arrow.texts(arrow.at(items, self.item.doc_id)), "").take(chosen),
            _scores(items, self.item).take(chosen),
            pa.nulls(len(index), pa.int64()),
            pa.array(np.full(len(index), roles.judged)),
            arrow.texts(arrow.at(rows, roles.query)).take(take) if roles.query else nothing,
            nothing,
        ]
        return pa.RecordBatch.from_arrays(columns, schema=ENTRIES)

    def _documents(
        self, rows: Array, query_ids: Array, kept: NDArray[np.bool_], place: Place, report: Report
    ) -> tuple[Array, Positions, Array]:
        """All documents, and of each entry the row and which document it is: null where the row has none."""
        numbers = np.arange(len(rows))
        if self.roles.many is None:
            return rows, numbers[kept], pa.array(numbers[kept])
        items, offsets, lengths = candidates(arrow.at(rows, self.roles.many))
        if lengths is not None:
            unequal = (lengths != lengths[0]).any(axis=0) & kept
            message = "the documents are given as lists of different lengths; write lists of one length"
            _report(unequal, place, "unequal-lists", message, report, query_ids)
            kept = kept & ~unequal
        counts = np.diff(offsets)
        spread = np.maximum(counts, 1)
        index = np.repeat(numbers, spread)
        within = np.arange(len(index)) - np.repeat(np.cumsum(spread) - spread, spread)
        chosen = pa.array(np.repeat(offsets[:-1], spread) + within, mask=np.repeat(counts == 0, spread))
        return items, index[kept[index]], chosen.filter(pa.array(kept[index]))


def _report(
    wrong: Any, place: Place, cause: str, message: str, report: Report, query_ids: Array | None = None
) -> None:
    for row in np.flatnonzero(wrong).tolist():
        query_id = None if query_ids is None else query_ids[row].as_py()
        report(Failure(later(place, row), query_id, cause, message))


def _scores(items: Array, roles: ItemRoles) -> Array:
    if not roles.score:
        return pa.nulls(len(items), pa.float64())
    return pa.array(arrow.numbers(arrow.at(items, roles.score))[0], from_pandas=True)


def numbered(schema: Any) -> Any:
    """The schema of entries with the columns that say where they come from."""
    return schema.append(pa.field("file", pa.int32())).append(pa.field("seq", pa.int64()))


def numbering(files: Sequence[Iterable[Array]]) -> Iterator[Array]:
    """The batches of several files with the columns that ``numbered`` tells."""
    seq = 0
    for file, batches in enumerate(files):
        for batch in batches:
            rows = batch.num_rows
            places = pa.array(np.full(rows, file, np.int32)), pa.array(np.arange(seq, seq + rows))
            schema = numbered(batch.schema)
            yield pa.RecordBatch.from_arrays([*batch.columns, *places], schema=schema)
            seq += rows


def titled_texts(batch: Array) -> Array:
    """The text of each document, below its title where it has one."""
    import pyarrow.compute as pc

    title, text = (pc.fill_null(batch.column(name), "") for name in ("title", "text"))
    untitled, blank = pc.equal(title, ""), pc.equal(text, "")
    if pc.all(untitled).as_py():
        return text
    both = pc.binary_join_element_wise(title, text, "\n")
    return pc.if_else(untitled, text, pc.if_else(blank, title, both))


def without_text(schema: Any, *places: str) -> Any:
    """The schema of entries with columns that say where a text is kept, in the text's place."""
    schema = schema.remove(schema.get_field_index("text"))
    for name in places:
        schema = schema.append(pa.field(name, pa.int64()))
    return schema


def noting(batches: Iterable[Array], note: Callable[[BaseException], None]) -> Iterator[Array]:
    """The batches; an error in making them is noted, because who reads them may keep only its text."""
    try:
        yield from batches
    except Exception as error:
        note(error)
        raise
