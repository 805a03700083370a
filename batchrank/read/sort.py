"""Pairs in any order -> pairs grouped by query, by DuckDB: out of core, so that their number doesn't matter.

Queries come in the order in which their first pair stands in the input, and the pairs of each in the order given.
"""

import pickle
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import count

from batchrank.errors import InputError, Place
from batchrank.outcomes import Failure
from batchrank.read.base import Item, Segment
from batchrank.read.groups import LOST
from batchrank.read.join import Join

_ROWS = 16_384
_FETCHED = 2048

_PAIRS = "CREATE TABLE pairs (query_id VARCHAR, seq BIGINT, place BIGINT, size BIGINT)"
_FIRSTS = "CREATE TABLE firsts AS SELECT query_id, min(seq) AS first FROM pairs GROUP BY query_id"
_GROUPED = (
    "SELECT query_id, p.place, p.size FROM pairs p JOIN firsts f USING (query_id) ORDER BY f.first, p.seq"
)


def grouped(items: Iterable[Item]) -> Generator[Item, None, None]:
    """All failures first, as they come, then the segments of each query one after the other.

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
                raise InputError(f"{failure.place}: {failure.message}; any query may lack what stands there")
            yield item
        yield from sorter.segments()


class _Sorter(Join):
    task = "pairs can't be grouped by query"

    def __init__(self) -> None:
        super().__init__()
        self._run(_PAIRS)
        self._numbers = count()
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
        )
        at = self._kept.end
        with self._translated([]):
            # Not by way of a string of bytes, which would take as much memory again.
            pickle.dump(parts, self._kept, pickle.HIGHEST_PROTOCOL)
        self._held.append((segment.query_id, next(self._numbers), at, self._kept.end - at))
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
