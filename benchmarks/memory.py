"""Peak memory of runs of growing size.

    python benchmarks/memory.py [--quick]

``batchrank run`` from Parquet to Parquet, documents of 250 bytes, lists of 500, a server that answers after 50 ms;
peak resident memory as the system counts it, for the whole process. The last line is one list of 100,000 candidates,
merged by the hub.
"""

import common


def main() -> None:
    """Run all sizes."""
    options = common.arguments(__doc__)
    print(common.machine())
    sizes = (
        [(4, 50), (40, 50), (1, 600)] if options.quick else [(40, 500), (400, 500), (2000, 500), (1, 100_000)]
    )
    repeat = options.repeat or 1
    rows = []
    base = 0.0
    with common.folder() as folder, common.serving() as server:
        for number, (queries, candidates) in enumerate(sizes):
            data = common.write_queries(folder / "data.parquet", queries, candidates, 250)
            peaks, walls = [], []
            for turn in range(repeat):
                server.set(latency=0.05, scores="relative")
                job = common.job(folder, f"out-{number}-{turn}", server.url, data)
                used = common.batchrank(job, "--quiet")
                peaks.append(used.rss)
                walls.append(used.wall)
            base = base or common.middle(peaks)
            rows.append(
                [
                    queries * candidates,
                    queries,
                    common.middle(peaks),
                    common.middle(peaks) / base,
                    common.middle(walls),
                ]
            )
    common.table(["pairs", "queries", "peak RSS, MB", "x the first", "wall s"], rows)


if __name__ == "__main__":
    main()
