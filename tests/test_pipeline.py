"""Whole jobs on the embedded emulator: what goes in, what comes out."""

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs import failed, make_job, outputs, rankings, rows, run, write_jsonl

from batchrank.emulator.relevance import relevance

pytestmark = pytest.mark.anyio


def pairs(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "query_id": row["query_id"],
            "query": row["query"],
            "doc_id": candidate["id"],
            "text": candidate["text"],
            "score": candidate["score"],
        }
        for row in data
        for candidate in row["candidates"]
    ]


async def test_every_query_is_ranked_once_and_in_order(tmp_path: Path) -> None:
    """Exactly once per query, in input order, every document once, scores never contradicting ranks."""
    data = rows(12, 34)
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", data))
    report = await run(job)
    found = rankings(job)
    assert report.exit_code == 0
    assert [row["query_id"] for row in found] == [row["query_id"] for row in data]
    for row, given in zip(found, data, strict=True):
        ranking = row["ranking"]
        assert sorted(e["doc_id"] for e in ranking) == sorted(c["id"] for c in given["candidates"])
        assert [e["rank"] for e in ranking] == list(range(1, 35))
        scores = [e["score"] for e in ranking]
        assert scores == sorted(scores, reverse=True)


async def test_the_top_is_the_apis_own_order(tmp_path: Path) -> None:
    """Lists of four requests are ranked as one request would have ranked them, to top_k, and certified so."""
    data = rows(6, 34)
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", data))
    report = await run(job)
    for row, given in zip(rankings(job), data, strict=True):
        texts = {c["id"]: c["text"] for c in given["candidates"]}
        true = sorted(texts, key=lambda i: -relevance(given["query"], texts[i]))
        assert [e["doc_id"] for e in row["ranking"][:5]] == true[:5]
        assert all(e["certified"] for e in row["ranking"][:5])
    assert report.data["totals"]["certified"] == 6


async def test_all_shapes_give_identical_rankings(tmp_path: Path) -> None:
    """Parquet and JSONL, a query a row and a pair a row: the same bytes come out."""
    data = rows(5, 23)
    flat = pairs(data)
    files = [
        write_jsonl(tmp_path / "queries.jsonl", data),
        write_jsonl(tmp_path / "pairs.jsonl", flat),
        tmp_path / "queries.parquet",
        tmp_path / "pairs.parquet",
    ]
    pq.write_table(pa.Table.from_pylist(data), files[2], row_group_size=2)
    pq.write_table(pa.Table.from_pylist(flat), files[3], row_group_size=7)
    results = []
    for number, file in enumerate(files):
        job = make_job(tmp_path, file, out=f"out{number}", output={"format": "parquet"})
        assert (await run(job)).exit_code == 0
        results.append(outputs(job))
    assert set(results[0]) == {"ranking-00000.parquet", "queries-00000.parquet"}
    assert all(result == results[0] for result in results)


BAD = {
    "broken-json": b'{"query_id": "x", "query": ',
    "invalid-utf8": b'{"query_id": "x", "query": "\xff"}',
    "null-query": {"query_id": "x", "query": None, "candidates": ["a"]},
    "empty-query": {"query_id": "x", "query": " ", "candidates": ["a"]},
    "no-candidates": {"query_id": "x", "query": "y", "candidates": []},
    "duplicate-query": {"query_id": "q0", "query": "y", "candidates": ["a"]},
    "duplicate-document": {"query_id": "x", "query": "y", "candidates": [{"id": "a", "text": "b"}] * 2},
    "wrong-type": {"query_id": "x", "query": "y", "candidates": "a"},
    "line-too-long": b'{"query_id": "x", "query": "' + b"y" * (64 * 2**20) + b'", "candidates": ["a"]}',
    "all-documents-blank": {"query_id": "x", "query": "y", "candidates": ["", " "]},
}


@pytest.mark.parametrize("cause", BAD)
async def test_a_bad_record_is_told_and_the_rest_is_ranked(tmp_path: Path, cause: str) -> None:
    """It goes to failed.jsonl with file, line, cause and what to do; the run ends with exit code 3."""
    data = rows(3, 4)
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", [data[0], BAD[cause], data[1], data[2]]))
    report = await run(job)
    letters = failed(job)
    assert report.exit_code == 3
    assert [row["query_id"] for row in rankings(job)] == ["q0", "q1", "q2"]
    assert len(letters) == 1
    assert (letters[0]["file"], letters[0]["line"], letters[0]["cause"]) == (
        str(tmp_path / "in.jsonl"),
        2,
        cause,
    )
    assert report.data["totals"]["causes"] == {cause: 1}


@pytest.mark.parametrize("name", ["in.jsonl.gz", "in.jsonl.zst", "in.parquet"])
async def test_a_truncated_file_is_used_up_to_the_fault(tmp_path: Path, name: str) -> None:
    """What stands before the fault is ranked, the next file is read, and exit code 3 names the file."""
    import gzip
    import random

    import zstandard

    rng = random.Random(0)
    data = rows(40, 4)
    for row in data:  # incompressible, so that whole frames stand before the fault
        row["candidates"][0]["text"] += " " + rng.randbytes(4000).hex()
    write_jsonl(tmp_path / "plain.jsonl", data)
    raw = (tmp_path / "plain.jsonl").read_bytes()
    path = tmp_path / name
    if name.endswith("gz"):
        path.write_bytes(gzip.compress(raw))
    elif name.endswith("zst"):
        path.write_bytes(zstandard.ZstdCompressor().compress(raw))
    else:
        pq.write_table(pa.Table.from_pylist(data), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    other = write_jsonl(tmp_path / "z.jsonl", [{**rows(41, 4)[40]}])
    job = make_job(tmp_path, path, input={"path": [str(path), str(other)]})
    report = await run(job)
    found = [row["query_id"] for row in rankings(job)]
    assert report.exit_code == 3
    assert found[-1] == "q40"
    assert found[:-1] == [f"q{i}" for i in range(len(found) - 1)]
    assert len(found) > 10 or name == "in.parquet"  # Parquet's index is at its end
    assert [letter["cause"] for letter in failed(job)] == ["truncated-file"]
    assert name in failed(job)[0]["message"]


async def test_an_empty_document_is_never_sent_and_ranked_last(tmp_path: Path) -> None:
    """One blank document would sink its whole request."""
    data = rows(1, 25)
    data[0]["candidates"][3]["text"] = " \n"
    data[0]["candidates"][17]["text"] = None
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", data))
    assert (await run(job)).exit_code == 0
    ranking = rankings(job)[0]["ranking"]
    assert [e["doc_id"] for e in ranking[-2:]] == ["d0-3", "d0-17"]
    assert all(e["score"] is None and e["raw_score"] is None for e in ranking[-2:])
    assert all(e["score"] is not None for e in ranking[:-2])


async def test_a_document_too_large_for_any_request_fails_its_query_only(tmp_path: Path) -> None:
    """The message names the document, its size and the key to set."""
    data = rows(2, 3)
    data[0]["candidates"][1]["text"] = "x" * 5000
    limits = {"documents": 10, "request_tokens": 4000, "item_tokens": 4000}
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", data), limits=limits)
    report = await run(job)
    assert report.exit_code == 3
    assert [row["query_id"] for row in rankings(job)] == ["q1"]
    assert failed(job)[0]["cause"] == "too-large"
    assert "d0-1" in failed(job)[0]["message"]


@pytest.mark.parametrize("method", ["raw", "rrf", "hub", "full"])
async def test_every_merge_method_ranks(tmp_path: Path, method: str) -> None:
    """Each method is a name in the job file; the query's record says which one was used."""
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(3, 34)), merge={"method": method})
    report = await run(job)
    assert report.exit_code == 0
    assert {row["merge"]["method"] for row in rankings(job)} == {method}
    wrong = [notice for notice in report.data["notices"] if "WRONG" in notice]
    assert len(wrong) == (method == "raw")


async def test_standard_output_takes_json_lines(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """output.path "-": data on stdout, nothing else there; the ledger goes beside the job file."""
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(2, 3)), out="-", output={"path": "-"})
    report = await run(job)
    lines = capfdbinary.readouterr().out.splitlines()
    assert report.exit_code == 0
    assert [orjson.loads(line)["query_id"] for line in lines] == ["q0", "q1"]
    assert (tmp_path / "-.ledger.sqlite").exists()


async def test_limit_and_top_n(tmp_path: Path) -> None:
    """The first N queries, the first N documents of each."""
    data = write_jsonl(tmp_path / "in.jsonl", rows(5, 12))
    job = make_job(tmp_path, data, "input.limit=2", "output.top_n=3")
    await run(job)
    assert [len(row["ranking"]) for row in rankings(job)] == [3, 3]


async def test_the_summary_tells_what_happened_without_secrets(tmp_path: Path) -> None:
    """summary.json, written last: counts, tokens, cost, versions, hashes, the resolved job."""
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(4, 34)))
    report = await run(job)
    summary = orjson.loads((tmp_path / "out" / "summary.json").read_bytes())
    assert summary == orjson.loads(orjson.dumps(report.data))
    totals = summary["totals"]
    assert (totals["queries"], totals["documents"], totals["multi_chunk"]) == (4, 136, 4)
    assert totals["sent"] > totals["one_pass"] == 136
    assert summary["spend"]["tokens"] == totals["tokens"] > 0
    assert summary["job"]["model"] == "qwen3-rerank"
    assert set(summary["parts"]) == {"ranking-00000.jsonl"}
