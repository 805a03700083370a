"""Draws the queries of a sample, by a hash of their ids, so that it needs no order, no memory and no random state.

1. A part of them (``5%``): those whose hash is below that part of all hashes, in one pass. It is a part in the mean:
   of 1,000 queries 5% are about 50. What is drawn tonight is drawn tomorrow, whatever stands around it then.
2. A number of them: those with the lowest hashes, found in a pass of their own before. With ``by``, each file, or each
   class of lists by length (1, 2 to 3, 4 to 7, ... documents), has the number that its part of the input comes to,
   rounded so that the numbers add up.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

from batchrank.data import Query
from batchrank.errors import InputError
from batchrank.job.reading import Sample
from batchrank.outcomes import Failure
from batchrank.read.base import Gauge

Items = Iterator[Query | Failure]


def sampled(sample: Sample, read: Callable[[Gauge], Items], gauge: Gauge) -> Items:
    """The queries that are drawn, in the order of the input; failures without a query's id are all kept.

    Args:
        sample: which ones.
        read: begins the input anew.
        gauge: kept up to date.
    """
    share = sample.share
    if share is not None:
        limit = int(share * 2**64)
        count = drawn = 0
        for item in read(gauge):
            count += isinstance(item, Query)
            if _hashed(item, sample.seed) < limit:
                drawn += isinstance(item, Query)
                yield item
        if count and not drawn:
            raise InputError(
                f"input.sample: {sample.queries} drew none of {count:,} queries; write a larger part, or a number, or "
                "another seed"
            )
        return
    chosen = _chosen(sample, read, gauge)
    left = len(chosen)
    gauge.ahead = None
    for item in read(gauge):
        key = _id(item)
        if key is None or key in chosen:
            yield item
            left -= isinstance(item, Query)
            if not left:
                return


def _chosen(sample: Sample, read: Callable[[Gauge], Items], gauge: Gauge) -> set[str]:
    """The ids of the queries with the lowest hashes, of each class as many as it is due."""
    wanted = int(sample.queries)
    counts: Counter[object] = Counter()
    lowest: dict[object, list[tuple[int, str]]] = {}
    gauge.ahead = Gauge("drawing a sample")
    with closing(read(gauge.ahead)) as items:  # type: ignore[type-var]
        for item in items:
            if not isinstance(item, Query):
                continue
            stratum = _stratum(item, sample)
            counts[stratum] += 1
            held = lowest.setdefault(stratum, [])
            entry = (-_hashed(item, sample.seed), item.id)
            if len(held) < wanted:
                heapq.heappush(held, entry)
            else:
                heapq.heappushpop(held, entry)
    due = _due(counts, wanted)
    return {name for stratum, held in lowest.items() for _, name in heapq.nlargest(due[stratum], held)}


def _stratum(query: Query, sample: Sample) -> object:
    if sample.by == "file":
        return query.place.file
    return len(query).bit_length() if sample.by == "documents" else None


def _due(counts: Counter[object], wanted: int) -> dict[object, int]:
    """How many of each class are drawn: its part of all, rounded by largest remainders."""
    total = counts.total()
    if total <= wanted:
        return dict(counts)
    due = {stratum: wanted * count // total for stratum, count in counts.items()}
    rest = sorted(counts, key=lambda stratum: (-(wanted * counts[stratum] % total), str(stratum)))
    for stratum in rest[: wanted - sum(due.values())]:
        due[stratum] += 1
    return due


def _id(item: Query | Failure) -> str | None:
    return item.id if isinstance(item, Query) else item.query_id


def _hashed(item: Query | Failure, seed: int) -> int:
    """A hash of a query's id, uniform below 2**64; -1 for a failure that names no query."""
    name = _id(item)
    if name is None:
        return -1
    data = f"{seed}\n{name}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


def refuse_stdin(sample: Sample) -> None:
    """Refuse a number of queries where the input can be read only once.

    Raises:
        InputError: a number is wanted.
    """
    if sample.share is None:
        raise InputError(
            "input.sample: standard input can be read only once, and a number of queries takes two passes; write a "
            "part such as 5%, or save the input to a file"
        )
