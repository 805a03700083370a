"""Jobs against an emulator that outlives them, as a real API does; shared by the tests of failures."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
from jobs import failed, make_job, outputs, rows, run, write_jsonl

from batchrank.emulator.app import Emulator
from batchrank.emulator.settings import Settings
from batchrank.job.config import Job
from batchrank.pipeline.report import Report

KEY = "sk-canary-7f3a9b2e5d8c4160"
PATH = "/compatible-api/v1/reranks"
SECTIONS = ("endpoint", "limits", "retry", "budget", "failures", "merge", "rate", "input", "output")


@dataclass
class World:
    """An emulator and the jobs that use it."""

    folder: Path
    emulator: Emulator
    data: Path
    sections: dict[str, Any] = field(default_factory=dict)

    def job(self, out: str = "out", **sections: Any) -> Job:
        (self.folder / "key").write_text(KEY)
        endpoint = {"url": self.emulator.url + PATH, "api_key_file": str(self.folder / "key")}
        given = {**self.sections, **sections}
        given["endpoint"] = {**endpoint, **given.get("endpoint", {})}
        return make_job(self.folder, self.data, out=out, **given)

    async def run(self, job: Job, **options: Any) -> Report:
        return await run(job, **options)

    def summary(self, job: Job) -> Any:
        assert job.output is not None
        return orjson.loads((Path(job.output.path) / "summary.json").read_bytes())

    @property
    def paid_twice(self) -> int:
        """Payments for a request that was paid before, but for probes: those hold a single document."""
        return sum(
            self.emulator.counts.billed[digest] - 1
            for digest, body in self._billed().items()
            if len(orjson.loads(body)["documents"]) > 1
        )

    def _billed(self) -> dict[bytes, bytes]:
        """Bodies by the digest that the emulator counts bills by."""
        key = PATH.encode()[:64]
        digests = {blake2b(r.body, digest_size=16, key=key).digest(): r.body for r in self.emulator.received}
        return {digest: body for digest, body in digests.items() if digest in self.emulator.counts.billed}

    def letters(self, job: Job) -> list[dict[str, Any]]:
        return failed(job)


@asynccontextmanager
async def world(
    folder: Path,
    *,
    queries: int = 8,
    candidates: int = 34,
    data: Sequence[dict[str, Any]] | None = None,
    sections: dict[str, Any] | None = None,
    **switches: Any,
) -> AsyncIterator[World]:
    """An emulator with the given switches, and an input of so many queries."""
    settings = Settings(**{"tokenizer": "bytes", "scores": "relative", "latency": 0.05, **switches})
    path = write_jsonl(folder / "in.jsonl", rows(queries, candidates) if data is None else data)
    async with Emulator(settings, keep=True) as emulator:
        yield World(folder, emulator, path, sections or {})


def same(one: Job, other: Job) -> bool:
    """Whether two jobs wrote the same, and something; but for what tells which of them paid for it."""
    first, second = ({name: _unpaid(data) for name, data in outputs(job).items()} for job in (one, other))
    return bool(first) and first == second


def _unpaid(data: bytes) -> bytes:
    """Lines without what depends on what the ledger knew."""
    return re.sub(rb',"reused":[0-9]+,"oldest":("[^"]*"|null)', b"", data)
