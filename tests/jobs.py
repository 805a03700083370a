"""Small jobs on the embedded emulator, shared by tests of the pipeline."""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from batchrank.job.config import Job
from batchrank.job.load import load_job
from batchrank.pipeline.report import Report
from batchrank.pipeline.run import Options, Run

WORDS = """
copy directory tree file random element list string regular expression socket thread lock queue event signal parse
date format join path split url permutation sorted heap median archive disk usage token template wrap
""".split(  # noqa: SIM905 a list of one word a line is no easier to read
)


@cache
def text(seed: int, length: int = 12) -> str:
    """Some words, the same for the same seed."""
    return (
        " ".join(WORDS[(seed * 7 + i * i * (seed % 5 + 1)) % len(WORDS)] for i in range(length)) + f" {seed}"
    )


def rows(queries: int, candidates: int) -> list[dict[str, Any]]:
    """Queries with candidates and falling first-stage scores."""
    return [
        {
            "query_id": f"q{q}",
            "query": f"{WORDS[q % len(WORDS)]} {WORDS[(q * 3 + 1) % len(WORDS)]}",
            "candidates": [
                {"id": f"d{q}-{d}", "text": text(q * 1000 + d), "score": float(candidates - d)}
                for d in range(candidates)
            ],
        }
        for q in range(queries)
    ]


def write_jsonl(path: Path, data: Iterable[Any]) -> Path:
    """One JSON value a line; bytes are written as they are."""
    path.write_bytes(b"".join((x if isinstance(x, bytes) else orjson.dumps(x)) + b"\n" for x in data))
    return path


def make_job(folder: Path, data: Path, *overrides: str, out: str = "out", **sections: Any) -> Job:
    """A job on the embedded emulator whose requests hold 10 documents."""
    job = {
        "input": {"path": str(data)},
        "model": "qwen3-rerank",
        "endpoint": {"url": "emulator"},
        "limits": {"documents": 10},
        "merge": {"top_k": 5},
        "tokenizer": "bytes",
        "output": {"path": out, "format": "jsonl"},
    }
    for name, section in sections.items():
        before = job.get(name, {})
        merged = isinstance(section, dict) and isinstance(before, dict)
        job[name] = {**before, **section} if merged else section  # type: ignore[dict-item]
    path = folder / f"{out}.yaml"
    path.write_text(json.dumps(job), encoding="utf-8")
    return load_job(path, overrides=overrides, environ={})


async def run(job: Job, *, part_documents: int | None = None, **options: Any) -> Report:
    """Run a job to its end, with the given setting for the size of its parts."""
    return await Run(cut(job, part_documents) if part_documents else job, Options(**options)).execute()


def cut(job: Job, part_documents: int) -> Job:
    """A job with another ``output.part_documents``."""
    assert job.output is not None
    output = job.output.model_copy(update={"part_documents": part_documents})
    return job.model_copy(update={"output": output})


def rankings(job: Job) -> list[dict[str, Any]]:
    """What a job with JSON lines as output wrote."""
    assert job.output is not None
    lines: list[bytes] = []
    for part in sorted(Path(job.output.path).glob("ranking-*.jsonl")):
        lines += part.read_bytes().splitlines()
    return [orjson.loads(line) for line in lines]


def failed(job: Job) -> list[dict[str, Any]]:
    """A job's dead letters."""
    assert job.output is not None
    return [orjson.loads(line) for line in (Path(job.output.path) / "failed.jsonl").read_bytes().splitlines()]


def outputs(job: Job, *, names: Sequence[str] = ("ranking-", "queries-")) -> dict[str, bytes]:
    """The bytes of a job's rankings."""
    assert job.output is not None
    return {
        p.name: p.read_bytes()
        for p in sorted(Path(job.output.path).iterdir())
        if p.name.startswith(tuple(names))
    }
