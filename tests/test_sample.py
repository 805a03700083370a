"""``input.sample``: which queries are drawn, that they are the same tomorrow, and that each class has its share."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from jobs import failed, make_job, rankings, rows, run, write_jsonl

from batchrank.data import Query
from batchrank.errors import InputError, JobError
from batchrank.job.sections import Input
from batchrank.read.base import Gauge
from batchrank.read.reader import read

MANY = [{"query_id": f"q{i}", "query": "a", "candidates": ["x"] * (1 + i % 7)} for i in range(2000)]


def drawn(path: Path, sample: Any, **keys: Any) -> list[str]:
    source = Input.model_validate({"path": str(path), "sample": sample, **keys})
    return [item.id for item in read(source) if isinstance(item, Query)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("sample") / "in.jsonl", MANY)


@pytest.mark.parametrize("sample", [50, "50", "5%", {"queries": 50, "by": "documents"}])
def test_a_sample_depends_on_ids_and_seed_only(data: Path, tmp_path: Path, sample: Any) -> None:
    """In the order of the input; another order of the lines draws the same queries, another seed others."""
    found = drawn(data, sample)
    assert found == sorted(found, key=lambda name: int(name[1:])) == drawn(data, sample)
    shuffled = random.Random(1).sample(MANY, len(MANY))
    assert set(drawn(write_jsonl(tmp_path / "other.jsonl", shuffled), sample)) == set(found)
    other = sample if isinstance(sample, dict) else {"queries": sample}
    assert len(set(drawn(data, {**other, "seed": 7})) & set(found)) < len(found) / 2
    assert (len(found) == 50) if sample != "5%" else 60 < len(found) < 140
    assert drawn(data, sample, limit=3) == found[:3]


def test_a_sample_is_uniform(data: Path) -> None:
    """Every tenth of the input is drawn from alike, by a test that scipy makes."""
    samples = [drawn(data, {"queries": "10%", "seed": seed}) for seed in range(20)]
    counts = Counter(int(name[1:]) // 200 for names in samples for name in names)
    from scipy import stats  # type: ignore[import-untyped]  # takes a second to import

    assert stats.chisquare([counts[i] for i in range(10)]).pvalue > 0.001
    smaller, larger = (set(drawn(data, part)) for part in ("5%", "20%"))
    assert smaller < larger


def test_each_class_has_its_share(data: Path, tmp_path: Path) -> None:
    """Of lists by their length, and of files; the numbers add up."""
    lengths = {row["query_id"]: len(row["candidates"]).bit_length() for row in MANY}
    found = Counter(lengths[name] for name in drawn(data, {"queries": 70, "by": "documents"}))
    assert found == {1: 10, 2: 20, 3: 40}
    for name, count in (("a", 30), ("b", 10), ("c", 1)):
        records = [{"query_id": f"{name}{i}", "query": "a", "candidates": ["x"]} for i in range(count)]
        write_jsonl(tmp_path / f"{name}.jsonl", records)
    files = Counter(name[0] for name in drawn(tmp_path / "*.jsonl", {"queries": 20, "by": "file"}))
    assert files == {"a": 15, "b": 5} or files == {"a": 14, "b": 5, "c": 1}
    assert len(drawn(tmp_path / "*.jsonl", 1000)) == 41


@pytest.mark.parametrize(
    "sample", [0, -1, "5", "0%", "101%", "x%", "1/2", {"seed": 1}, {"queries": 5, "by": "x"}]
)
def test_what_is_no_sample_is_refused(tmp_path: Path, sample: Any) -> None:
    """With the key's name; a number in quotes is a number."""
    write_jsonl(tmp_path / "in.jsonl", rows(2, 3))
    if sample == "5":
        assert make_job(tmp_path, tmp_path / "in.jsonl", input={"sample": sample}).input
        return
    with pytest.raises(JobError, match=r"input\.sample"):
        make_job(tmp_path, tmp_path / "in.jsonl", input={"sample": sample})


def test_what_can_be_read_once_is_drawn_from_by_parts(tmp_path: Path) -> None:
    """A number would take a second look; and a sample that is empty is no output that looks complete."""
    with pytest.raises(InputError, match="two passes"):
        drawn(Path("-"), 5)
    write_jsonl(tmp_path / "in.jsonl", rows(3, 2))
    with pytest.raises(InputError, match="drew none of 3 queries"):
        drawn(tmp_path / "in.jsonl", "0.0001%")


def test_progress_tells_of_the_pass_that_draws(data: Path) -> None:
    """It is work ahead of the first query, by its own name."""
    gauge, labels = Gauge(), set()
    source = Input.model_validate({"path": str(data), "sample": 5})
    for _ in read(source, gauge):
        labels.add(gauge.ahead and gauge.ahead.label)
    assert labels == {None} and gauge.measured


@pytest.mark.anyio
async def test_a_run_of_a_sample_is_what_a_run_of_it_alone_is(tmp_path: Path) -> None:
    """Faulty queries that aren't drawn are no failures of the run; a line that names none is."""
    bad = [{"query_id": f"bad{i}", "query": "", "candidates": ["x"]} for i in range(40)]
    write_jsonl(tmp_path / "in.jsonl", [b"{broken", *rows(40, 3), *bad])
    job = make_job(tmp_path, tmp_path / "in.jsonl", input={"sample": 10})
    report = await run(job)
    assert report.data["totals"]["queries"] == 10
    assert [one["cause"] for one in failed(job)] == ["broken-json"]
    assert {row["query_id"] for row in rankings(job)} == set(drawn(tmp_path / "in.jsonl", 10))
