"""input.order ranks the most valuable queries first, so that what a cap or a time leaves undone is worth least."""

import csv
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from against import same, world
from hypothesis import given
from hypothesis import strategies as st
from jobs import failed, make_job, outputs, rankings, rows, write_jsonl
from peak_memory import LINUX, Peak
from test_cli import batchrank

from batchrank.data import Query
from batchrank.errors import InputError, JobError, Place
from batchrank.job.sections import Input
from batchrank.launch import make_run
from batchrank.outcomes import Failure
from batchrank.planning.check import check_job, ending
from batchrank.read.base import Gauge, Segment
from batchrank.read.order import _OPEN, Order, Ordered
from batchrank.read.reader import read

pytestmark = pytest.mark.anyio


def lists(values: Iterable[Any]) -> list[dict[str, Any]]:
    """Queries in lists, each with a value of the field."""
    found = list(values)
    return [{**row, "priority": value} for row, value in zip(rows(len(found), 3), found, strict=True)]


def pairs(values: Iterable[Any]) -> list[dict[str, Any]]:
    """The same as pairs."""
    return [
        {
            "query_id": row["query_id"], "query": row["query"], "priority": row["priority"],
            "doc_id": one["id"], "text": one["text"], "score": one["score"],
        }
        for row in lists(values)
        for one in row["candidates"]
    ]  # fmt: skip


def order_of(path: Path, order: str = "-priority", **keys: Any) -> list[str]:
    """The ids of the queries as they are read."""
    source = Input.model_validate({"path": str(path), "order": order, **keys})
    return [item.id for item in read(source) if isinstance(item, Query)]


def by(values: list[Any], *, falling: bool) -> list[str]:
    """The ids by their values, by Python's own stable sort; None last."""
    known = [i for i, value in enumerate(values) if value is not None]
    known.sort(key=lambda i: values[i], reverse=falling)  # which keeps the order of ties, reversed or not
    return [f"q{i}" for i in [*known, *(i for i, value in enumerate(values) if value is None)]]


VALUES: list[list[Any]] = [
    [3, 1, None, 2.5, 3, -7, 10],
    ["b", "a", None, "c", "b", "ä"],
    [2**60 + 1, 2**60, 2**60 + 2],
]


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("shape", [lists, pairs])
@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow"])
def test_queries_come_in_the_order_of_a_field(
    tmp_path: Path, shape: Any, kind: str, values: list[Any]
) -> None:
    """Lists and pairs, numbers and texts, both ways; null last, ties as they stand in the input."""
    path = tmp_path / f"in.{kind}"
    if kind == "jsonl":
        write_jsonl(path, shape(values))
    else:
        table = pa.Table.from_pylist(shape(values))
        if kind == "parquet":
            pq.write_table(table, path, row_group_size=4)
        else:
            with pa.ipc.new_file(path, table.schema) as file:
                file.write_table(table, max_chunksize=3)
    assert order_of(path) == by(values, falling=True)
    assert order_of(path, "priority") == by(values, falling=False)


def test_columns_of_other_programs_have_an_order_too(tmp_path: Path) -> None:
    """CSV, whose numbers are texts: by number. Times, decimals and fields of a struct, as DuckDB writes them."""
    data = pairs([9, 10, -1, 100])
    with (tmp_path / "in.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, data[0])
        writer.writeheader()
        writer.writerows(data)
    assert order_of(tmp_path / "in.csv") == ["q3", "q1", "q0", "q2"]
    write_jsonl(tmp_path / "in.jsonl", data)
    with duckdb.connect() as db:
        db.execute(
            f"COPY (SELECT * EXCLUDE priority, TIMESTAMP '2026-01-01' + to_days(priority::INT) AS made, "
            f"priority::DECIMAL(9,2) AS price, {{'rank': priority}} AS meta, priority::VARCHAR AS named "
            f"FROM '{tmp_path}/in.jsonl') TO '{tmp_path}/in.parquet'"
        )
    for name in ("-made", "-price", "-meta.rank", "-named"):
        assert order_of(tmp_path / "in.parquet", name) == ["q3", "q1", "q0", "q2"], name


@given(
    st.lists(st.none() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False), min_size=1, max_size=12)
)
def test_numbers_are_sorted_as_numbers(tmp_path_factory: pytest.TempPathFactory, values: list[Any]) -> None:
    """Whole ones exactly as far as 64 bits go."""
    path = tmp_path_factory.mktemp("order") / "in.jsonl"
    # JSON knows no infinity; and whole numbers beyond 64 bits are floats to its reader.
    found = [v if v is None or abs(v) < 2**63 else float(v) for v in values if v not in (np.inf, -np.inf)]
    if found:
        write_jsonl(path, lists(found))
        assert order_of(path) == by(found, falling=True)


def test_a_sample_and_a_limit_go_by_the_order(tmp_path: Path) -> None:
    """The first so many are the most valuable; a sample is drawn as without an order; sorted pairs alike."""
    values = random.Random(5).sample(range(100), 40)
    path = write_jsonl(tmp_path / "in.jsonl", lists(values))
    assert order_of(path, limit=5) == by(values, falling=True)[:5]
    source = Input.model_validate({"path": str(path), "sample": 10})
    drawn = {item.id for item in read(source) if isinstance(item, Query)}
    assert order_of(path, sample=10) == [name for name in by(values, falling=True) if name in drawn]
    mixed = pairs(values)
    random.Random(5).shuffle(mixed)
    assert order_of(write_jsonl(tmp_path / "mixed.jsonl", mixed), sort=True) == by(values, falling=True)


def test_what_can_t_be_ranked_comes_last(tmp_path: Path) -> None:
    """Bad records and bad queries, in the order of the input."""
    data: list[Any] = lists([1, 2, 3])
    data[1]["query"] = ""
    data.insert(0, b"{broken")
    source = Input.model_validate(
        {"path": str(write_jsonl(tmp_path / "in.jsonl", data)), "order": "-priority"}
    )
    found = list(read(source))
    assert [item.id if isinstance(item, Query) else item.cause for item in found] == [
        "q2", "q0", "broken-json", "empty-query",
    ]  # fmt: skip


def items(path: Path, order: str, **options: Any) -> Iterator[Query | Failure]:
    return read(Input.model_validate({"path": str(path), "order": order}), Gauge(), **options)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("as_it_comes", [False, True])
def test_a_field_that_is_not_there_is_an_error(tmp_path: Path, kind: str, *, as_it_comes: bool) -> None:
    """With those that are; also where check only looks. One that some records lack is null there."""
    path = tmp_path / f"in.{kind}"
    if kind == "jsonl":
        write_jsonl(path, lists([1, 2]))
    else:
        pq.write_table(pa.Table.from_pylist(lists([1, 2])), path)
    with pytest.raises(
        InputError, match=r"no record has a field 'value'; the first has query_id, .*priority: correct"
    ):
        list(items(path, "-value", as_it_comes=as_it_comes))
    data = lists([1, 2, 3])
    del data[2]["priority"]
    assert order_of(write_jsonl(path.with_suffix(".jsonl"), data)) == ["q1", "q0", "q2"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, "high"], r"holds numbers \(1 at .*in.jsonl, line 1\) and texts \(high at .*line 2\)"),
        ([[1], [2]], r"holds a list at .*line 1"),
        ([{"a": 1}], r"holds a dict at .*line 1"),
    ],
)
def test_values_without_an_order_are_an_error(tmp_path: Path, values: list[Any], said: str) -> None:
    """What is compared with what is said, and by check as well."""
    path = write_jsonl(tmp_path / "in.jsonl", lists(values))
    for as_it_comes in (False, True):
        with pytest.raises(InputError, match=said):
            list(items(path, "priority", as_it_comes=as_it_comes))


def test_joined_inputs_have_no_order(tmp_path: Path) -> None:
    """Their records name texts by id; said when the job is loaded, or when a dataset's folder is read."""
    with pytest.raises(JobError, match="order takes a field of records that hold their texts"):
        make_job(tmp_path, tmp_path / "run.trec", input={"corpus": "c.jsonl", "order": "-x"})


async def test_a_cap_leaves_the_least_valuable_undone(tmp_path: Path) -> None:
    """The output is in the order, gone on with alike; another order is another output, which is said."""
    values = [5, 1, 9, 3, 7, 2, 8, 6]
    sections: dict[str, Any] = {"input": {"order": "-priority"}, "output": {"part_documents": 6}}
    async with world(tmp_path, data=lists(values), sections=sections) as w:
        job = w.job(budget={"max_requests": 5})
        first = await w.run(job)
        assert first.exit_code == 1
        names = by(values, falling=True)
        done = [row["query_id"] for row in rankings(job)]
        assert done and done == names[: len(done)]
        job, other = w.job(), w.job("other")
        second = await w.run(job)
        assert any("continues an earlier run" in one for one in second.data["notices"])
        assert w.paid_twice == 0
        await w.run(other)
        assert same(job, other)
        assert [row["query_id"] for row in rankings(job)] == names
        third = await w.run(w.job(input={"order": "priority"}))
        assert any(
            "changed since the last run: the job (input.order)" in one for one in third.data["notices"]
        )


@pytest.mark.slow
@pytest.mark.real_clock
async def test_several_processes_rank_in_the_same_order(tmp_path: Path) -> None:
    """The one that reads puts them in order; the bytes are the same."""
    unlimited: dict[str, Any] = {"rpm": float("inf"), "tpm": float("inf"), "latency": 0.002}
    sections: dict[str, Any] = {"input": {"order": "-priority"}, "output": {"part_documents": 9}}
    values = random.Random(3).sample(range(99), 12)
    async with world(tmp_path, data=lists(values), sections=sections, **unlimited) as w:
        one, several = w.job("one"), w.job("several", engine={"processes": 2})
        for job in (one, several):
            assert (await make_run(job).execute()).exit_code == 0
        assert outputs(one) == outputs(several)
        assert [row["query_id"] for row in rankings(one)] == by(values, falling=True)


def test_check_looks_without_sorting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first records only; it finds a field that isn't there all the same."""
    from batchrank.read import order

    path = write_jsonl(tmp_path / "in.jsonl", lists(range(40)))
    monkeypatch.setattr(order, "_Staged", None)
    job = make_job(tmp_path, path, input={"order": "-priority"})
    assert ending(list(check_job(job, limit=5, ask=False))) == 0
    wrong = make_job(tmp_path, path, input={"order": "-priorty"})
    found = list(check_job(wrong, limit=None, ask=False))
    assert ending(found) == 4 and any("no record has a field 'priorty'" in one.text for one in found)


def test_the_option_is_the_key(tmp_path: Path) -> None:
    """As a user types it, minus and all."""
    make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", lists([1, 3, 2])))
    done = batchrank("run", "out.yaml", "--order", "-priority", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    job = make_job(tmp_path, tmp_path / "in.jsonl")
    assert [row["query_id"] for row in rankings(job)] == ["q1", "q2", "q0"] and not failed(job)
    done = batchrank("view", "out", cwd=tmp_path)
    assert b'"query_id":"q1"' in done.stdout.splitlines()[0].replace(b" ", b"")
    done = batchrank("explain", "out", "q2", "d2-0", "--json", cwd=tmp_path)
    assert b'"replayed": true' in done.stdout


@LINUX
def test_queries_are_put_in_order_on_disk(tmp_path: Path) -> None:
    """Memory holds neither the queries nor their values, whatever the size of the input."""
    path = tmp_path / "in.jsonl"
    text = "word " * 60
    with path.open("w") as file:
        for number in range(20_000):
            row = {
                "query_id": f"q{number}",
                "query": "?",
                "priority": number * 7919 % 20_011,
                "candidates": [text] * 8,
            }
            file.write(f"{json.dumps(row)}\n")
    small = write_jsonl(tmp_path / "small.jsonl", lists(range(300)))
    assert len(order_of(small)) == 300  # which imports and allocates what stays
    peak = Peak()
    last = 20_011
    for item in items(path, "-priority"):
        assert isinstance(item, Query)
        value = int(item.id[1:]) * 7919 % 20_011
        assert value < last
        last = value
    assert path.stat().st_size > 47 << 20 and peak.grown() < 24


async def test_what_fails_before_its_value_is_asked_for_is_forgotten() -> None:
    """Values are known of the query at hand and few more."""
    ordered = Ordered(Order.of("-priority"))
    place = Place("f", "line", 1)
    segments = (Segment(place, f"q{i}", "?", [], None, None, whole=True, order=i) for i in range(1_000))
    for _ in ordered.noting(segments):
        assert len(ordered._values) <= _OPEN
