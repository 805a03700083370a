"""Folders and patterns: what is read, what isn't, and that either is told."""

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from field_data import PAIRS, QUERIES, corpus, jsonl, lines, parquet, queries
from jobs import make_job, run
from typer.testing import CliRunner

from batchrank.cli.app import app
from batchrank.data import Query
from batchrank.errors import InputError
from batchrank.job.sections import Input
from batchrank.outcomes import Failure
from batchrank.read.layout import notes
from batchrank.read.reader import read


def ids(path: Path | str, **keys: Any) -> list[str]:
    found = list(read(Input.model_validate({"path": str(path), **keys})))
    assert all(isinstance(query, Query) for query in found), found
    return [query.id for query in found if isinstance(query, Query)]


def told(path: Path | str, **keys: Any) -> str:
    return "\n".join(notes(Input.model_validate({"path": str(path), **keys})))


def spark(folder: Path) -> Path:
    """What a write of Spark leaves: two parts, a marker, checksums, and the start of a third part."""
    parquet(folder / "part-00000.parquet", QUERIES[:2])
    parquet(folder / "part-00001.parquet", QUERIES[2:4])
    parquet(folder / "_temporary/0/_temporary/attempt_1/part-00002.parquet", QUERIES[4:])
    (folder / "_SUCCESS").touch()
    (folder / ".part-00000.parquet.crc").write_bytes(b"crc")
    return folder


@pytest.mark.parametrize("pattern", ["", "*.parquet", "**/*.parquet", "**"])
def test_unfinished_writes_are_never_read(tmp_path: Path, pattern: str) -> None:
    """By a folder's name or by any pattern; that they are there is told, markers and checksums are not."""
    folder = spark(tmp_path / "out")
    assert ids(folder / pattern) == ["q0", "q1", "q2", "q3"]
    if pattern != "*.parquet":
        assert "2 files were read; not read: " in told(folder / pattern)
        assert "_temporary" in told(folder / pattern)
    assert "SUCCESS" not in told(folder / pattern)
    assert "crc" not in told(folder / pattern)


def test_what_no_reader_takes_is_told_with_why(tmp_path: Path) -> None:
    """Hidden files, other suffixes, files of columns beside records, folders within: each has its reason."""
    parquet(tmp_path / "a.parquet", QUERIES[:1])
    for name in ("_b.parquet", "README.md", "data.csv", "more/c.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert ids(tmp_path) == ["q0"]
    note = told(tmp_path)
    for name, why in {
        "_b.parquet": "its name begins with _",
        "README.md": "its suffix tells no format",
        "data.csv": "text files of columns are read only where there are no other data files",
        "more": "a folder; name it",
    }.items():
        assert f"{tmp_path / name} ({why}" in note
    assert f"data.csv ({'input.format is parquet'})" in told(tmp_path, format="parquet")
    assert told(tmp_path / "a.parquet") == ""


@pytest.mark.anyio
async def test_a_run_tells_it(tmp_path: Path) -> None:
    """The notice is in the summary."""
    jsonl(tmp_path / "in/a.jsonl", QUERIES)
    (tmp_path / "in/b.txt").write_text("x")
    report = await run(make_job(tmp_path, tmp_path / "in"))
    assert any("1 file was read; not read: " in notice for notice in report.data["notices"])


def test_check_and_init_tell_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is paid for."""
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "in/a.jsonl", QUERIES)
    (tmp_path / "in/b.txt").write_text("x")
    make_job(tmp_path, tmp_path / "in")
    for command in (["init", "in"], ["check", "out.yaml"]):
        assert "in/b.txt (its suffix tells no format" in CliRunner().invoke(app, command).output


def delta(folder: Path) -> Path:
    """An overwritten Delta table: the log says that the first file's rows are gone."""
    log = folder / "_delta_log"
    parquet(folder / "part-0.parquet", QUERIES[:2])
    parquet(folder / "part-1.parquet", QUERIES[2:])
    jsonl(log / "00000000000000000000.json", [{"add": {"path": "part-0.parquet"}}])
    jsonl(log / "00000000000000000001.json", [{"remove": {"path": "part-0.parquet"}}])
    return folder


def iceberg(folder: Path) -> Path:
    parquet(folder / "data/part-0.parquet", QUERIES[:2])
    jsonl(folder / "metadata/v1.metadata.json", [{}])
    return folder


def hudi(folder: Path) -> Path:
    parquet(folder / "lang=en/part-0.parquet", QUERIES[:2])
    jsonl(folder / ".hoodie/hoodie.json", [{}])
    return folder


@pytest.mark.parametrize(
    ("make", "name", "remedy"),
    [(delta, "Delta", "delta_scan"), (iceberg, "Iceberg", "iceberg_scan"), (hudi, "Hudi", "format..hudi")],
)
def test_a_table_is_refused_with_the_way_to_read_it(
    tmp_path: Path, make: Any, name: str, remedy: str
) -> None:
    """Its files hold rows that are gone; by its name, a partition's or a pattern; one file alone is told."""
    folder = make(tmp_path / "table")
    (file, *_) = sorted(folder.glob("**/part-0.parquet"))
    for path in (folder, file.parent, file.parent / "*.parquet", folder / "**/*.parquet", tmp_path / "*"):
        with pytest.raises(InputError, match=f"{folder} is a table of {name}: .*{remedy}"):
            ids(path)
    assert ids(file) == ["q0", "q1"]
    assert f"is a file of the table {folder}" in told(file)


def hive(folder: Path, format: str, rows: list[dict[str, Any]], key: str) -> Path:
    """As pyarrow writes a partitioned dataset: no file holds the key."""
    pa.dataset.write_dataset(
        pa.Table.from_pylist(rows), folder, format=format,
        partitioning=pa.dataset.partitioning(pa.schema([(key, pa.string())]), flavor="hive"),
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("format", ["parquet", "feather"])
def test_folders_named_key_value_are_columns(tmp_path: Path, format: str) -> None:
    """Their files are read, and the values decoded: of pairs, of runs by id, and of corpora."""
    rows = [{**row, "query_id": f"a/b {row['query_id']}"} for row in PAIRS]
    hive(tmp_path / "set", format, rows, "query_id")
    assert not any(
        "query_id" in pa.dataset.dataset(f, format=format).schema.names
        for f in (tmp_path / "set").glob("*/*")
    )
    expected = [f"a/b q{i}" for i in range(5)]
    assert ids(tmp_path / "set") == ids(tmp_path / f"set/*/*.{format}") == expected
    assert told(tmp_path / "set") == ""
    hive(
        tmp_path / "run",
        format,
        [{k: row[k] for k in ("query_id", "doc_id", "score")} for row in PAIRS],
        "query_id",
    )
    texts = [
        {"doc_id": row["doc_id"], "title": f"of {row['query_id']}", "text": row["text"]} for row in PAIRS
    ]
    hive(tmp_path / "corpus", format, texts, "title")
    found = list(read(Input.model_validate({
        "path": str(tmp_path / "run"), "corpus": str(tmp_path / "corpus"),
        "queries": str(jsonl(tmp_path / "queries.jsonl", queries())),
    })))  # fmt: skip
    assert [(q.id, q.documents[0]) for q in found if isinstance(q, Query)] == [
        (q["query_id"], f"of {q['query_id']}\n{q['candidates'][0]['text']}") for q in QUERIES
    ]


def test_a_row_too_large_for_a_piece_is_of_its_folder_s_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It isn't decoded, and its query is named all the same."""
    monkeypatch.setattr("batchrank.read.pieces.ROW_BYTES", 1000)
    rows = [
        {"query_id": f"q{i}", "query": "x", "doc_id": "d", "text": "w" * size}
        for i, size in enumerate((9, 2000))
    ]
    table = pa.Table.from_pylist(rows)
    for i in range(2):
        part = table.slice(i, 1).drop_columns("query_id")
        part = part.set_column(2, "text", part["text"].cast(pa.string_view()))
        (tmp_path / f"query_id=q{i}").mkdir()
        pq.write_table(part, tmp_path / f"query_id=q{i}/x.parquet")
    first, failure = read(Input(path=(str(tmp_path),)))
    assert isinstance(first, Query) and isinstance(failure, Failure)
    assert (first.id, failure.query_id, failure.cause) == ("q0", "q1", "row-too-large")


def test_a_saved_dataset_s_own_lists_are_no_data(tmp_path: Path) -> None:
    """Nothing is said of what stands beside its shards."""
    import datasets

    datasets.Dataset.from_list(QUERIES).save_to_disk(tmp_path / "set", num_shards=2)
    assert ids(tmp_path / "set") == [q["query_id"] for q in QUERIES]
    assert told(tmp_path / "set") == ""


def test_partitions_of_any_format_are_columns(tmp_path: Path) -> None:
    """Of JSON lines, CSV and of runs by id, too; a column of the file itself counts more."""
    for number, query in enumerate(QUERIES):
        mine = [row for row in PAIRS if row["query_id"] == query["query_id"]]
        part = f"qid={query['query_id']}/part"
        bare = [{k: v for k, v in row.items() if k != "query_id"} for row in mine]
        jsonl(tmp_path / f"jsonl/{part}.jsonl", bare)
        table = [list(bare[0]), *(list(row.values()) for row in bare)]
        lines(tmp_path / f"csv/{part}.csv", table, ",")
        lines(
            tmp_path / f"run/{part}.csv",
            [("doc_id", "score"), *((r["doc_id"], r["score"]) for r in mine)],
            ",",
        )
        own = [{"qid": "own" if number else query["query_id"], **row} for row in bare]
        jsonl(tmp_path / f"own/{part}.jsonl", own if number == 0 else [])
    expected = [q["query_id"] for q in QUERIES]
    assert ids(tmp_path / "jsonl") == ids(tmp_path / "csv") == expected
    assert ids(tmp_path / "own") == expected[:1]
    texts, asked = jsonl(tmp_path / "corpus.jsonl", corpus()), jsonl(tmp_path / "queries.jsonl", queries())
    assert ids(tmp_path / "run", corpus=str(texts), queries=str(asked)) == expected


def test_a_folder_of_nothing_but_the_unfinished_says_so(tmp_path: Path) -> None:
    """The error names what there is all the same."""
    parquet(tmp_path / "_temporary/0/part.parquet", QUERIES)
    with pytest.raises(
        InputError, match=r"no data file in it .*_temporary is not read \(Spark was still writing here"
    ):
        ids(tmp_path)
    with pytest.raises(
        InputError, match=r"no file matches .*_temporary is not read \(its name begins with _"
    ):
        ids(tmp_path / "**/*.parquet")


def test_a_pattern_that_says_so_reads_hidden_names(tmp_path: Path) -> None:
    """Who writes the underscore means it."""
    (tmp_path / "_kept").mkdir()
    (tmp_path / "_kept/x.jsonl").write_bytes(b"".join(orjson.dumps(q) + b"\n" for q in QUERIES))
    assert ids(tmp_path / "_kept/*.jsonl") == [q["query_id"] for q in QUERIES]
