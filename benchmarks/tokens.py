"""Counting tokens: the bound of bytes against exact counts by the Qwen vocabulary, on one thread.

    python benchmarks/tokens.py [--quick]

``sharding`` is all that stage 2 does for a list of 500: with 250 bytes a document the bound of bytes doesn't settle
whether they fit one request, with 150 it does.
"""

import random
import time
from collections.abc import Callable, Sequence

import common

from batchrank.data import Query
from batchrank.shard.chunks import Sharder
from batchrank.shard.sizes import Limits
from batchrank.tokens import counter

LIMITS = Limits(documents=500, request_tokens=120_000, item_tokens=4_000, body_bytes=16 * 2**20)


def main() -> None:
    """Measure all ways."""
    options = common.arguments(__doc__)
    print(common.machine())
    lists, repeat = (4, 1) if options.quick else (200, options.repeat or 5)
    rows = []
    for size in (150, 250, 1000):
        rng = random.Random(size)
        data = [common.documents(rng, 500, size) for _ in range(lists)]
        queries = [
            Query(f"q{i}", "how to sort a list", [*map(str, range(500))], d) for i, d in enumerate(data)
        ]
        for name in ("bytes", "qwen"):
            counting = counter(name)
            counting.count(data[0])
            rows.append([f"{name}, {size} B", *_speed(counting.count, data, size, repeat)])
        sharder = Sharder(LIMITS, counter("qwen"))
        rows.append([f"sharding, {size} B", *_speed(sharder.shards, queries, size, repeat)])
    common.table(["", "microseconds per 500 documents", "documents/s", "MB/s"], rows)


def _speed(function: Callable[..., object], items: Sequence[object], size: int, repeat: int) -> list[float]:
    took = []
    for _ in range(repeat):
        started = time.perf_counter()
        for item in items:
            function(item)
        took.append((time.perf_counter() - started) / len(items))
    each = common.middle(took)
    return [each * 1e6, 500 / each, 500 * size / each / 1e6]


if __name__ == "__main__":
    main()
