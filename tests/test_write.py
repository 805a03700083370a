"""Rankings, failures and the summary on disk."""

import hashlib
import io
import os
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written import FORMATS, contents, ranking, write

from batchrank.errors import OutputError, Place
from batchrank.job.sections import Output
from batchrank.outcomes import Failure, Merged, QueryCost, Ranking
from batchrank.write import rows as parquetwriter
from batchrank.write.folder import write_summary
from batchrank.write.writer import FailureLog, Part, StreamWriter, Writer


def test_parquet_rows_are_as_documented(tmp_path: Path) -> None:
    """Columns, nulls and the certified depth of ``ranking-*``; how it was made in ``queries-*``."""
    write(tmp_path, "parquet", 2)
    table = pq.read_table(tmp_path / "ranking-00000.parquet")
    names = "query_id doc_id rank score raw_score first_stage_rank first_stage_score certified"
    assert table.column_names == names.split()
    rows = table.to_pylist()
    assert len(rows) == 20
    assert list(rows[0].values()) == ["q0", "d7", 1, 1.0, 2.0, 8, 3.0, True]
    assert list(rows[9].values()) == ["q0", "d9", 10, None, None, 10, 1.0, False]
    assert [row["certified"] for row in rows[:10]] == [True] * 3 + [False] * 7
    (first, _) = pq.read_table(tmp_path / "queries-00000.parquet").to_pylist()
    assert first == {
        "query_id": "q0",
        "documents": 11,
        "chunks": 2,
        "requests": 3,
        "tokens": 100,
        "cost": None,
        "method": "hub",
        "certified": 3,
        "verdict": "relative",
        "drift": 0.125,
        "drift_max": 0.5,
        "agreement": 0.75,
        "reused": 4,
        "oldest": datetime(2026, 11, 25, 3, tzinfo=UTC),
    }


def test_all_formats_say_the_same(tmp_path: Path) -> None:
    """JSON lines hold the rows of Parquet; TREC holds their order."""
    for format in FORMATS:
        write(tmp_path / format, format, 3)
    rows = pq.read_table(tmp_path / "parquet/ranking-00000.parquet").to_pylist()
    queries = pq.read_table(tmp_path / "parquet/queries-00000.parquet").to_pylist()
    lines = [
        orjson.loads(line) for line in (tmp_path / "jsonl/ranking-00000.jsonl").read_bytes().splitlines()
    ]
    assert [{"query_id": line["query_id"]} | row for line in lines for row in line["ranking"]] == rows
    for line in lines:
        line["merge"]["oldest"] = datetime.fromisoformat(line["merge"]["oldest"])
    assert [{"query_id": line["query_id"]} | line["merge"] for line in lines] == queries
    run = [line.split()[:4] for line in (tmp_path / "trec/ranking-00000.trec").read_text().splitlines()]
    assert run == [[row["query_id"], "Q0", row["doc_id"], str(row["rank"])] for row in rows]
    beside = (tmp_path / "trec/queries-00000.jsonl").read_bytes().splitlines()
    for query in queries:
        query["oldest"] = query["oldest"].isoformat()
    assert [orjson.loads(line) for line in beside] == queries


@pytest.mark.parametrize("format", FORMATS)
def test_parts_end_where_they_are_told_to(tmp_path: Path, format: str) -> None:
    """A part that ends is in place at once, and is described truly."""
    parts = write(tmp_path, format, 5, each=2)
    assert [(p.index, p.queries, p.rows) for p in parts] == [(0, 2, 20), (1, 2, 20), (2, 1, 10)]
    names = sorted(name.format(f"{i:05d}") for name in FORMATS[format] for i in range(3))
    assert [path.name for path in sorted(tmp_path.iterdir())] == names
    for file in (file for part in parts for file in part.files):
        data = (tmp_path / file.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)


@pytest.mark.parametrize("format", FORMATS)
def test_a_part_without_a_ranking_has_no_file_and_uses_up_its_number(tmp_path: Path, format: Any) -> None:
    """Names depend on the input alone: all queries of part 0 failed, and the next part is 1 all the same."""
    writer = Writer(Output(path=str(tmp_path), format=format))
    assert writer.end() == Part(0, 0, 0, ())
    writer.write(ranking(0))
    writer.close()
    assert {path.name for path in tmp_path.iterdir()} == {kind.format("00001") for kind in FORMATS[format]}


@pytest.mark.parametrize("format", FORMATS)
def test_a_part_appears_whole_or_not_at_all(tmp_path: Path, format: Any) -> None:
    """Until a part is complete its files have temporary names; giving up removes them and keeps earlier parts."""
    writer = Writer(Output(path=str(tmp_path), format=format))
    for number in range(3):
        writer.write(ranking(number))
        if number == 1:
            writer.end()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        name for kind in FORMATS[format] for name in (kind.format("00000"), f".{kind.format('00001')}.tmp")
    }
    writer.abort()
    assert {path.name for path in tmp_path.iterdir()} == {kind.format("00000") for kind in FORMATS[format]}


@pytest.mark.parametrize("format", FORMATS)
def test_bytes_are_the_same_however_often_it_was_interrupted(tmp_path: Path, format: Any) -> None:
    """A run continued at a part, over the left-overs of a killed one, gives the bytes of one run."""
    write(tmp_path / "once", format, 4, each=2)
    writer = Writer(Output(path=str(tmp_path / "twice"), format=format))
    for number in range(3):
        writer.write(ranking(number))
        if number == 1:
            writer.end()
    leftovers = [path for path in (tmp_path / "twice").iterdir() if path.name.endswith(".tmp")]
    assert leftovers
    saved = dict.fromkeys(leftovers, b"killed here")
    writer.abort()
    for path, data in saved.items():
        path.write_bytes(data)
    resumed = Writer(Output(path=str(tmp_path / "twice"), format=format), first_part=1)
    for number in range(2, 4):
        resumed.write(ranking(number))
    resumed.close()
    assert contents(tmp_path / "twice") == contents(tmp_path / "once")


def test_row_groups_are_bounded_and_do_not_change_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of any size is written in row groups, as soon as one is full."""
    monkeypatch.setattr(parquetwriter, "_GROUP_ROWS", 25)
    write(tmp_path, "parquet", 7)
    file = pq.ParquetFile(tmp_path / "ranking-00000.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [30, 30, 10]
    assert file.read().column("query_id").to_pylist() == [f"q{i // 10}" for i in range(70)]


@pytest.mark.parametrize("format", FORMATS)
def test_top_n_cuts_each_query(tmp_path: Path, format: Any) -> None:
    """Only the first documents are written, and counted as rows."""
    (part,) = write(tmp_path, format, 4, top_n=3)
    assert part.rows == 12


FLOATS = st.floats(allow_nan=True, allow_infinity=False)
ROWS = st.lists(
    st.tuples(st.text(st.characters(codec="utf-8"), max_size=5), FLOATS, FLOATS, FLOATS), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4))
def test_any_ranking_survives_parquet_and_jsonl(data: list[Any]) -> None:
    """Ids of any text and floats of any size come back exactly; a missing number is null."""
    rankings = []
    for number, rows in enumerate(data):
        ids, *columns = zip(*rows, strict=True) if rows else ((), (), (), ())
        scores, raw, first = (np.array(column, dtype=np.float64) for column in columns)
        order = np.arange(len(rows))
        merged = Merged(order, scores, raw, 1, "raw")
        cost = QueryCost(1, 1, len(rows), 1, 0.5)
        rankings.append(Ranking(f"q{number}", ids, scores, raw, order + 1, first, merged, cost))
    with TemporaryDirectory() as name:
        for format in ("parquet", "jsonl"):
            writer = Writer(Output(path=name, format=format))
            for one in rankings:
                writer.write(one)
            writer.close()
        table = pq.read_table(Path(name, "ranking-00000.parquet")).to_pylist()
        lines = [orjson.loads(line) for line in Path(name, "ranking-00000.jsonl").read_bytes().splitlines()]
    assert [{"query_id": line["query_id"]} | row for line in lines for row in line["ranking"]] == table
    nullable = [[None if np.isnan(x) else x for x in row[1:]] for rows in data for row in rows]
    assert [[row["score"], row["raw_score"], row["first_stage_score"]] for row in table] == nullable
    assert [row["doc_id"] for row in table] == [row[0] for rows in data for row in rows]


def test_no_ranking_is_no_part(tmp_path: Path) -> None:
    """A run without rankings publishes nothing."""
    assert write(tmp_path / "out", "parquet", 0) == ()
    assert list((tmp_path / "out").iterdir()) == []


def test_standard_output_gets_a_line_at_once() -> None:
    """Each query is one JSON line, flushed; a reader that went away is an error that says so."""
    stream = io.BytesIO()
    writer = StreamWriter(Output(path="-", top_n=2), stream)
    writer.write(ranking(1))
    line = orjson.loads(stream.getvalue())
    assert (line["query_id"], len(line["ranking"]), line["merge"]["tokens"]) == ("q1", 2, 101)
    reader, end = os.pipe()
    os.close(reader)
    message = r"at query 'q1': its reader went away; set output\.path"
    with os.fdopen(end, "wb", buffering=0) as broken, pytest.raises(OutputError, match=message):
        StreamWriter(Output(path="-"), broken).write(ranking(1))


FAILURE = Failure(Place("in.jsonl", "line", 7), "q\ud8001", "content-refused", "the API refused it", 2)


def test_failures_are_seen_at_once_and_published_at_the_end(tmp_path: Path) -> None:
    """A killed run shows what failed so far; the final name always holds a complete file."""
    path = tmp_path / "failed.jsonl"
    path.write_text("of the run before")
    log = FailureLog(tmp_path)
    log.write(FAILURE)
    expected = {
        "query_id": None,
        "cause": "content-refused",
        "message": "the API refused it",
        "attempts": 2,
        "file": "in.jsonl",
        "line": 7,
    }
    seen = orjson.loads((tmp_path / "failed.partial.jsonl").read_bytes().replace(rb'"q\ud8001"', b"null"))
    assert seen == expected
    assert path.read_text() == "of the run before"
    log.close()
    assert [p.name for p in tmp_path.iterdir()] == ["failed.jsonl"]
    assert path.read_bytes().count(b"\n") == log.count == 1


def test_no_failure_is_an_empty_file(tmp_path: Path) -> None:
    """The dead letters of an earlier run never outlive a good one."""
    (tmp_path / "failed.jsonl").write_text("of the run before")
    FailureLog(tmp_path).close()
    assert (tmp_path / "failed.jsonl").read_bytes() == b""


def test_the_summary_is_whole_sorted_and_strict_json(tmp_path: Path) -> None:
    """Keys are sorted, NaN is null, numpy numbers are numbers, and no temporary file is left."""
    path = tmp_path / "summary.json"
    write_summary(path, {"b": float("nan"), "a": np.int64(3), "c": {"y": 1, "x": "ü"}})
    assert path.read_text("utf-8") == (
        '{\n  "a": 3,\n  "b": null,\n  "c": {\n    "x": "ü",\n    "y": 1\n  }\n}\n'
    )
    with pytest.raises(TypeError):
        write_summary(path, {"a": object()})
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]
