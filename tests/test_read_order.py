"""Pairs that don't come grouped by query: never ranked in part, grouped on disk where the job says so."""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from field_data import PAIRS, QUERIES
from jobs import failed, make_job, rankings, run
from typer.testing import CliRunner

from batchrank.cli.app import app
from batchrank.data import Query
from batchrank.errors import InputError, MissingExtraError, UnsortedError
from batchrank.job.load import load_job
from batchrank.job.sections import Input
from batchrank.outcomes import Failure
from batchrank.read import groups as order
from batchrank.read.reader import read

MIXED = random.Random(7).sample(PAIRS, len(PAIRS))
ORDER = list(dict.fromkeys(str(row["query_id"]) for row in MIXED))


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def _json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2))


def _parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=20)


def _arrow(path: Path, rows: list[dict[str, Any]]) -> None:
    """Ids are dictionaries, as data frames of categories have them."""
    table = pa.Table.from_pylist(rows)
    table = table.set_column(0, "query_id", table["query_id"].dictionary_encode())
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table, max_chunksize=20)


def _csv(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), path)


def _tsv(path: Path, rows: list[dict[str, Any]]) -> None:
    options = pyarrow.csv.WriteOptions(delimiter="\t")
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), path, options)


WRITERS: list[Callable[[Path, list[dict[str, Any]]], None]] = [_jsonl, _json, _parquet, _arrow, _csv, _tsv]


def got(path: Path, **keys: Any) -> list[Query | Failure]:
    return list(read(Input.model_validate({"path": str(path), **keys})))


def values(found: list[Query | Failure]) -> dict[str, Any]:
    assert all(isinstance(query, Query) for query in found), found
    return {q.id: (q.text, list(q.doc_ids), list(q.documents)) for q in found if isinstance(q, Query)}


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__.strip("_"))
def test_unsorted_pairs_stop_before_the_first_query_or_are_sorted(tmp_path: Path, write: Any) -> None:
    """The message names both places and the key; with the key the queries are those of sorted pairs."""
    path, ordered = (tmp_path / f"{name}.{write.__name__.strip('_')}" for name in ("mixed", "sorted"))
    write(path, MIXED), write(ordered, PAIRS)
    reading = read(Input(path=(str(path),)))
    with pytest.raises(UnsortedError, match=r"was already used at .*; set input\.sort: true") as error:
        next(reading)
    assert error.value.exit_code == 4
    found = values(got(path, sort=True))
    assert found == values(got(ordered)) == values(got(ordered, sort=True))
    assert list(found) == ORDER


def test_pairs_of_one_query_keep_their_order(tmp_path: Path) -> None:
    """Without scores the order given is the first stage's, from one file to the next."""
    rows = [{"query_id": f"q{i % 3}", "query": "x", "doc_id": f"d{i}", "text": "a"} for i in range(3000)]
    _parquet(tmp_path / "1.parquet", rows[:1700])
    _jsonl(tmp_path / "2.jsonl", rows[1700:])
    found = values(got(tmp_path, sort=True))
    assert {q: ids for q, (_, ids, _) in found.items()} == {
        f"q{k}": [f"d{i}" for i in range(k, 3000, 3)] for k in range(3)
    }


@pytest.mark.parametrize(
    "write", [_jsonl, _parquet, _arrow, _csv], ids=lambda write: write.__name__.strip("_")
)
def test_pairs_that_stand_apart_further_on_stop_the_run(tmp_path: Path, write: Any) -> None:
    """What the first rows don't tell is found when it comes: an error, not a query in two parts."""
    path = tmp_path / f"x.{write.__name__.strip('_')}"
    write(path, [*PAIRS, PAIRS[0] | {"doc_id": "late"}])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "ROWS", 50)
        reading = read(Input(path=(str(path),)))
        assert isinstance(next(reading), Query)
        with pytest.raises(UnsortedError, match=r"set input\.sort"):
            list(reading)


@pytest.mark.anyio
async def test_nothing_is_sent_or_published_for_unsorted_pairs(tmp_path: Path) -> None:
    """The run ends as one whose input is unusable, before the first request."""
    _jsonl(tmp_path / "x.jsonl", MIXED)
    report = await run(make_job(tmp_path, tmp_path / "x.jsonl"))
    assert (report.exit_code, report.data["process"]["requests"]) == (4, 0)
    assert not list((tmp_path / "out").glob("ranking-*"))


@pytest.mark.anyio
async def test_what_was_ranked_of_unsorted_pairs_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pairs stand apart further on than is looked, a query was ranked without some of its documents."""
    monkeypatch.setattr(order, "ROWS", 50)
    pairs = [
        {"query_id": f"q{q}", "query": "copy a tree", "doc_id": f"d{d}", "text": f"copy {d}"}
        for q in range(2000)
        for d in range(2)
    ]
    _jsonl(tmp_path / "x.jsonl", [*pairs, pairs[0] | {"doc_id": "late"}])
    report = await run(make_job(tmp_path, tmp_path / "x.jsonl"), part_documents=500)
    assert report.exit_code == 4
    assert report.data["totals"]["queries"] > 0 and report.data["parts"] == {}
    assert not list((tmp_path / "out").glob("ranking-*"))


@pytest.mark.anyio
async def test_sorted_pairs_are_ranked_as_lists_are(tmp_path: Path) -> None:
    """A job with ``input.sort`` ranks what a job of one record a query ranks."""
    _csv(tmp_path / "x.csv", MIXED)
    _jsonl(tmp_path / "lists.jsonl", QUERIES)
    job = make_job(tmp_path, tmp_path / "x.csv", input={"path": str(tmp_path / "x.csv"), "sort": True})
    plain = make_job(tmp_path, tmp_path / "lists.jsonl", out="plain")
    assert ((await run(job)).exit_code, (await run(plain)).exit_code) == (0, 0)
    assert failed(job) == []
    orders = [{r["query_id"]: [e["doc_id"] for e in r["ranking"]] for r in rankings(j)} for j in (job, plain)]
    assert orders[0] == orders[1]


def test_whole_records_and_bad_ones_pass_through_sorting(tmp_path: Path) -> None:
    """Each bad record is told once; a list is a query of its own, and the same id twice stays a fault."""
    _jsonl(tmp_path / "x.jsonl", [*QUERIES[:2], QUERIES[0], PAIRS[-1] | {"query_id": None}, PAIRS[-1]])
    found = got(tmp_path / "x.jsonl", sort=True)
    assert [f.cause for f in found if isinstance(f, Failure)] == ["no-query-id", "duplicate-query"]
    assert [q.id for q in found if isinstance(q, Query)] == ["q0", "q1", "q4"]


def test_a_cut_file_is_not_sorted(tmp_path: Path) -> None:
    """Any query might lack what stood past the cut."""
    _json(tmp_path / "x.json", MIXED)
    path = tmp_path / "x.json"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match="may be missing there"):
        got(path, sort=True)


def test_a_file_that_can_not_be_decoded_is_not_sorted_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is one that can't be opened: any query might have pairs there."""
    _parquet(tmp_path / "a.parquet", MIXED[:60])
    _parquet(tmp_path / "b.parquet", MIXED[60:])

    errors = {
        "no decoder": pa.ArrowNotImplementedError("no codec"),
        "can't be opened": PermissionError(13, "no"),
    }
    for why, error in errors.items():

        def failing(*args: Any, wrong: Exception = error, **keys: Any) -> Any:
            raise wrong

        monkeypatch.setattr("batchrank.read.parquet.Opened.pieces", failing)
        with pytest.raises(InputError, match=f"{why}.*documents of any query may be missing there"):
            got(tmp_path, sort=True)


def test_a_corrupt_page_is_the_readers_to_tell(tmp_path: Path) -> None:
    """Looking ahead doesn't end the run where reading would go on."""
    path = tmp_path / "x.parquet"
    rows = [{"query_id": f"q{i:05}", "query": "x", "doc_id": "d", "text": f"{i * 7919}"} for i in range(3000)]
    pq.write_table(
        pa.Table.from_pylist(rows), path, row_group_size=1000, write_page_checksum=True, use_dictionary=False
    )
    chunk = pq.ParquetFile(path).metadata.row_group(2).column(0)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(data)
    found = got(path)
    assert sum(isinstance(item, Query) for item in found) >= 1999
    assert {f.cause for f in found if isinstance(f, Failure)} == {"truncated-file"}


def test_without_duckdb_the_install_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorting needs the extra, and says so."""
    _jsonl(tmp_path / "x.jsonl", MIXED)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtraError, match=r"to sort pairs.*pip install 'batchrank\[corpus\]'"):
        got(tmp_path / "x.jsonl", sort=True)


def test_init_proposes_to_sort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job that it writes runs as it is; ``check`` of one without the key names it."""
    monkeypatch.chdir(tmp_path)
    _parquet(tmp_path / "x.parquet", MIXED)
    result = CliRunner().invoke(app, ["init", "x.parquet"])
    assert result.exit_code == 0, result.output
    assert "pairs are not grouped by query" in result.output
    job = load_job(tmp_path / "job.yaml", environ={})
    assert job.input is not None
    assert job.input.sort
    found = CliRunner().invoke(app, ["check", "job.yaml", "--set", "input.sort=false"])
    assert (found.exit_code, "set input.sort: true" in found.output) == (4, True)
