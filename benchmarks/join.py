"""Peak memory and time of joining a run with a corpus that is read past it.

    python benchmarks/join.py [--quick]

1,000 queries x 1,000 documents over 1,000,000 documents of 500 bytes (every document is asked for once, in an order of
its own), the corpus as JSON lines and as Parquet, the run as TREC. Only reading is measured: files -> queries, in a
process of its own; peak resident memory as the system counts it.
"""

import random
import sys
from pathlib import Path

import common
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

_READ = """
import sys
from batchrank.job.sections import Input
from batchrank.read.reader import read
from batchrank.data import Query
keys = ("path", "corpus", "queries")
found = [len(q.documents) for q in read(Input(**dict(zip(keys, sys.argv[1:])))) if isinstance(q, Query)]
assert (len(found), sum(found)) == (int(sys.argv[4]), int(sys.argv[5])), (len(found), sum(found))
"""


def write(folder: Path, documents: int, queries: int, depth: int) -> dict[str, Path]:
    """The corpus in two formats, the queries and the run."""
    rng = random.Random(1)
    order = list(range(documents))
    rng.shuffle(order)
    schema = pa.schema([("_id", pa.string()), ("title", pa.string()), ("text", pa.string())])
    paths = {name: folder / name for name in ("corpus.jsonl", "corpus.parquet", "queries.tsv", "run.trec")}
    with (
        paths["corpus.jsonl"].open("wb") as lines,
        pq.ParquetWriter(paths["corpus.parquet"], schema) as parquet,
    ):
        for first in range(0, documents, 10_000):
            texts = common.documents(rng, min(10_000, documents - first), 500)
            rows = [{"_id": f"d{first + i}", "title": "", "text": text} for i, text in enumerate(texts)]
            lines.writelines(orjson.dumps(row) + b"\n" for row in rows)
            parquet.write_table(pa.Table.from_pylist(rows, schema=schema))
    paths["queries.tsv"].write_text("".join(f"q{q}\thow to sort list {q}\n" for q in range(queries)))
    with paths["run.trec"].open("w") as run:
        for q in range(queries):
            asked = [order[(q * depth + i) % documents] for i in range(depth)]
            run.writelines(f"q{q} Q0 d{d} {i} {depth - i} bm25\n" for i, d in enumerate(asked, 1))
    return paths


def main() -> None:
    """Join with each form of the corpus."""
    options = common.arguments(__doc__)
    print(common.machine())
    documents, queries, depth = (20_000, 20, 100) if options.quick else (1_000_000, 1_000, 1_000)
    rows = []
    with common.folder() as folder:
        paths = write(folder, documents, queries, depth)
        for name in ("corpus.jsonl", "corpus.parquet"):
            size = paths[name].stat().st_size / 1e6
            arguments = [str(paths[key]) for key in ("run.trec", name, "queries.tsv")]
            for _ in range(options.repeat or 1):
                command = [sys.executable, "-c", _READ, *arguments, str(queries), str(queries * depth)]
                used = common.measured(command, log=folder / "log")
                if used.code:
                    raise RuntimeError((folder / "log").read_text())
                rows.append(
                    [name, size, documents, f"{queries:,} x {depth:,}", used.rss, used.wall, used.cpu]
                )
    common.table(["corpus", "MB", "documents", "run", "peak RSS, MB", "wall s", "CPU s"], rows)


if __name__ == "__main__":
    main()
