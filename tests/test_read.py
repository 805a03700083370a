"""The input in every format and shape."""

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrank.data import Query
from batchrank.errors import InputError, Place
from batchrank.job.sections import Columns, Input
from batchrank.outcomes import Failure
from batchrank.read.reader import read

Record = dict[str, Any]
RECORDS: list[Record] = [
    {
        "query_id": f"q{q}",
        "query": f"query {q}",
        "candidates": [
            {"docid": f"d{i}", "title": "T" if i % 2 else "", "text": f"text {i}", "score": float(9 - i)}
            for i in range(3)
        ],
    }
    for q in range(40)
]


def pairs(records: list[Record]) -> list[Record]:
    return [{k: r[k] for k in ("query_id", "query")} | c for r in records for c in r["candidates"]]


def jsonl(records: list[Any]) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def write_parquet(path: Path, records: list[Record], group: int = 7) -> None:
    pq.write_table(pa.Table.from_pylist(records), path, row_group_size=group)


def got(*paths: Path | str, **keys: Any) -> list[Query | Failure]:
    return list(read(Input(path=tuple(map(str, paths)), **keys)))


def values(found: list[Query | Failure]) -> list[Any]:
    """All of each query but its place."""
    rows = []
    for query in found:
        assert isinstance(query, Query), query
        scores = query.first_stage_scores
        shown = None if scores is None else np.nan_to_num(scores, nan=-1).tolist()
        rows.append((query.id, query.text, list(query.doc_ids), list(query.documents), shown))
    return rows


def test_all_formats_and_shapes_give_the_same_queries(tmp_path: Path) -> None:
    """The same data as JSONL and Parquet, a row a query and a row a pair, is the same queries."""
    (tmp_path / "lists.jsonl").write_bytes(jsonl(RECORDS))
    (tmp_path / "pairs.jsonl").write_bytes(jsonl(pairs(RECORDS)))
    write_parquet(tmp_path / "lists.parquet", RECORDS)
    write_parquet(tmp_path / "pairs.parquet", pairs(RECORDS))
    expected = values(got(tmp_path / "lists.jsonl"))
    assert len(expected) == 40
    assert expected[3] == (
        "q3",
        "query 3",
        ["d0", "d1", "d2"],
        ["text 0", "T\ntext 1", "text 2"],
        [9.0, 8.0, 7.0],
    )
    for name in ("pairs.jsonl", "lists.parquet", "pairs.parquet"):
        assert values(got(tmp_path / name)) == expected


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
CANDIDATES = st.lists(
    st.fixed_dictionaries(
        {
            "doc_id": st.none() | st.text("ab", min_size=4, max_size=9),
            "title": st.none() | TEXTS,
            "text": st.none() | TEXTS,
            "score": st.none() | st.floats(-1e300, 1e300),
        }
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXTS, CANDIDATES), min_size=1, max_size=6), st.integers(1, 4))
def test_any_data_reads_alike_from_every_format_and_shape(data: list[tuple[str, Any]], group: int) -> None:
    """Whatever the data, failures included, the four ways to store it give the same."""
    records = [{"query_id": f"q{i}", "query": q, "candidates": c} for i, (q, c) in enumerate(data)]
    document = pa.struct(
        [("doc_id", pa.string()), ("title", pa.string()), ("text", pa.string()), ("score", pa.float64())]
    )
    query = [("query_id", pa.string()), ("query", pa.string())]
    schemas = [pa.schema([*query, ("candidates", pa.list_(document))]), pa.schema([*query, *document])]
    found = []
    with TemporaryDirectory() as folder:
        for shape, schema in zip((records, pairs(records)), schemas, strict=True):
            Path(folder, "x.jsonl").write_bytes(jsonl(shape))
            table = pa.Table.from_pylist(shape, schema=schema)
            pq.write_table(table, Path(folder, "x.parquet"), row_group_size=group)
            for name in ("x.jsonl", "x.parquet"):
                items = got(Path(folder, name))
                queries = values([item for item in items if isinstance(item, Query)])
                found.append((queries, [(f.query_id, f.cause) for f in items if isinstance(f, Failure)]))
    assert found[1:] == found[:1] * 3


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress, bytes])
def test_standard_input_is_read_as_it_comes(compress: Callable[[bytes], bytes], monkeypatch: Any) -> None:
    """``-`` reads JSON lines from standard input, compressed or not, and leaves it open."""
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(compress(jsonl(RECORDS)))))
    monkeypatch.setattr(sys, "stdin", stdin)
    found = got("-")
    assert len(values(found)) == 40
    assert isinstance(found[1], Query)
    assert found[1].place == Place("standard input", "line", 2)
    assert not stdin.closed


def test_parquet_on_standard_input_is_refused(monkeypatch: Any) -> None:
    """Parquet can't be streamed; the message says what to give instead."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"PAR1....")))
    with pytest.raises(InputError, match="give it as an uncompressed file"):
        got("-")
    with pytest.raises(InputError, match="standard input can't be parquet"):
        got("-", format="parquet")


def test_a_folder_is_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    """Files of mixed formats are read by name; hidden ones and those of no known suffix are not."""
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(jsonl(RECORDS[2:3])))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(jsonl(RECORDS[1:2])))
    write_parquet(tmp_path / "a.parquet", RECORDS[:1])
    for name in ("_temporary.jsonl", ".hidden.jsonl", "README.md"):
        (tmp_path / name).write_text("no data")
    assert [row[0] for row in values(got(tmp_path))] == ["q0", "q2", "q1"]
    assert [row[0] for row in values(got(tmp_path, format="parquet"))] == ["q0"]
    assert [row[0] for row in values(got(tmp_path / "[bc]*", tmp_path / "*.parquet"))] == ["q2", "q1", "q0"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    """A list and a pattern may overlap."""
    (tmp_path / "a.jsonl").write_bytes(jsonl(RECORDS))
    assert len(values(got(tmp_path / "a.jsonl", tmp_path / "*.jsonl"))) == 40


def test_parquet_is_known_without_its_suffix(tmp_path: Path) -> None:
    """A file of no known suffix is taken for what its first bytes say."""
    write_parquet(tmp_path / "data", RECORDS)
    (tmp_path / "lines").write_bytes(jsonl(RECORDS))
    assert values(got(tmp_path / "data")) == values(got(tmp_path / "lines"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.jsonl", "no such file or folder"),
        ("*.parquet", "no file matches"),
        ("", "has no data file in it .*.jsonl, .*.ndjson"),
    ],
)
def test_a_path_that_matches_nothing_is_an_error(tmp_path: Path, path: str, message: str) -> None:
    """Nothing is silently left out; the message names the path."""
    with pytest.raises(InputError, match=message):
        got(tmp_path / path)


def test_limit_counts_queries(tmp_path: Path) -> None:
    """``input.limit`` gives so many queries, in pairs too, past records that can't be ranked."""
    (tmp_path / "x.jsonl").write_bytes(b"broken\n" + jsonl(pairs(RECORDS)))
    found = got(tmp_path / "x.jsonl", limit=2)
    assert isinstance(found[0], Failure)
    assert [row[0] for row in values(found[1:])] == ["q0", "q1"]


def test_pairs_go_on_in_the_next_file(tmp_path: Path) -> None:
    """Part files may be cut within a query."""
    rows = pairs(RECORDS)
    (tmp_path / "1.jsonl").write_bytes(jsonl(rows[:4]))
    write_parquet(tmp_path / "2.parquet", rows[4:], group=5)
    (tmp_path / "all.json").write_bytes(jsonl(rows))
    assert values(got(tmp_path / "[12]*")) == values(got(tmp_path / "all.json"))


def test_the_shape_of_rank_llm_reads_without_mapping(tmp_path: Path) -> None:
    """Nested queries and documents, from JSONL and from Parquet."""
    record = {
        "query": {"text": "what is it", "qid": 7},
        "candidates": [
            {"docid": "a", "score": 2.5, "doc": {"title": "T", "segment": "one", "url": "u"}},
            {"docid": "b", "score": 1, "doc": {"title": None, "segment": "two", "url": "u"}},
        ],
    }
    (tmp_path / "x.jsonl").write_bytes(jsonl([record]))
    write_parquet(tmp_path / "x.parquet", [record])
    expected = [("7", "what is it", ["a", "b"], ["T\none", "two"], [2.5, 1.0])]
    assert values(got(tmp_path / "x.jsonl")) == values(got(tmp_path / "x.parquet")) == expected


def test_candidates_may_differ_in_their_keys(tmp_path: Path) -> None:
    """Strings and objects of any keys may stand in one JSONL list; missing ids are positions."""
    candidates = [
        "plain",
        {"text": "a", "doc_id": 5},
        {"passage": "b", "title": "T"},
        None,
        {"doc": {"text": "c"}},
    ]
    (tmp_path / "x.jsonl").write_bytes(jsonl([{"qid": 1, "question": "x", "docs": candidates}]))
    expected = [("1", "x", ["0", "5", "2", "3", "4"], ["plain", "a", "T\nb", "", "c"], None)]
    assert values(got(tmp_path / "x.jsonl")) == expected


def test_missing_ids_are_positions_in_the_list_as_given(tmp_path: Path) -> None:
    """Sorting by first-stage score does not change which document an id is."""
    docs = [{"text": "low", "score": 1}, {"text": "high", "score": 2}]
    (tmp_path / "x.jsonl").write_bytes(jsonl([{"qid": "q", "query": "x", "docs": docs}]))
    assert values(got(tmp_path / "x.jsonl")) == [("q", "x", ["1", "0"], ["high", "low"], [2.0, 1.0])]


def test_lines_may_end_as_they_like(tmp_path: Path) -> None:
    """A byte order mark, CRLF, blank lines and a last line without an end are no faults."""
    lines = jsonl(RECORDS[:3]).splitlines()
    (tmp_path / "x.jsonl").write_bytes(
        b"\xef\xbb\xbf" + lines[0] + b"\r\n\r\n  \n" + lines[1] + b"\n" + lines[2]
    )
    found = got(tmp_path / "x.jsonl")
    assert [row[0] for row in values(found)] == ["q0", "q1", "q2"]
    assert [query.place.number for query in found if isinstance(query, Query)] == [1, 4, 5]


def test_columns_settle_what_is_ambiguous(tmp_path: Path) -> None:
    """The key named by the message makes the input readable."""
    record = {"id": 1, "query": "x", "text": "a"}
    (tmp_path / "x.jsonl").write_bytes(jsonl([record]))
    write_parquet(tmp_path / "x.parquet", [record])
    for name in ("x.jsonl", "x.parquet"):
        with pytest.raises(InputError, match=r"set input\.columns\.query_id or input.columns.doc_id"):
            got(tmp_path / name)
        assert values(got(tmp_path / name, columns=Columns(query_id="id"))) == [
            ("1", "x", ["0"], ["a"], None)
        ]


def test_ten_times_the_input_is_read_a_batch_at_a_time(tmp_path: Path) -> None:
    """A row group of any size is read in batches: asking for one query leaves the rest of it unread."""
    path = tmp_path / "x.parquet"
    records = [r | {"query_id": f"{n}", "candidates": r["candidates"] * 1000} for n, r in enumerate(RECORDS)]
    for record in records:
        record["candidates"] = [{"text": f"{i}"} for i in range(3000)]
    write_parquet(path, records, group=1000)
    before = pa.total_allocated_bytes()
    queries = read(Input(path=(str(path),)))
    next(queries)
    one = pa.total_allocated_bytes() - before
    queries.close()  # type: ignore[attr-defined]
    assert one < pq.read_table(path).nbytes
