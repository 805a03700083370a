"""output.texts writes texts beside ids: as the input had them, whoever writes, and however often it was interrupted."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from against import same, world
from jobs import make_job, outputs, rankings, rows, run, write_jsonl
from stores import Bucket, served
from test_cli import batchrank

from batchrank.data import Image, Query
from batchrank.errors import JobError
from batchrank.job.config import Job
from batchrank.launch import make_run
from batchrank.look.view import Views
from batchrank.outcomes import Merged, QueryCost, Ranking
from batchrank.write import rows as written_rows
from batchrank.write.rows import ParquetWriter

pytestmark = pytest.mark.anyio
HELD: dict[str, Any] = {"texts": True}


def texts_of(data: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    return {(row["query_id"], one["id"]): one["text"] for row in data for one in row["candidates"]}


async def test_parquet_holds_texts_beside_ids(tmp_path: Path) -> None:
    """Read by DuckDB: a column beside the id, and each query's text once, in queries-*."""
    data = rows(4, 24)
    data[1]["candidates"][3]["text"] = "naïve — 文档"
    data[2]["candidates"][5]["text"] = ""
    given = write_jsonl(tmp_path / "in.jsonl", data)
    job = make_job(tmp_path, given, output={"format": "parquet", "part_documents": 48, **HELD})
    await run(job)
    folder = tmp_path / "out"
    with duckdb.connect() as db:
        found = db.execute(f"SELECT query_id, doc_id, text FROM '{folder}/ranking-*.parquet'").fetchall()
        queries = db.execute(
            f"SELECT query_id, query FROM '{folder}/queries-*.parquet' ORDER BY 1"
        ).fetchall()
    assert {(query, doc): text for query, doc, text in found} == texts_of(data)
    assert queries == [(row["query_id"], row["query"]) for row in data]
    assert pq.read_schema(folder / "ranking-00000.parquet").names[-1] == "text"


async def test_json_lines_hold_texts_likewise(tmp_path: Path) -> None:
    """The query's text stands once in its line; without the key the lines are what they were."""
    data = rows(3, 24)
    given = write_jsonl(tmp_path / "in.jsonl", data)
    job, plain = make_job(tmp_path, given, output=HELD), make_job(tmp_path, given, out="plain")
    await run(job)
    await run(plain)
    known = texts_of(data)
    for row, bare, source in zip(rankings(job), rankings(plain), data, strict=True):
        assert list(row) == ["query_id", "query", "ranking", "merge"] and row.pop("query") == source["query"]
        assert [one.pop("text") for one in row["ranking"]] == [
            known[row["query_id"], one["doc_id"]] for one in bare["ranking"]
        ]
        assert row == bare


def test_standard_output_has_them_too(tmp_path: Path) -> None:
    """The same line as in a file."""
    data = rows(2, 8)
    make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", data), output=HELD)
    done = batchrank("run", "out.yaml", "--set", "output.path=-", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert [row["query"] for row in found] == [row["query"] for row in data]
    known = texts_of(data)
    assert all(
        one["text"] == known[row["query_id"], one["doc_id"]] for row in found for one in row["ranking"]
    )


@pytest.mark.parametrize("format", ["trec", "msmarco", "mteb"])
def test_a_format_without_a_place_for_texts_refuses(tmp_path: Path, format: str) -> None:
    """When the job is loaded, and says what to do."""
    with pytest.raises(JobError, match=rf"output: a {format} file holds .* no texts; remove output\.texts"):
        make_job(tmp_path, tmp_path / "in.jsonl", output={"format": format, **HELD})


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
async def test_texts_are_as_the_input_had_them(tmp_path: Path, format: str) -> None:
    """Whole where requests hold them cut, or in passages; a joined corpus' as it has them, with its titles."""
    data = rows(2, 24)
    for row in data:
        for one in row["candidates"]:
            one["text"] = " ".join([one["text"]] * 6)
    given = write_jsonl(tmp_path / "in.jsonl", data)
    output = {"format": format, **HELD}
    cut = make_job(tmp_path, given, out="cut", output=output, limits={"item_characters": 40})
    split = {"item_tokens": 60, "long_documents": "split", "passage_overlap": 5}
    passages = make_job(tmp_path, given, out="split", output=output, limits=split, tokenizer="qwen")
    known = texts_of(data)
    corpus = [{"_id": doc, "title": "T", "text": text} for (_, doc), text in known.items()]
    ids = [
        {"query_id": row["query_id"], "query": row["query"], "candidate_ids": [one["id"] for one in row["candidates"]]}
        for row in data
    ]  # fmt: skip
    path = write_jsonl(tmp_path / "ids.jsonl", ids)
    joined = {"path": str(path), "corpus": str(write_jsonl(tmp_path / "corpus.jsonl", corpus))}
    by_id = make_job(tmp_path, path, out="joined", output=output, input=joined)
    for job in (cut, passages, by_id):
        assert (await run(job)).exit_code == 0
        for row in data:
            view = Views(tmp_path / str(job.name)).one(row["query_id"])
            title = "T " if job is by_id else ""
            assert {d.doc_id: " ".join((d.text or "").split()) for d in view.documents} == {
                doc: title + text for (query, doc), text in known.items() if query == row["query_id"]
            }
    assert (tmp_path / "cut" / "summary.json").exists()
    assert orjson.loads((tmp_path / "cut" / "summary.json").read_bytes())["totals"]["truncated"]


async def test_an_image_has_no_text(tmp_path: Path) -> None:
    """Null, also where it could not be read; texts among images are there."""
    data = [
        {"query_id": "q", "query": "boats", "candidates": [
            {"id": "a", "image": "https://example.com/boat.jpg"}, {"id": "b", "text": "a boat"},
            {"id": "c", "image": "data:image/png;base64,broken"},
        ]}
    ]  # fmt: skip
    given = write_jsonl(tmp_path / "in.jsonl", data)
    job = make_job(tmp_path, given, model="qwen3-vl-rerank", output={"format": "parquet", **HELD})
    await run(job)
    table = pq.read_table(tmp_path / "out" / "ranking-00000.parquet", columns=["doc_id", "text"])
    assert dict(zip(*table.to_pydict().values(), strict=True)) == {"a": None, "b": "a boat", "c": None}


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
async def test_the_bytes_are_the_same_however_often_it_was_cut_off(tmp_path: Path, format: str) -> None:
    """Stopped, gone on with, and written by one run: alike; without texts it is another output, and made anew."""
    stops = dict.fromkeys(range(9, 90, 16), "400-arrearage")
    async with world(tmp_path, queries=6, script=stops, sections={"output": {"format": format, **HELD}}) as w:
        job, other = w.job(), w.job("other")
        for one in (job, other):
            while (await w.run(one, part_documents=60)).exit_code:
                assert w.emulator.requests < 400
        if format == "jsonl":
            assert same(job, other)
        else:
            tables = [
                [pq.read_table(path) for path in sorted((tmp_path / out).glob("ranking-*.parquet"))]
                for out in ("out", "other")
            ]
            assert tables[0] == tables[1] and len(tables[0]) > 2
        bare = w.job(output={"texts": False})
        assert "the job (output.texts)" in " ".join((await w.run(bare)).data["notices"])


@pytest.mark.slow
@pytest.mark.real_clock
async def test_several_processes_write_the_same_bytes(tmp_path: Path) -> None:
    """Texts go from the process that reads, by way of the one that ranks, into its part."""
    unlimited: dict[str, Any] = {"rpm": float("inf"), "tpm": float("inf"), "latency": 0.002}
    sections = {"output": {"format": "parquet", "part_documents": 150, **HELD}}
    async with world(tmp_path, queries=20, sections=sections, **unlimited) as w:
        one, several = w.job("one"), w.job("several", engine={"processes": 2})
        for job in (one, several):
            assert (await make_run(job).execute()).exit_code == 0
        assert outputs(one) == outputs(several) and len(outputs(one)) > 4


@pytest.fixture(scope="module")
def host() -> Iterator[tuple[str, int]]:
    with served() as at:
        yield at


async def test_a_store_gets_the_same_files(tmp_path: Path, host: tuple[str, int]) -> None:
    """By boto3, which batchrank does not use."""
    bucket = Bucket(*host, "texts")
    given = write_jsonl(tmp_path / "in.jsonl", rows(3, 24))
    here = make_job(tmp_path, given, out="here", output={"format": "parquet", **HELD})
    there = make_job(
        tmp_path, given, out="there", output={"format": "parquet", "path": bucket.address("there"), **HELD}
    )
    for job in (here, there):
        await run(job)
    for name, data in outputs(here).items():
        assert bucket.client.get_object(Bucket="texts", Key=f"there/{name}")["Body"].read() == data


def ranking(number: int, documents: list[Any]) -> Ranking:
    ids = [f"d{number}-{place}" for place in range(len(documents))]
    query = Query(f"q{number}", "asked", ids, documents)
    scores = np.linspace(1, 0, len(ids))
    merged = Merged(np.arange(len(ids)), scores, scores, 1, "single")
    return Ranking.of(query, merged, QueryCost(1, 1, 1, 1, None), texts=True)


def test_few_texts_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row group ends by its characters as well as by its rows, so long texts take no more memory than short ones."""
    monkeypatch.setattr(written_rows, "_GROUP_CHARACTERS", 1_000)
    paths = [tmp_path / name for name in ("ranking", "queries")]
    files = tuple(path.open("wb") for path in paths)
    writer = ParquetWriter(files, texts=True)
    for number in range(40):
        writer.add(ranking(number, ["x" * 99, Image("https://x/y.png"), "\ud800 alone"]))
        assert len(writer._held) < 12
    writer.finish()
    for file in files:
        file.close()
    assert pq.ParquetFile(paths[0]).num_row_groups >= 4
    assert pq.read_table(paths[0])["text"].to_pylist()[:3] == ["x" * 99, None, "? alone"]


@pytest.mark.parametrize("format", ["jsonl", "parquet", "rank_llm"])
async def test_view_shows_the_output_s_texts_where_the_input_is_gone(tmp_path: Path, format: str) -> None:
    """No job, no input: the folder alone."""
    data = rows(3, 24)
    (tmp_path / "a").mkdir()
    output = {"format": format, **(HELD if format != "rank_llm" else {})}
    job = make_job(tmp_path / "a", write_jsonl(tmp_path / "a" / "in.jsonl", data), output=output)
    await run(job)
    shutil.copytree(tmp_path / "a" / "out", tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    views = Views(tmp_path / "b")
    known = texts_of(data)
    for view, row in zip(views.first(3), data, strict=True):
        assert view.query_id == row["query_id"] and view.query == row["query"]
        assert all(d.text == known[view.query_id, d.doc_id] for d in view.documents)
    if format != "rank_llm":  # which doesn't tell the first stage's ranks
        assert views.notes == []


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
async def test_another_job_reranks_what_was_written(tmp_path: Path, format: str) -> None:
    """An output with texts is an input as it is: JSON lines alone, Parquet also as its own corpus and queries."""
    given = write_jsonl(tmp_path / "in.jsonl", rows(3, 24))
    first = make_job(tmp_path, given, out="first", output={"format": format, "top_n": 5, **HELD})
    await run(first)
    source: dict[str, Any] = {"path": str(tmp_path / "first" / f"ranking-*.{format}")}
    if format == "parquet":
        source |= {"corpus": source["path"], "queries": str(tmp_path / "first" / "queries-*.parquet")}
    else:
        source["columns"] = {"candidates": "ranking"}
    second: Job = make_job(tmp_path, given, out="second", input=source)
    done = await run(second)
    assert done.exit_code == 0, done.reason
    assert [len(row["ranking"]) for row in rankings(second)] == [5, 5, 5]
