"""``rerank_tables``: a table of rankings for each table of queries, whatever the tables before it were."""

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import rows

import batchrank
from batchrank import Budget, Endpoint, InputError, Job, JobError, Limits, Rate, StoppedError


def job(**sections: Any) -> Job:
    """A job of small requests, whose quota holds nothing up: time is real here."""
    return Job(
        endpoint=Endpoint(url="emulator"), limits=Limits(documents=10), tokenizer="bytes",
        rate=Rate(rpm=10**7, tpm=10**12), **sections,
    )  # fmt: skip


DECLARED = job(model={"base": "qwen3-rerank", "scores": "relative"})
UNKNOWN = job(model="qwen3-rerank")
DATA = rows(12, 23)
DATA[4]["query"] = " "


def ranked(tables: list[Any], job: Job) -> list[dict[str, Any]]:
    """All rows of what comes of some tables."""
    return [row for table in batchrank.rerank_tables(tables, job) for row in table.to_pylist()]


def by_query(found: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each query."""
    queries: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        queries.setdefault(row["query_id"], []).append(row)
    return queries


@pytest.fixture(scope="module")
def expected() -> dict[str, list[dict[str, Any]]]:
    """What each query alone comes to."""
    return by_query(ranked([pa.Table.from_pylist([row]) for row in DATA], UNKNOWN))


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32), most=st.integers(1, 12))
def test_a_ranking_does_not_depend_on_other_rows(
    expected: dict[str, list[dict[str, Any]]], seed: int, most: int
) -> None:
    """Any order and any size of tables: the same rows for each query, although nobody knows whether scores compare."""
    rng = random.Random(seed)
    data, tables = rng.sample(DATA, len(DATA)), []
    while data:
        size = rng.randint(0, most)
        tables.append(pa.Table.from_pylist(data[:size], schema=pa.Table.from_pylist(DATA).schema))
        data = data[size:]
    found = list(batchrank.rerank_tables(tables, UNKNOWN))
    for table, made in zip(tables, found, strict=True):
        assert list(dict.fromkeys(made["query_id"].to_pylist())) == table["query_id"].to_pylist()
    assert by_query([row for made in found for row in made.to_pylist()]) == expected


@pytest.mark.parametrize("given", [pd.DataFrame, pl.DataFrame, pa.Table.from_pylist])
def test_the_rankings_are_those_of_rerank(given: Callable[[Any], Any]) -> None:
    """From data frames of others, to rows that others read; what could not be ranked stands in its own row."""
    heard: list[Any] = []
    rankings = batchrank.rerank_sync(DATA, DECLARED, on_failure=heard.append)
    found = [
        pl.DataFrame(table) for table in batchrank.rerank_tables([given(DATA[:5]), given(DATA[5:])], DECLARED)
    ]
    done = pl.concat(found).filter(pl.col("failure").is_null())
    assert done.select("query_id", "doc_id", "rank", "score").rows() == [
        (ranking.query_id, name, rank, score)
        for ranking in rankings
        for rank, (name, score) in enumerate(zip(ranking.doc_ids, ranking.scores.tolist(), strict=True), 1)
    ]
    failed = pl.concat(found).filter(pl.col("failure").is_not_null())
    (letter,) = heard
    assert failed["query_id"].to_list() == [letter.query_id] == ["q4"]
    assert failed["failure"].to_list() == [{"cause": letter.cause, "message": letter.message}]
    assert failed["doc_id"].to_list() == failed["rank"].to_list() == [None]


def test_a_query_that_comes_twice_is_told() -> None:
    """In another table too, as in one file."""
    table = pa.Table.from_pylist(rows(1, 3))
    first, second = batchrank.rerank_tables([table, table], DECLARED)
    assert first.num_rows == 3 and first["failure"].null_count == 3
    assert second["failure"].to_pylist()[0]["cause"] == "duplicate-query"


def test_a_table_is_ranked_before_the_next_one_is_there() -> None:
    """One that is made of what came of the last one, an empty one among them, is not waited for."""
    seen = threading.Semaphore(0)

    def tables() -> Iterator[pa.Table]:
        for row in DATA[:2]:
            yield pa.Table.from_pylist([row])
            assert seen.acquire(timeout=30)
            yield pa.Table.from_pylist([row]).slice(1)
            assert seen.acquire(timeout=30)

    counts = []
    for made in batchrank.rerank_tables(tables(), DECLARED):
        counts.append(made.num_rows)
        seen.release()
    assert counts == [23, 0, 23, 0]


def test_who_has_seen_enough_leaves_nothing_behind() -> None:
    """The threads end with the loop."""
    before = set(threading.enumerate())
    for _ in batchrank.rerank_tables((pa.Table.from_pylist([row]) for row in DATA), DECLARED):
        break
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_what_is_no_table_of_queries_is_refused() -> None:
    """With what to give instead."""
    pairs = pa.table({"query_id": ["1"], "query": ["a"], "doc_id": ["d"], "text": ["b"]})
    for wrong, said in (
        ([pairs], "each row is one pair"),
        (pairs, r"such as \[table\]"),
        ([DATA[0]], "holds a dict"),
        ([pa.table({"x": [1]})], "columns"),
    ):
        with pytest.raises(InputError, match=said):
            list(batchrank.rerank_tables(wrong, DECLARED))  # type: ignore[arg-type]
    with pytest.raises(JobError, match="load_job"):
        batchrank.rerank_tables([], "job.yaml")  # type: ignore[arg-type]


def test_a_cap_and_an_error_of_the_callers_own_come_out_as_they_are() -> None:
    """Not in a group, not as a table that lacks rows."""

    def tables() -> Iterator[pa.Table]:
        yield pa.Table.from_pylist(DATA[:2])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(batchrank.rerank_tables(tables(), DECLARED))
    capped = DECLARED.model_copy(update={"budget": Budget(max_requests=3)})
    with pytest.raises(StoppedError, match=r"budget\.max_requests"):
        list(batchrank.rerank_tables([pa.Table.from_pylist(DATA)], capped))
