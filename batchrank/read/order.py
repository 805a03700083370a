"""Tells whether pairs come grouped by query, because a query whose pairs stand apart would be ranked in part only.

The first rows are looked through before anything is sent, as the first requests would be paid for in vain; what stands
apart further on is found when it comes (``groups``).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any, TypeAlias

import pyarrow as pa

from batchrank.errors import BatchrankError, Place, UnsortedError, install_line
from batchrank.formats import INPUTS, Gauge, Segment, Source, arrow, storage
from batchrank.formats.base import COLUMNAR
from batchrank.formats.columnar import opened
from batchrank.formats.tables import layout
from batchrank.job.sections import Columns

Run: TypeAlias = tuple[str, Place, int, int]
"""Pairs of one query that follow one another: its id, their first place, their number, their characters."""

ROWS = 100_000
"""So many rows are looked through, or as many as hold so many characters."""
_CHARACTERS = 256_000_000
_BATCH_ROWS, _BATCH_BYTES = 16_384, 4 << 20


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
