"""A benchmark before it runs: what it would cost, and what editors know of its file."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from jobs import rows, write_jsonl
from test_cli import batchrank

from batchrank.bench.matrix import load_bench
from batchrank.bench.schema import bench_schema
from batchrank.errors import JobError

SCHEMA = jsonschema.Draft202012Validator(bench_schema())
BENCH: dict[str, Any] = {
    "output": "cells",
    "datasets": {"a": "in.jsonl", "gone": "none.jsonl"},
    "models": ["qwen3-rerank"],
    "methods": ["rrf", "full"],
    "job": {"endpoint": "emulator", "tokenizer": "bytes", "limits": {"documents": 10}, "merge": {"top_k": 5}},
}


def columns(line: str) -> list[str]:
    return [cell for cell in line.split("  ") if cell]


def test_a_plan_tells_what_a_run_then_sends(tmp_path: Path) -> None:
    """Per cell and in all, without a request; what is done costs nothing, and what can't run says why."""
    write_jsonl(tmp_path / "in.jsonl", rows(3, 25))
    (tmp_path / "bench.yaml").write_text(json.dumps(BENCH))
    before = batchrank("bench", "bench.yaml", "--plan", cwd=tmp_path)
    assert before.returncode == 3, before.stderr
    lines = {columns(line)[0]: columns(line) for line in before.stdout.decode().splitlines()}
    assert not list(tmp_path.glob("cells/*/*/*/*/out/*"))
    assert lines["gone / qwen3-rerank / rrf"][1].strip() == "can't run"
    assert "gone / qwen3-rerank / rrf: input.path: no such file" in before.stdout.decode()
    assert "none.jsonl" in before.stdout.decode() and "in all" in before.stdout.decode()
    one = {**BENCH, "datasets": {"a": "in.jsonl"}, "methods": ["rrf"]}
    (tmp_path / "bench.yaml").write_text(json.dumps(one))
    assert batchrank("bench", "bench.yaml", "--quiet", cwd=tmp_path).returncode == 0
    (summary,) = tmp_path.glob("cells/a/*/*/rrf/out/summary.json")
    spent = json.loads(summary.read_text())
    name, queries, documents, requests, tokens = (
        cell.strip() for cell in lines["a / qwen3-rerank / rrf"][:5]
    )
    assert (name, queries) == ("a / qwen3-rerank / rrf", "3")
    assert documents == f"{spent['totals']['sent']:,}" and requests == str(spent["process"]["requests"])
    assert tokens == f"{spent['spend']['tokens']:,}"
    after = batchrank("bench", "bench.yaml", "--plan", cwd=tmp_path)
    assert after.returncode == 0 and after.stdout.decode().splitlines()[1].split()[-1] == "done"


@pytest.mark.parametrize(
    "changes",
    [
        {"datasets": {"a": ["x.jsonl", "y.jsonl"], "b": {"path": "z", "qrels": ["q"], "sample": "5%"}}},
        {"datasets": {"a": {"input": {"path": "beir:scifact", "split": "test"}, "qrels": "q"}}},
        {
            "models": {
                "m": "qwen3-rerank",
                "n": {"model": {"base": "qwen3-rerank", "price": {"currency": "USD"}}},
            }
        },
        {
            "models": {
                "m": {"base": "vllm", "name": "own"},
                "n": {"model": "tei", "job": {"rate": {"rpm": 5}}},
            }
        },
        {"instructs": {"default": None, "b": "Find it."}, "measures": ["nDCG@10"]},
    ],
)
def test_what_bench_takes_fits_its_schema(tmp_path: Path, changes: dict[str, Any]) -> None:
    """In every form that a dataset and a model may have."""
    data = {**BENCH, **changes}
    SCHEMA.validate(data)
    (tmp_path / "bench.yaml").write_text(json.dumps(data))
    assert load_bench(tmp_path / "bench.yaml")[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": {}}, {"datasets": {}}, {"datasets": {"a": {"pathh": "x"}}}, {"models": []}, {"output": None},
        {"models": {"m": {"model": "qwen3-rerank", "jobs": {}}}}, {"instructs": {"a": 5}}, {"datasets": {"a/b": "x"}},
    ],
)  # fmt: skip
def test_what_bench_refuses_does_not_fit(tmp_path: Path, changes: dict[str, Any]) -> None:
    """An editor marks it before it is run."""
    data = {**BENCH, **changes}
    assert not SCHEMA.is_valid(data)
    (tmp_path / "bench.yaml").write_text(json.dumps(data))
    with pytest.raises(JobError):
        for cell in load_bench(tmp_path / "bench.yaml")[1]:
            cell.job()


def test_the_manual_s_benchmark_fits(tmp_path: Path) -> None:
    """And the schema is what the command prints."""
    manual = (Path(__file__).parent.parent / "configs" / "README.md").read_text()
    SCHEMA.validate(yaml.safe_load(manual.split("# models.yaml\n")[1].split("```")[0]))
    shown = batchrank("schema", "--bench", cwd=tmp_path)
    assert json.loads(shown.stdout) == bench_schema()
    jsonschema.Draft202012Validator.check_schema(bench_schema())
