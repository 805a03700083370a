"""One small dataset, written in every format of the field."""

import gzip
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from jobs import rows

QUERIES = rows(5, 23)
"""Records as in plain JSON lines: each with scored candidates."""
PAIRS = [
    {
        "query_id": q["query_id"],
        "query": q["query"],
        "doc_id": c["id"],
        "text": c["text"],
        "score": c["score"],
    }
    for q in QUERIES
    for c in q["candidates"]
]
"""The same, a row for each candidate."""
RELEVANT = {row["query_id"]: row["candidates"][7]["id"] for row in QUERIES}


def corpus() -> list[dict[str, Any]]:
    """All documents, and some that nobody asks for, in an order of their own."""
    documents = [
        {"_id": c["id"], "title": "", "text": c["text"]} for row in QUERIES for c in row["candidates"]
    ]
    others = [{"_id": f"other{i}", "title": "t", "text": "nobody asks for this"} for i in range(50)]
    return [*others[:25], *reversed(documents), *others[25:]]


def queries() -> list[dict[str, Any]]:
    """All queries, and one that the run does not have."""
    return [
        {"_id": "unasked", "text": "who asks"},
        *({"_id": r["query_id"], "text": r["query"]} for r in QUERIES),
    ]


def entries() -> list[tuple[str, str, float]]:
    """Query, document and score of each candidate."""
    return [(row["query_id"], c["id"], c["score"]) for row in QUERIES for c in row["candidates"]]


def jsonl(path: Path, records: Iterable[Any]) -> Path:
    """One JSON value a line; compressed when the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join(orjson.dumps(record) + b"\n" for record in records)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def parquet(path: Path, records: list[dict[str, Any]]) -> Path:
    """A Parquet file of several row groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records), path, row_group_size=40)
    return path


def lines(path: Path, rows: Iterable[Iterable[object]], separator: str = "\t") -> Path:
    """A text file of columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return path


def run_file(path: Path) -> Path:
    """A TREC run."""
    rows = [(q, "Q0", d, i, s, "bm25") for i, (q, d, s) in enumerate(entries(), 1)]
    return lines(path, rows, separator=" ")


def qrels_file(path: Path) -> Path:
    """TREC qrels that judge every candidate."""
    return lines(path, [(q, 0, d, int(RELEVANT[q] == d)) for q, d, _ in entries()], separator=" ")


def beir(folder: Path, *, judged: Iterable[tuple[str, str, object]] = ()) -> Path:
    """A folder as BEIR has it; all candidates are judged unless told otherwise."""
    jsonl(folder / "corpus.jsonl", corpus())
    jsonl(folder / "queries.jsonl", queries())
    pairs = list(judged) or [(q, d, int(RELEVANT[q] == d)) for q, d, _ in entries()]
    lines(folder / "qrels/test.tsv", [("query-id", "corpus-id", "score"), *pairs])
    lines(folder / "qrels/train.tsv", [("query-id", "corpus-id", "score"), ("unasked", "other1", 1)])
    return folder


def mteb(folder: Path, subset: str = "", split: str = "test") -> Path:
    """A folder as MTEB has it."""
    name = f"{split}-00000-of-00001.parquet"
    prefix = f"{subset}-" if subset else ""
    parquet(folder / f"{prefix}corpus" / name, corpus())
    parquet(folder / f"{prefix}queries" / name, queries())
    ranked = [{"query-id": r["query_id"], "corpus-ids": [c["id"] for c in r["candidates"]]} for r in QUERIES]
    parquet(folder / f"{prefix}top_ranked" / name, ranked)
    judged = [{"query-id": q, "corpus-id": d, "score": 1} for q, d in RELEVANT.items()]
    parquet(folder / f"{prefix}qrels" / name, judged)
    return folder


def stream_of(data: bytes) -> io.BufferedReader:
    """Bytes as an opened file."""
    return cast(io.BufferedReader, io.BufferedReader(io.BytesIO(data)))
