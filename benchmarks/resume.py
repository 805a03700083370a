"""How fast a finished job is made anew from its ledger: nothing is sent, every ranking is merged and written again.

    python benchmarks/resume.py [--quick]

The first run fills the ledger, then ``batchrank run --fresh`` replays it. Documents a second are those of the whole
replay, reading and writing included, Python's start excluded.
"""

import common
import orjson


def main() -> None:
    """Measure lists that fit one request, and longer ones merged by the hub."""
    options = common.arguments(__doc__)
    print(common.machine())
    shapes = [(20, 500), (10, 1500)] if options.quick else [(2000, 500), (400, 2500)]
    repeat = options.repeat or (1 if options.quick else 3)
    rows = []
    with common.folder() as folder, common.serving() as server:
        for queries, candidates in shapes:
            data = common.write_queries(folder / "data.parquet", queries, candidates, 250)
            server.set(scores="relative")
            job = common.job(folder, f"out-{candidates}", server.url, data)
            common.batchrank(job, "--quiet")
            sent = server.counts()["requests"]
            rates = []
            for _ in range(repeat):
                common.batchrank(job, "--quiet", "--fresh")
                summary = orjson.loads((folder / f"out-{candidates}" / "summary.json").read_bytes())
                rates.append(queries * candidates / summary["process"]["seconds"])
            again = server.counts()["requests"] - sent
            rows.append([f"{queries:,} x {candidates:,}", sent, again, common.middle(rates)])
    common.table(["lists", "requests, first run", "requests, replay", "documents/s, replay"], rows)


if __name__ == "__main__":
    main()
