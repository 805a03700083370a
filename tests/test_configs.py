"""The ready jobs are valid, each says what it is for, and editors can check them."""

import re
from pathlib import Path

import jsonschema
import orjson
import pytest

from batchrank.job.document import yaml_of
from batchrank.job.load import load_job
from batchrank.job.schema import KEYS, job_schema, key_names

FOLDER = Path(__file__).parent.parent / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))


def test_there_are_some() -> None:
    """The glob above finds them."""
    assert len(CONFIGS) >= 6


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_ready_job_is_valid(path: Path) -> None:
    """It loads, its endpoint is known, and it begins with its schema and what it is for."""
    job = load_job(path, environ={})
    assert job.url.startswith("http")
    first, second = path.read_text().splitlines()[:2]
    assert first == "# yaml-language-server: $schema=job.schema.json"
    assert second.startswith("# ")


def test_the_schema_in_the_repository_is_the_one_of_the_code() -> None:
    """After a change of the job's keys: batchrank schema > configs/job.schema.json."""
    assert orjson.loads((FOLDER / "job.schema.json").read_bytes()) == job_schema()


def test_every_key_is_explained() -> None:
    """An editor, and a job file that init wrote, can say what each key means."""
    assert set(KEYS) == set(key_names())


def test_the_nightly_job_has_what_its_recipe_says() -> None:
    """One ledger, a cap by the day, a part of the quota, and a gate."""
    job = load_job(FOLDER / "nightly.yaml", environ={})
    assert job.ledger and job.budget.per == "day" and job.budget.max_cost and job.rate.rpm
    assert job.gate is not None and job.gate.min_rbo is not None


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_schema_accepts_the_ready_jobs(path: Path) -> None:
    """What loads passes the schema too."""
    jsonschema.Draft202012Validator.check_schema(job_schema())
    jsonschema.validate(yaml_of(path.read_text()), job_schema())


@pytest.mark.parametrize(
    ("change", "about"),
    [
        ({"modle": 1}, "modle"),
        ({"model": "qwen3-rerankk"}, "qwen3-rerankk"),
        ({"model": {"base": "qwen3-rerank", "rpn": 5}}, "rpn"),
        ({"model": {"name": "mine"}}, "mine"),
        ({"merge": {"top_k": 0}}, "0"),
        ({"output": {"format": "parquet"}}, "path"),
    ],
)
def test_the_schema_refuses_what_a_run_would(change: dict[str, object], about: str) -> None:
    """An editor marks the mistake while the file is written."""
    job = {"input": {"path": "a.jsonl"}, "model": "qwen3-rerank", "output": {"path": "out"}}
    jsonschema.validate(job, job_schema())
    with pytest.raises(jsonschema.ValidationError, match=re.escape(about)):
        jsonschema.validate(job | change, job_schema())
