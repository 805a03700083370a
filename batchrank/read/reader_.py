"""The input as queries and failures."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace

from batchrank.data import Query
from batchrank.errors import InputError
from batchrank.job.sections import Columns, Input
from batchrank.outcomes import Failure
from batchrank.read.base import Gauge, Item, Segment, Source, Unrecognised
from batchrank.read.groups import queries
from batchrank.read.joined import items as joined_items
from batchrank.read.layout import Joined, layout
from batchrank.read.order import refuse_unsorted
from batchrank.read.seen import SeenIds
from batchrank.read.sort import grouped
from batchrank.read.table import INPUTS

# So many records in a row from the start that nobody understands, and the names are wrong, not the records.
_HOPELESS = 100


def read(source: Input, gauge: Gauge | None = None) -> Iterator[Query | Failure]:
    """Yield the input's queries in order, and a failure in the place of each record that can't be ranked.

    One synchronous generator, to be driven by one thread at a time; it holds one query and one batch of records.
    A failure whose ``query_id`` is None is about a line, a row or (cause ``truncated-file``, ``unreadable-file``)
    the rest of a file; the next file is read all the same. ``limit`` counts queries, not failures. A ``gauge`` is
    kept up to date.

    Raises:
        InputError: a path matches no file; there is no record at all; or the first ones don't tell what is what.
        UnsortedError: the pairs of a query don't follow one another: before the first query, or later.
    """
    gauge = gauge or Gauge()
    found = layout(source)
    sources = found.sources if isinstance(found, Joined) else found
    if isinstance(found, Joined):
        # Reading them is a small part of what is to be done: progress is that of the queries that come out.
        records = joined_items(found, source.columns, gauge)
    else:
        counts: dict[str, int] = {}
        plain = [replace(one, gauge=gauge, counts=counts) for one in found]
        gauge.start(sum(one.bytes for one in plain))
        records = _items(plain, source.columns)
        if source.sort:
            records = grouped(records)
        else:
            refuse_unsorted(plain, source.columns)
    left = source.limit
    with closing(SeenIds()) as seen, closing(records):
        empty = True
        for item in queries(_recognised(records), seen):
            empty = False
            yield item
            if left is not None and isinstance(item, Query):
                left -= 1
                if not left:
                    return
    if empty:
        names = ", ".join(one.name for one in sources[:3])
        raise InputError(
            f"input.path: there is no query in {names}; correct the path, or see what wrote the file"
        )


def _items(sources: Iterable[Source], columns: Columns) -> Generator[Item, None, None]:
    for source in sources:
        source.gauge.file(source.bytes)
        yield from INPUTS[source.format].read(source, columns)


def _recognised(items: Iterable[Item]) -> Iterator[Segment | Failure]:
    """Records whose names tell nothing are failures, once any other record was understood.

    Raises:
        InputError: none was understood, and the first is ambiguous, or there were many, or the input has ended.
    """
    first: Failure | None = None
    understood = False
    count = 0
    for item in items:
        if not isinstance(item, Unrecognised):
            understood = understood or isinstance(item, Segment)
            yield item
            continue
        count += 1
        first = first or item.failure
        if not understood and (item.ambiguous or count == _HOPELESS):
            break
        yield item.failure
    if first and not understood:
        raise InputError(f"{first.place}: {first.message}")
