"""What ``rerank`` may be given, and what it says of anything else: a file's checks, and errors that are bare."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from jobs import rows

import batchrank
from batchrank import (
    Candidate,
    Columns,
    Endpoint,
    Failure,
    InputError,
    Job,
    JobError,
    Limits,
    Query,
    QueryError,
)
from batchrank.errors import UnsortedError

pytestmark = pytest.mark.anyio
JOB = Job(
    model="qwen3-rerank", endpoint=Endpoint(url="emulator"), limits=Limits(documents=10), tokenizer="bytes"
)
TWO = [Candidate("a", "copy a file"), Candidate("b", "copy a tree")]


def pairs(queries: int = 3, candidates: int = 12) -> list[dict[str, Any]]:
    """One record a pair."""
    return [
        {
            "query_id": row["query_id"],
            "query": row["query"],
            "doc_id": c["id"],
            "text": c["text"],
            "score": c["score"],
        }
        for row in rows(queries, candidates)
        for c in row["candidates"]
    ]


def pandas_frame(records: list[dict[str, Any]]) -> Any:
    import pandas

    return pandas.DataFrame(records)


def polars_frame(records: list[dict[str, Any]]) -> Any:
    import polars

    return polars.DataFrame(records)


def dataset(records: list[dict[str, Any]]) -> Any:
    import datasets

    return datasets.Dataset.from_list(records)


def streamed(records: list[dict[str, Any]]) -> Any:
    return dataset(records).to_iterable_dataset()


def relation(records: list[dict[str, Any]]) -> Any:
    import duckdb

    table = pa.Table.from_pylist(records)
    return duckdb.from_arrow(table)


def reader(records: list[dict[str, Any]]) -> Any:
    table = pa.Table.from_pylist(records)
    return pa.RecordBatchReader.from_batches(table.schema, iter(table.to_batches(max_chunksize=5)))


async def several(records: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    for record in records:
        await asyncio.sleep(0.01)
        yield record


def proxies(records: list[dict[str, Any]]) -> Iterator[MappingProxyType[str, Any]]:
    return map(MappingProxyType, records)


def encoded(records: list[dict[str, Any]]) -> Any:
    """Columns as categories and runs."""
    table = pa.Table.from_pylist(records)
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    columns["query"] = pc.run_end_encode(columns["query"])
    return pa.table(columns | {"query_id": columns["query_id"].dictionary_encode()})


KINDS: list[Callable[[list[dict[str, Any]]], Any]] = [
    list, proxies, several, pa.Table.from_pylist, reader, pandas_frame, polars_frame, dataset, streamed, relation,
    encoded,
]  # fmt: skip


async def ranked(queries: Any, **keywords: Any) -> list[tuple[str, list[str]]]:
    return [(r.query_id, list(r.doc_ids)) async for r in batchrank.rerank(queries, JOB, **keywords)]


@pytest.mark.parametrize("shape", [rows, pairs], ids=["nested", "pairs"])
@pytest.mark.parametrize("kind", KINDS)
async def test_records_and_tables_are_ranked_as_queries_are(kind: Any, shape: Any) -> None:
    """Dicts, Arrow, pandas, Polars, Hugging Face, DuckDB; a query a row or a pair a row: the rankings are the same."""
    expected = await ranked(
        [Query.of(r["query_id"], r["query"], [Candidate(**c) for c in r["candidates"]]) for r in rows(3, 12)]
    )
    assert await ranked(kind(shape(3, 12))) == expected


async def test_a_pair_is_continued_across_batches_and_a_query_waits_for_no_other() -> None:
    """Rows of one query in several record batches are one query; a record that is whole is ranked at once."""
    table = pa.Table.from_pylist(pairs(2, 9))
    batches = pa.Table.from_batches(table.to_batches(max_chunksize=4))
    assert [len(ids) for _, ids in await ranked(batches)] == [9, 9]
    asked = asyncio.Event()

    async def some() -> AsyncIterator[dict[str, Any]]:
        yield rows(1, 3)[0]
        await asked.wait()

    async for ranking in batchrank.rerank(some(), JOB):
        assert ranking.query_id == "q0"
        asked.set()


async def test_columns_of_other_names_are_named() -> None:
    """As ``input.columns`` in a job; without them the message says which key to set, and an unknown one is told."""
    table = pa.table({"n": [1, 1], "ask": ["copy"] * 2, "key": ["a", "b"], "body": ["one text", "two"]})
    columns = {"query_id": "n", "query": "ask", "doc_id": "key", "text": "body"}
    assert [(q, sorted(ids)) for q, ids in await ranked(table, columns=columns)] == [("1", ["a", "b"])]
    assert len(await ranked(table, columns=Columns(**columns))) == 1
    job = Job.model_validate(JOB.model_dump() | {"input": {"path": ["unused"], "columns": columns}})
    assert [r.query_id async for r in batchrank.rerank(table, job)] == ["1"]
    with pytest.raises(InputError, match=r"<queries>: .*set columns\.query to its name"):
        await ranked(table)
    with pytest.raises(JobError, match="columns: querry: each key is one of query_id, query, "):
        await ranked(table, columns={"querry": "ask"})
    with pytest.raises(JobError, match="columns is a list; give a dict"):
        await ranked(table, columns=["ask"])


UNUSABLE: list[tuple[Any, str]] = [
    (Query.of("q", "text", []), "no-candidates"),
    (Query.of("q", None, TWO), "null-query"),  # type: ignore[arg-type]
    (Query.of("q", " ", TWO), "empty-query"),
    (Query.of("q", 7, TWO), "wrong-type"),  # type: ignore[arg-type]
    (Query.of("", "text", TWO), "no-query-id"),
    (Query.of(None, "text", TWO), "no-query-id"),  # type: ignore[arg-type]
    (Query.of("q", "text", [TWO[0], TWO[0]]), "duplicate-document"),
    (Query.of("q", "text", [Candidate("a", " ")]), "all-documents-blank"),
    (Query.of("q", "text", [Candidate("a", 3)]), "wrong-type"),  # type: ignore[arg-type]
    (Query.of("q", "text", [Candidate(3.5, "x")]), "wrong-type"),  # type: ignore[arg-type]
    (Query.of("q", "text", [Candidate("a", "x", float("inf"))]), "bad-score"),
    (Query.of("q", "text", [TWO[0], Candidate("", "x")]), "no-document-id"),
    ({"query_id": "q", "query": "text", "candidates": [{"id": "", "text": "x"}]}, "no-document-id"),
    (
        {"query_id": "q", "query": "text", "candidates": [{"id": "a", "text": "x", "score": float("inf")}]},
        "bad-score",
    ),
    (
        {"query_id": "q", "query": "text", "candidates": [{"id": "a", "text": "x", "score": 10**400}]},
        "bad-score",
    ),
    (Query("q", "text", ["a"], ["x", "y"]), "unequal-lists"),
    (Query("q", "text", ["a", "b"], ["x", "y"], np.array([1.0])), "unequal-lists"),
    ({"query_id": "q", "query": "text", "candidates": []}, "no-candidates"),
    ({"query_id": "q", "query": None, "candidates": ["x"]}, "null-query"),
    ({"query_id": None, "query": "text", "candidates": ["x"]}, "no-query-id"),
    ({"query_id": "q", "query": "text"}, "no-candidates"),
    ({}, "no-candidates"),
    (None, "wrong-type"),
    ("text", "wrong-type"),
    (["q", "text"], "wrong-type"),
]


@pytest.mark.parametrize(("given", "cause"), UNUSABLE)
async def test_what_can_not_be_ranked_is_a_dead_letter_or_a_bare_error(given: Any, cause: str) -> None:
    """As in a file: ``on_failure`` is asked and the rest goes on, otherwise a QueryError tells, never a group."""
    good = rows(2, 3)
    heard: list[Failure] = []
    assert [q for q, _ in await ranked([good[0], given, good[1]], on_failure=heard.append)] == ["q0", "q1"]
    assert len(heard) == 1
    assert heard[0].cause == cause
    assert str(heard[0].place) == "<queries>, query 2"
    with pytest.raises(QueryError) as caught:
        await ranked([good[0], given])
    assert caught.value.cause == heard[0].cause


async def test_ids_and_scores_are_taken_as_files_have_them() -> None:
    """Numbers as ids, a position where there is none, a blank text last, a score that is missing, tuples, arrays."""
    candidates = [Candidate(5, "x", 1.0), Candidate(None, "y"), Candidate("c", None)]  # type: ignore[arg-type]
    ((query, ids),) = await ranked([Query.of(7, "text", candidates)])  # type: ignore[arg-type]
    assert (query, sorted(ids[:2]), ids[2]) == ("7", ["1", "5"], "c")
    for texts in (("x", "y"), np.array(["x", "y"])):
        ((_, ids),) = await ranked([{"query_id": 1, "query": "text", "candidates": texts}])
        assert sorted(ids) == ["0", "1"]


async def test_a_row_of_a_table_that_is_too_large_is_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables in memory are decoded in pieces of bounded size, as files are."""
    monkeypatch.setattr("batchrank.read.pieces.ROW_BYTES", 5000)
    monkeypatch.setattr("batchrank.read.pieces._PIECE_BYTES", 1000)
    records = pairs(3, 2)
    records[2]["text"] = "w" * 9000
    heard: list[Failure] = []
    found = await ranked(encoded(records), on_failure=heard.append)
    assert [query for query, _ in found] == ["q0", "q2"]
    assert [(f.query_id, f.cause, f.place.number) for f in heard] == [("q1", "row-too-large", 3)]


async def test_numbers_and_candidates_of_a_first_stage_are_taken_as_they_are() -> None:
    """numpy's ids and scores, as searches return them, and ``Candidate`` objects within a dict."""
    found = np.array([7, 9]), np.array([0.5, 0.25], dtype=np.float32)
    candidates = [{"id": i, "text": f"text {i}", "score": s} for i, s in zip(*found, strict=True)]
    records = [
        {"query_id": np.int64(1), "query": np.str_("text"), "candidates": candidates},
        {"query_id": "2", "query": "text", "candidates": TWO},
        Query.of("3", "text", [Candidate(i, "x") for i in found[0]]),
    ]
    assert [(q, sorted(ids)) for q, ids in await ranked(records)] == [
        ("1", ["7", "9"]),
        ("2", ["a", "b"]),
        ("3", ["7", "9"]),
    ]


async def test_a_query_id_comes_once() -> None:
    """Two rankings of one id could not be told apart, and pairs that are not sorted would give two halves."""
    mixed = [*pairs(2, 2), pairs(1, 1)[0]]
    with pytest.raises(UnsortedError, match=r"'q0' .* was already used .*; sort the records by query id"):
        await ranked(mixed)
    with pytest.raises(QueryError, match=r"'q0' .* was already used") as caught:
        await ranked([*rows(2, 2), rows(1, 2)[0]])
    assert caught.value.cause == "duplicate-query"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (rows(1, 3)[0], r"a single dict; put it into a list: \[record\]"),
        (Query.of("q", "t", TWO), r"a single Query; put it into a list: \[query\]"),
        ({"test": object()}, r"name one of its parts, such as data\['test'\]"),
        ("candidates.jsonl", r"a str; .*batchrank\.run\(\) ranks a file"),
        (None, "a NoneType, which can't be gone through"),
        (7, "a int, which can't be gone through"),
    ],
)
async def test_what_is_no_collection_is_told(given: Any, message: str) -> None:
    """Before anything is started: what it is, and what to do."""
    with pytest.raises(InputError, match=message):
        await ranked(given)


async def test_frames_that_are_no_tables_of_records_are_told() -> None:
    """A series, a lazy frame, the whole of a data set with its splits."""
    import datasets
    import pandas
    import polars

    with pytest.raises(InputError, match="can't be read as a table"):
        await ranked(pandas.Series([1]))
    with pytest.raises(InputError, match="can't be read as a table: Duplicate column names found"):
        await ranked(pandas.DataFrame([["q", "a", "b"]], columns=["query_id", "text", "text"]))
    with pytest.raises(InputError, match="collect a lazy one"):
        await ranked(polars.DataFrame(pairs()).lazy())
    with pytest.raises(InputError, match=r"such as data\['test'\]"):
        await ranked(datasets.DatasetDict({"test": dataset(rows(1, 3))}))
    assert await ranked([]) == []
    assert await ranked(pa.Table.from_pylist(pairs()).slice(0, 0)) == []


def test_nothing_is_imported_that_the_caller_has_not() -> None:
    """Ranking records brings in neither pandas nor Polars nor datasets."""
    program = """
import sys, batchrank
job = batchrank.Job(model="qwen3-rerank", endpoint=batchrank.Endpoint(url="emulator"), tokenizer="bytes")
(ranking,) = batchrank.rerank_sync([{"query_id": 1, "query": "a", "candidates": ["a", "b"]}], job)
assert len(ranking) == 2
assert not {"pandas", "polars", "datasets", "rich.progress"} & set(sys.modules)
"""
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, env={"PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
