"""Benchmarks: every cell once, whatever happens, and one table."""

import csv
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jobs import rows, run, write_jsonl
from test_cli import batchrank

from batchrank.bench.matrix import load_bench
from batchrank.bench.table import done, same_job
from batchrank.errors import JobError

SHARED = {
    "endpoint": {"url": "emulator"},
    "tokenizer": "bytes",
    "limits": {"documents": 10},
    "rate": {"rpm": 10**6},
}


def write_bench(folder: Path, *, queries: int = 4, **keys: Any) -> Path:
    """Two datasets, with judgements, and what all jobs share."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    datasets = {}
    for number, name in enumerate(("small", "other")):
        found = rows(queries, 23 + number)
        write_jsonl(data / f"{name}.jsonl", found)
        lines = [f"{row['query_id']} 0 {row['candidates'][5]['id']} 1\n" for row in found]
        (data / f"{name}.qrels").write_text("".join(lines))
        datasets[name] = {"path": f"data/{name}.jsonl", "qrels": f"data/{name}.qrels"}
    bench = {"output": "bench", "datasets": datasets, "models": ["qwen3-rerank"], "job": SHARED} | keys
    (folder / "bench.yaml").write_text(yaml.safe_dump(bench, sort_keys=False))
    return folder / "bench.yaml"


def table(folder: Path) -> list[dict[str, Any]]:
    """Without the speed, which is another one every time."""
    found: list[dict[str, Any]] = json.loads((folder / "bench" / "table.json").read_text())
    return [{key: value for key, value in row.items() if key != "speed"} for row in found]


def test_the_cells_are_the_product_in_order(tmp_path: Path) -> None:
    """Each with a folder and a job file of its own; paths are relative to the benchmark file."""
    path = write_bench(
        tmp_path,
        models={
            "plain": "qwen3-rerank",
            "cheap": {"model": {"base": "qwen3-rerank", "rpm": 60}, "job": {"rate": {"rpm": 30}}},
        },
        instructs={"default": None, "shop": "Find products."},
        methods=["hub", "raw"],
    )
    bench, cells = load_bench(path)
    assert len(cells) == 2 * 2 * 2 * 2 == len({cell.folder for cell in cells})
    assert cells[0].name == "small / plain / hub"
    job = cells[-1].job(["tokenizer=bytes"])
    assert (cells[-1].name, job.instruct, job.merge.method) == (
        "other / cheap / shop / raw",
        "Find products.",
        "raw",
    )
    assert (
        job.rate.rpm == 30
        and job.input is not None
        and Path(job.input.path[0]).samefile(tmp_path / "data/other.jsonl")
    )
    assert bench.measures == ("nDCG@10", "RR@10")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"methods": []}, "methods"),
        ({"datasets": {}}, "datasets"),
        ({"modles": 1}, "modles"),
        ({"output": "s3://bucket/bench"}, "output.*in a folder here, not at an address"),
        ({"models": {"a/b": "x"}}, "models"),
        ({"models": {"a b": "qwen3-rerank", "a_b": "qwen3-rerank"}}, "rename one"),
    ],
)
def test_a_wrong_benchmark_file_is_told(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    """With the key at fault."""
    with pytest.raises(JobError, match=said):
        load_bench(write_bench(tmp_path, **keys))


def test_a_failed_cell_does_not_stop_the_others(tmp_path: Path) -> None:
    """It stands in the table with its cause, and is tried again; what is done is not."""
    path = write_bench(tmp_path, models=["nonesuch|<b>", "qwen3-rerank"])
    done = batchrank("bench", path.name, "--quiet", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    found = table(tmp_path)
    assert [row["state"] for row in found] == ["failed", "done", "failed", "done"]
    assert "no card for" in found[0]["error"]
    assert found[1]["nDCG@10"] is not None and found[1]["nDCG@10 before"] is not None
    assert found[1]["tokens"] > 0 and found[1]["cost"] > 0 and found[1]["certified"] is not None
    shown = (tmp_path / "bench" / "table.md").read_text()
    assert done.stdout.decode() == shown and "nonesuch\\|&lt;b>" in shown
    lines = list(csv.DictReader(io.StringIO((tmp_path / "bench" / "table.csv").read_text())))
    assert [line["state"] for line in lines] == ["failed", "done", "failed", "done"]
    ledgers = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("ledger.sqlite")}
    assert list(ledgers) == [tmp_path / "bench" / "ledger.sqlite"]
    again = batchrank("bench", path.name, "--quiet", cwd=tmp_path)
    assert again.returncode == 3 and table(tmp_path) == found
    assert {p: p.stat().st_mtime_ns for p in ledgers} == ledgers


def test_what_several_cells_ask_is_paid_once(tmp_path: Path) -> None:
    """Merge methods share their first pass, and data sets their queries: one ledger for all, each cell with its cap."""
    found = rows(4, 23)
    (tmp_path / "data").mkdir()
    for name in ("one", "two"):
        write_jsonl(tmp_path / "data" / f"{name}.jsonl", found)
    datasets = {name: {"path": f"data/{name}.jsonl"} for name in ("one", "two")}
    path = write_bench(tmp_path, methods=["hub", "rrf"], datasets=datasets)
    done = batchrank("bench", path.name, "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summaries = [json.loads((cell.output / "summary.json").read_text()) for cell in load_bench(path)[1]]
    assert [summary["process"]["requests"] > 0 for summary in summaries] == [True, False, False, False]
    assert [summary["spend"]["tokens"] > 0 for summary in summaries] == [True, False, False, False]
    assert len({summary["totals"]["tokens"] for summary in summaries}) == 2  # one for each method


def test_a_ledger_of_an_older_bench_is_still_found(tmp_path: Path) -> None:
    """A cell that has one of its own keeps it; what it paid is not paid again. One that the file names is taken."""
    path = write_bench(tmp_path)
    _, (first, second) = load_bench(path)
    first.output.mkdir(parents=True)
    (first.output / "ledger.sqlite").touch()
    _, (first, second) = load_bench(path)
    assert first.job().ledger_path == first.output / "ledger.sqlite"
    assert second.job().ledger_path == tmp_path / "bench" / "ledger.sqlite"
    path = write_bench(tmp_path, job=SHARED | {"ledger": "mine.sqlite"})
    assert {cell.job().ledger_path for cell in load_bench(path)[1]} == {tmp_path / "mine.sqlite"}


@pytest.mark.slow
def test_a_changed_cell_is_run_again(tmp_path: Path) -> None:
    """And only that one; --table runs nothing."""
    path = write_bench(tmp_path)
    only = batchrank("bench", path.name, "--table", cwd=tmp_path)
    assert only.returncode == 0 and "not run yet" in only.stdout.decode()
    assert batchrank("bench", path.name, "--quiet", cwd=tmp_path).returncode == 0
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("summary.json")}
    write_jsonl(tmp_path / "data" / "other.jsonl", rows(5, 23))
    assert batchrank("bench", path.name, "--quiet", cwd=tmp_path).returncode == 0
    changed = [p for p, stamp in before.items() if p.stat().st_mtime_ns != stamp]
    assert [p.parts[-6] for p in changed] == ["other"]
    assert [row["queries"] for row in table(tmp_path)] == [4, 5]


def a_changed_file(folder: Path) -> None:
    with (folder / "set" / "more.jsonl").open("ab") as file:
        file.write(b"\n")


def another_file(folder: Path) -> None:
    write_jsonl(folder / "set" / "yet-more.jsonl", [])


def no_file(folder: Path) -> None:
    (folder / "set" / "more.jsonl").unlink()


def a_corpus(folder: Path) -> None:
    write_jsonl(folder / "texts" / "corpus.jsonl", [{"_id": "d", "text": "another text"}])


def queries(folder: Path) -> None:
    write_jsonl(folder / "texts" / "queries.jsonl", [{"_id": "q", "text": "another query"}])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("source", "change"),
    [
        ({"path": "set"}, a_changed_file),
        ({"path": "set"}, another_file),
        ({"path": "set/*.jsonl"}, no_file),
        ({"path": "run.trec", "corpus": "texts"}, a_corpus),
        ({"path": "run.trec", "corpus": "texts"}, queries),
    ],
)
async def test_any_changed_input_is_noticed(
    tmp_path: Path, source: dict[str, str], change: Callable[[Path], None]
) -> None:
    """Files in folders, what a pattern fits, a corpus and its queries: whatever a run would be made anew for."""
    for number, name in enumerate(("first", "more")):
        (tmp_path / "set").mkdir(exist_ok=True)
        data = [row | {"query_id": f"{name}-{row['query_id']}"} for row in rows(2, 3 + number)]
        write_jsonl(tmp_path / "set" / f"{name}.jsonl", data)
    (tmp_path / "texts").mkdir()
    write_jsonl(tmp_path / "texts" / "corpus.jsonl", [{"_id": "d", "text": "a text"}])
    write_jsonl(tmp_path / "texts" / "queries.jsonl", [{"_id": "q", "text": "a query"}])
    (tmp_path / "run.trec").write_text("q Q0 d 1 1.0 x\n")
    (cell,) = load_bench(write_bench(tmp_path, datasets={"data": source}))[1]
    assert (await run(cell.job())).exit_code == 0
    summary = done(cell)
    assert summary is not None and same_job(cell, (), summary)
    change(tmp_path)
    assert not same_job(cell, (), summary)


@pytest.mark.slow
def test_killed_twice_it_ends_with_the_same_table(tmp_path: Path) -> None:
    """2 datasets x 2 models x 2 methods: what was done or paid is not done or paid again."""
    tables = []
    paced = {key: value for key, value in SHARED.items() if key != "rate"}  # so that it takes a while
    for name, kills in (("whole", ()), ("killed", (2, 5))):
        folder = tmp_path / name
        folder.mkdir()
        path = write_bench(
            folder, queries=6, models=["qwen3-rerank", "gte-rerank-v2"], methods=["hub", "raw"], job=paced
        )
        for cells in kills:
            running = subprocess.Popen(
                [sys.executable, "-m", "batchrank", "bench", path.name, "--quiet"], cwd=folder
            )
            deadline = time.monotonic() + 120
            while len(list(folder.rglob("summary.json"))) < cells and time.monotonic() < deadline:
                assert running.poll() is None
                time.sleep(0.05)  # another process: nothing else tells
            running.kill()
            assert running.wait() == -signal.SIGKILL
        done = batchrank("bench", path.name, "--quiet", cwd=folder)
        assert done.returncode == 0, done.stderr
        tables.append(table(folder))
    assert len(tables[0]) == 8
    assert tables[0] == tables[1]
