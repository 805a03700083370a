"""The same queries through every writer at hand: the ranking is the same, byte for byte; any file is read whole."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jobs import make_job, outputs, run, text

from batchrank.job import Input
from batchrank.read import read
from batchrank.records import Failure, Query

Row = dict[str, Any]
Write = Callable[[Path, list[Row]], dict[str, Any]]

_ODD = [
    '"to be" or not',
    'he said "no"',
    "ends, with; marks | of all",
    "Höhe 高さ 🗻",
    "it's {json: [1]}",
    "a\\nb \\N",
]
_SPREAD = ["one\ttab", "two\nlines", '"quoted"', 'all\t"of"\nit', "  spaces around  "]


def _pairs(odd: list[str]) -> list[Row]:
    """50 queries of four documents, some of whose texts are hard on writers."""
    return [
        {
            "query_id": f"q{q}",
            "query": f"what is {text(q, 4)}",
            "doc_id": f"d{q}-{d}",
            "text": odd[q % len(odd)] if q % 3 == 0 and d == 2 else text(q * 10 + d),
            "score": 4.5 - d,
        }
        for q in range(50)
        for d in range(4)
    ]


def _lists(rows: list[Row]) -> list[Row]:
    found: dict[str, Row] = {}
    for row in rows:
        query = {name: row[name] for name in ("query_id", "query")}
        document = {"id": row["doc_id"]} | {name: row[name] for name in ("text", "score") if name in row}
        found.setdefault(row["query_id"], query | {"candidates": []})["candidates"].append(document)
    return list(found.values())


def _csv(**dialect: Any) -> Write:
    def write(path: Path, rows: list[Row]) -> dict[str, Any]:
        path = path.with_suffix(".tsv" if dialect.get("delimiter") == "\t" else ".csv")
        with path.open("w", newline="", encoding=dialect.get("encoding", "utf-8")) as file:
            writer = csv.DictWriter(
                file, list(rows[0]), **{k: v for k, v in dialect.items() if k != "encoding"}
            )
            writer.writeheader()
            writer.writerows(rows)
        return {"path": str(path)}

    return write


def _headerless(delimiter: str) -> Write:
    def write(path: Path, rows: list[Row]) -> dict[str, Any]:
        path = path.with_suffix(".csv" if delimiter == "," else ".tsv")
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerows([r["query_id"], r["doc_id"], r["query"], r["text"]] for r in rows)
        return {"path": str(path)}

    return write


def _raw_tabs(path: Path, rows: list[Row]) -> dict[str, Any]:
    """No quotes at all, as MS MARCO and ColBERT write."""
    lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    path.with_suffix(".tsv").write_text("\n".join(lines))
    return {"path": str(path.with_suffix(".tsv"))}


def _raw_headerless(path: Path, rows: list[Row]) -> dict[str, Any]:
    lines = ["\t".join((r["query_id"], r["doc_id"], r["query"], r["text"])) for r in rows]
    path.with_suffix(".tsv").write_text("\n".join(lines))
    return {"path": str(path.with_suffix(".tsv"))}


def _arrow(delimiter: str, suffix: str) -> Write:
    def write(path: Path, rows: list[Row]) -> dict[str, Any]:
        options = pyarrow.csv.WriteOptions(delimiter=delimiter)
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), path.with_suffix(suffix), options)
        return {"path": str(path.with_suffix(suffix))}

    return write


def _duckdb(suffix: str, options: str) -> Write:
    def write(path: Path, rows: list[Row]) -> dict[str, Any]:
        found = path.with_suffix(suffix)
        with duckdb.connect() as database:
            database.register("rows", pa.Table.from_pylist(rows))
            database.execute(f"COPY (SELECT * FROM rows) TO '{found}' ({options})")
        return {"path": str(found)}

    return write


def _json(*, lists: bool, indent: int | None = None, lines: bool = False) -> Write:
    def write(path: Path, rows: list[Row]) -> dict[str, Any]:
        data = _lists(rows) if lists else rows
        texts = [json.dumps(row, indent=indent) for row in data]
        path.with_suffix(".json").write_text("\n".join(texts) if lines else json.dumps(data, indent=indent))
        return {"path": str(path.with_suffix(".json"))}

    return write


def _parquet(path: Path, rows: list[Row]) -> dict[str, Any]:
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))
    return {"path": str(path.with_suffix(".parquet"))}


def _partitioned(path: Path, rows: list[Row]) -> dict[str, Any]:
    """A folder a query, whose names are in the order of the queries."""
    for number, record in enumerate(_lists(rows)):
        folder = path / f"part={number:02}"
        folder.mkdir(parents=True)
        (folder / "x.jsonl").write_bytes(orjson.dumps(record))
    return {"path": str(path)}


def _unsorted(write: Write) -> Write:
    """The pairs of all queries in turns."""

    def mixed(path: Path, rows: list[Row]) -> dict[str, Any]:
        return write(path, [row for d in range(4) for row in rows[d::4]]) | {"sort": True}

    return mixed


def _compressed(write: Write, compress: Callable[[bytes], bytes], suffix: str) -> Write:
    def packed(path: Path, rows: list[Row]) -> dict[str, Any]:
        plain = Path(write(path, rows)["path"])
        found = plain.with_name(plain.name + suffix)
        found.write_bytes(compress(plain.read_bytes()))
        plain.unlink()
        return {"path": str(found)}

    return packed


SCORED: dict[str, Write] = {
    "csv": _csv(),
    "csv-all": _csv(quoting=csv.QUOTE_ALL),
    "csv-nonnumeric": _csv(quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n"),
    "csv-semicolon": _csv(delimiter=";"),
    "csv-utf16": _csv(encoding="utf-16"),
    "csv-bom": _csv(encoding="utf-8-sig"),
    "tsv": _csv(delimiter="\t"),
    "tsv-all": _csv(delimiter="\t", quoting=csv.QUOTE_ALL),
    "arrow-csv": _arrow(",", ".csv"),
    "arrow-tsv": _arrow("\t", ".tsv"),
    "duckdb-csv": _duckdb(".csv", "HEADER"),
    "duckdb-tsv": _duckdb(".tsv", "HEADER, DELIMITER '\t'"),
    "duckdb-jsonl": _duckdb(".jsonl", "FORMAT json"),
    "duckdb-array": _duckdb(".json", "FORMAT json, ARRAY true"),
    "duckdb-parquet": _duckdb(".parquet", "FORMAT parquet"),
    "json-array": _json(lists=True),
    "json-array-pairs": _json(lists=False, indent=2),
    "json-printed": _json(lists=True, indent=1, lines=True),
    "json-lines": _json(lists=False, lines=True),
    "parquet": _parquet,
    "hive": _partitioned,
    "unsorted-csv": _unsorted(_csv()),
    "unsorted-jsonl": _unsorted(_json(lists=False, lines=True)),
    "unsorted-parquet": _unsorted(_parquet),
    "csv-bz2": _compressed(_csv(), bz2.compress, ".bz2"),
    "tsv-xz": _compressed(_csv(delimiter="\t"), lzma.compress, ".xz"),
    "array-zst": _compressed(_json(lists=True), zstandard.compress, ".zst"),
}
UNSCORED: dict[str, Write] = {
    "csv-headerless": _headerless(","),
    "tsv-headerless": _headerless("\t"),
    "csv": _csv(),
}
_PLAIN: dict[str, Write] = {"raw-tabs": _raw_tabs}
_PLAIN_UNSCORED: dict[str, Write] = {"raw-headerless": _raw_headerless}
_CASES = [
    *((name, write, True, True) for name, write in SCORED.items()),
    *((name, write, False, True) for name, write in UNSCORED.items()),
    *((name, write, True, False) for name, write in _PLAIN.items()),
    *((name, write, False, False) for name, write in _PLAIN_UNSCORED.items()),
]
_expected: dict[tuple[bool, bool], bytes] = {}


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "write", "scored", "spread"), _CASES, ids=[case[0] for case in _CASES])
async def test_every_writers_file_gives_the_same_ranking(
    tmp_path: Path, name: str, write: Write, scored: bool, spread: bool
) -> None:
    """Byte for byte that of JSON lines of one record a query, whose writer is this project's own."""
    rows = _pairs([*_ODD, *(_SPREAD if spread else ())])
    if not scored:
        rows = [{k: v for k, v in row.items() if k != "score"} for row in rows]
    given = write(tmp_path / "data", rows)
    job = make_job(tmp_path, tmp_path, input=given, merge={"top_k": 4})
    report = await run(job)
    assert (report.exit_code, report.data["notices"]) == (0, [])
    if (scored, spread) not in _expected:
        plain = tmp_path / "plain.jsonl"
        plain.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in _lists(rows)))
        other = make_job(tmp_path, plain, out="plain", merge={"top_k": 4})
        assert (await run(other)).exit_code == 0
        _expected[scored, spread] = outputs(other)["ranking-00000.jsonl"]
    assert outputs(job)["ranking-00000.jsonl"] == _expected[scored, spread]


_WORDS = st.text(st.sampled_from("ab \t\n\"',;|é高🗻\\"), max_size=8)
_DOCUMENTS = st.lists(st.tuples(_WORDS, st.sampled_from(["", "1", "-2.5", "1e3"])), min_size=1, max_size=3)
_QUERIES = st.lists(st.tuples(_WORDS, _DOCUMENTS), min_size=1, max_size=6)
_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
_NAMES = ["qid", "query", "pid", "text", "score"]


@settings(max_examples=150, deadline=None)
@given(
    data=_QUERIES,
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    header=st.permutations(_NAMES),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be"]),
    compression=st.sampled_from(sorted(_COMPRESS)),
    end=st.sampled_from(["\n", "\r\n"]),
    bad=st.integers(0, 2),
)
def test_any_file_of_columns_is_read_whole(
    data: list[tuple[str, Any]],
    delimiter: str,
    quoting: Any,
    header: list[str],
    encoding: str,
    compression: str,
    end: str,
    bad: int,
) -> None:
    """Queries read and bad records are all that went in, with the ids and texts that a plain reader of CSV finds."""
    # Where quotes are rare a line of a text that looks like a whole record is taken for one.
    tabs = max(
        words.count("\t") for query, documents in data for words in (query, *(w for w, _ in documents))
    )
    assume(delimiter != "\t" or tabs < len(_NAMES) - 1)
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerow(header)
    for number, (query, documents) in enumerate(data):
        for place, (words, score) in enumerate(documents):
            row = dict(zip(_NAMES, [f"q{number}", query, f"d{place}", words, score], strict=True))
            writer.writerow([row[name] for name in header])
    # Among so many good lines a bad one is the exception, as it has to be.
    for i in range(20):
        writer.writerow(
            [{"qid": f"z{i}", "query": "x", "pid": "d0", "text": "y", "score": ""}[n] for n in header]
        )
    for _ in range(bad):
        writer.writerow(["too", "few", "fields"])
    suffix = "tsv" if delimiter == "\t" else "csv"
    with TemporaryDirectory() as folder:
        path = Path(folder, f"x.{suffix}{compression}")
        path.write_bytes(_COMPRESS[compression](text.getvalue().encode(encoding)))
        found = list(read(Input(path=(str(path),))))
    _compare(found, list(csv.reader(io.StringIO(text.getvalue(), newline=""), delimiter=delimiter)), bad)


def _compare(found: list[Query | Failure], table: list[list[str]], bad: int) -> None:
    expected: dict[str, list[dict[str, str]]] = {}
    for row in table[1:]:
        if len(row) == len(table[0]):
            record = dict(zip(table[0], row, strict=True))
            expected.setdefault(record["qid"], []).append(record)
    failures = [f for f in found if isinstance(f, Failure)]
    read = [q for q in found if isinstance(q, Query)]
    assert [f.cause for f in failures if f.query_id is None] == ["broken-line"] * bad
    failed = {f.query_id for f in failures if f.query_id is not None}
    assert sorted([*failed, *(q.id for q in read)]) == sorted(expected)
    for name in failed:
        rows = expected[str(name)]
        assert not rows[0]["query"].strip() or not any(row["text"].strip() for row in rows)
    for query in read:
        rows = expected[query.id]
        assert query.text == rows[0]["query"]
        pairs = dict(zip(query.doc_ids, query.documents, strict=True))
        assert pairs == {row["pid"]: row["text"] for row in rows}
