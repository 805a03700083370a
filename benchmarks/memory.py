"""Peak memory of runs of growing size.

    python benchmarks/memory.py [--quick]

``batchrank run`` from Parquet to Parquet, documents of 250 bytes, lists of 500, a server that answers after 50 ms;
peak resident memory as the system counts it, for the whole process. The last line is one list of 100,000 candidates,
merged by the hub.
"""

import common

SIZES = [(40, 500), (200, 500), (400, 500), (2000, 500), (4000, 500), (1, 100_000)]
"""Queries, and candidates of each."""
QUICK = [(4, 50), (40, 50), (1, 600)]


def main() -> None:
    """Run all sizes."""
    options = common.arguments(__doc__)
    print(common.machine())
    sizes = QUICK if options.quick else SIZES
    rows: list[list[object]] = []
    peaks: dict[int, float] = {}
    with common.folder() as folder, common.serving() as server:
        for number, (queries, candidates) in enumerate(sizes):
            data = common.write_queries(folder / "data.parquet", queries, candidates, 250)
            runs = []
            for turn in range(options.repeat or 1):
                server.set(latency=0.05, scores="relative")
                job = common.job(folder, f"out-{number}-{turn}", server.url, data)
                runs.append(common.batchrank(job, "--quiet"))
            pairs, peak = queries * candidates, common.middle([used.rss for used in runs])
            tenth = peaks.get(pairs // 10) if queries > 1 else None
            peaks[pairs] = peak
            wall = common.middle([used.wall for used in runs])
            rows.append([pairs, queries, peak, peak / tenth if tenth else "", wall])
    common.table(["pairs", "queries", "peak RSS, MB", "x a tenth of the input", "wall s"], rows)


if __name__ == "__main__":
    main()
