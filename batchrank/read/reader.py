"""Reads the input as queries and failures, in order; pairs that stand in any order are grouped out of core first."""

import pickle
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

from batchrank.data import Query
from batchrank.errors import InputError, Place
from batchrank.job.sections import Columns, Input
from batchrank.outcomes import Failure
from batchrank.read.base import Gauge, Item, SeenIds, Segment, Source, Unrecognised
from batchrank.read.detect import INPUTS
from batchrank.read.groups import LOST, queries, refuse_unsorted
from batchrank.read.join import Join
from batchrank.read.joined import items as joined_items
from batchrank.read.layout import Joined, layout
from batchrank.read.order import Order, Ordered
from batchrank.read.sample import refuse_stdin, sampled

_ROWS = 16_384
"""Rows that are held before they go to DuckDB, as each insert has a cost of its own."""
_FETCHED = 2048
"""Rows fetched at a time from DuckDB, as each fetch has a cost of its own."""

_PAIRS = "CREATE TABLE pairs (query_id VARCHAR, seq BIGINT, place BIGINT, size BIGINT)"
_FIRSTS = "CREATE TABLE firsts AS SELECT query_id, min(seq) AS first FROM pairs GROUP BY query_id"
_GROUPED = (
    "SELECT query_id, p.place, p.size FROM pairs p JOIN firsts f USING (query_id) ORDER BY f.first, p.seq"
)


def grouped(items: Iterable[Item], gauge: Gauge | None = None) -> Generator[Item, None, None]:
    """All failures first, as they come, then the segments of each query one after the other.

    A gauge is told how many of them came.

    Raises:
        InputError: a file can't be read to its end, or the temporary folder is full.
        MissingExtraError: DuckDB isn't installed.
    """
    sorter = _Sorter()
    with sorter:
        for item in items:
            if isinstance(item, Segment):
                sorter.add(item)
                continue
            failure = item if isinstance(item, Failure) else item.failure
            if failure.cause in LOST:
                raise InputError(
                    f"{failure.place}: {failure.message}; documents of any query may be missing there"
                )
            yield item
        gauge = gauge or Gauge()
        gauge.begin("sorting by query")
        for number, segment in enumerate(sorter.segments()):
            if not number:
                gauge.count()
            gauge.at((number + 1) / sorter.count)
            yield segment


class _Sorter(Join):
    task = "pairs can't be grouped by query"

    def __init__(self) -> None:
        super().__init__()
        self._run(_PAIRS)
        self.count = 0
        self._held: list[tuple[str, int, int, int]] = []

    def add(self, segment: Segment) -> None:
        """Take one segment."""
        place, ids = segment.place, segment.doc_ids
        # As a tuple, because a frozen dataclass takes five times as long.
        parts = (
            (place.file, place.unit, place.number),
            segment.query,
            list(segment.documents),
            None if ids is None else list(ids),
            segment.scores,
            segment.whole,
            segment.fault,
            segment.order,
        )
        at = self._kept.end
        with self._translated([]):
            # Not by way of a string of bytes, which would take as much memory again.
            pickle.dump(parts, self._kept, pickle.HIGHEST_PROTOCOL)
        self._held.append((segment.query_id, self.count, at, self._kept.end - at))
        self.count += 1
        if len(self._held) >= _ROWS:
            self._store_pairs()

    def segments(self) -> Iterator[Segment]:
        """All segments, those of one query one after the other."""
        self._store_pairs()
        self._run(_FIRSTS)
        with self._translated([]):
            self._kept.flush()
            result = self._database.execute(_GROUPED)
            while rows := result.fetchmany(_FETCHED):
                yield from self._restored(rows)

    def _restored(self, rows: Sequence[tuple[str, int, int]]) -> Iterator[Segment]:
        for query_id, at, size in rows:
            place, *parts = pickle.loads(self._kept.read(at, size))  # noqa: S301 we wrote it, to a folder of our own
            yield Segment(Place(*place), query_id, *parts)

    def _store_pairs(self) -> None:
        import pyarrow as pa

        if not self._held:
            return
        columns = [pa.array(column) for column in zip(*self._held, strict=True)]
        table = pa.table(columns, names=["query_id", "seq", "place", "size"])
        self._held = []
        with self._translated([]):
            self._database.register("held", table)
            self._database.execute("INSERT INTO pairs SELECT * FROM held")
            self._database.unregister("held")


# So many records in a row from the start that nobody understands, and the names are wrong, not the records.
_HOPELESS = 100
"""Records not understood in a row after which it is the file's form that is wrong, not a record."""


def read(
    source: Input, gauge: Gauge | None = None, *, as_it_comes: bool = False
) -> Iterator[Query | Failure]:
    """Yield the input's queries in order, and a failure in the place of each record that can't be ranked.

    One synchronous generator, to be driven by one thread at a time; it holds one query and one batch of records.
    A failure whose ``query_id`` is None is about a line, a row or (cause ``truncated-file``, ``unreadable-file``)
    the rest of a file; the next file is read all the same. ``limit`` counts queries, not failures. A ``gauge`` is
    kept up to date. With ``input.order`` all is read, and kept on disk, before the first query; unless what is wanted
    is the input ``as_it_comes``.

    Raises:
        InputError: a path matches no file; there is no record at all; or the first ones don't tell what is what.
        UnsortedError: the pairs of a query don't follow one another: before the first query, or later.
    """
    gauge = gauge or Gauge()
    order = None if source.order is None else Ordered(Order.of(source.order))
    if order is None or as_it_comes:
        yield from _limited(_drawn(source, gauge, order), source.limit)
        return
    gauge.ahead = Gauge("putting queries in order")
    yield from _limited(order.sorted(_drawn(source, gauge.ahead, order), gauge), source.limit)


def _drawn(source: Input, gauge: Gauge, order: Ordered | None) -> Iterator[Query | Failure]:
    """The queries of the sample that is wanted, or all of them."""
    if source.sample is None:
        return _all(source, gauge, order)
    if "-" in source.path:
        refuse_stdin(source.sample)
    return sampled(source.sample, partial(_all, source, order=order), gauge)


def _limited(items: Iterator[Query | Failure], left: int | None) -> Iterator[Query | Failure]:
    """As many queries as are wanted, and the failures between them."""
    with closing(items):  # type: ignore[type-var]
        for item in items:
            yield item
            if left is not None and isinstance(item, Query):
                left -= 1
                if not left:
                    return


def _all(source: Input, gauge: Gauge, order: Ordered | None = None) -> Iterator[Query | Failure]:
    found = layout(source)
    if order is not None and isinstance(found, Joined):
        raise InputError(
            "input.order: the records of this input name queries and documents by id, and only records that hold their "
            "texts tell an order; put the lines of input.path in order, and remove the key"
        )
    sources = found.sources if isinstance(found, Joined) else found
    if isinstance(found, Joined):
        # Reading them is a small part of what is to be done: progress is that of the queries that come out.
        records = joined_items(found, source.columns, gauge)
    else:
        counts: dict[str, int] = {}
        size = sum(one.bytes for one in found)
        gauge.start(size)
        reading = gauge.begin("grouping pairs", size) if source.sort else gauge
        field = None if order is None else order.field
        plain = [replace(one, gauge=reading, counts=counts, order=field) for one in found]
        records = _items(plain, source.columns)
        if source.sort:
            records = grouped(records, gauge)
        else:
            refuse_unsorted(plain, source.columns)
    with closing(SeenIds()) as seen, closing(records):
        empty = True
        segments = _recognised(records)
        found_in = queries(segments if order is None else order.noting(segments), seen)
        for item in found_in if order is None else order.known(found_in):
            empty = False
            yield item
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
    """Records whose names are not known are failures, once any other record was understood.

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
