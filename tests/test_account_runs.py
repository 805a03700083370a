"""Jobs that are started by themselves share one account's quota: real processes against one server."""

import os
import random
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
from anyio.abc import Process
from jobs import rows, write_jsonl

from batchrank.emulator.app import Emulator
from batchrank.emulator.settings import Settings
from batchrank.send.account_files import AccountFiles

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]
PATH = "/compatible-api/v1/reranks"
RPS = 30


@pytest.fixture
def account() -> Iterator[str]:
    """A name that nobody else has."""
    name = uuid.uuid4().hex
    yield name
    files = AccountFiles(name)
    for path in files.socket.parent.glob(f"{files.socket.stem}.*"):
        path.unlink()


def job_file(folder: Path, url: str, name: str, account: str, *, queries: int, **rate: Any) -> Path:
    data = write_jsonl(folder / f"{name}.jsonl", rows(queries, 8))
    (folder / "key").write_text("sk-test")
    job = {
        "input": {"path": str(data)},
        "model": "qwen3-rerank",
        "endpoint": {"url": url + PATH, "api_key_file": "key"},
        "tokenizer": "bytes",
        "rate": {"rpm": RPS * 60, "tpm": 10**9, "account": account, **rate},
        "output": {"path": name, "format": "jsonl"},
    }
    path = folder / f"{name}.yaml"
    path.write_bytes(orjson.dumps(job))
    return path


async def start(job: Path) -> Process:
    command = (sys.executable, "-m", "batchrank", "run", job.name, "--quiet")
    return await anyio.open_process(command, cwd=job.parent, stdout=None, env=dict(os.environ))


async def ended(process: Process) -> tuple[int, str]:
    assert process.stderr is not None
    said = b"".join([part async for part in process.stderr])
    return await process.wait(), said.decode()


class Counted(Emulator):
    """An emulator without a quota, that knows how late it may have noticed an arrival."""

    late = 0.0

    async def watch(self) -> None:
        while True:
            due = time.monotonic() + 0.01
            await anyio.sleep(0.01)
            self.late = max(self.late, time.monotonic() - due)

    def above(self) -> int:
        """The most that came in any second, less what this process and the way there may have delayed them by."""
        return most(list(self.counts.arrivals), max(0.2, 0.95 - self.late))


@asynccontextmanager
async def emulator() -> AsyncIterator[Counted]:
    settings = Settings(tokenizer="bytes", latency=0.05, rpm=float("inf"))
    async with Counted(settings) as served, anyio.create_task_group() as group:
        group.start_soon(served.watch)
        yield served
        group.cancel_scope.cancel()


def most(arrivals: Sequence[float], seconds: float) -> int:
    """The most that came in any so many seconds."""
    first = found = 0
    for last, at in enumerate(arrivals):
        while at - arrivals[first] >= seconds:
            first += 1
        found = max(found, last + 1 - first)
    return found


async def until(served: Emulator, requests: int) -> None:
    while served.counts.requests < requests:  # noqa: ASYNC110 other processes ask
        await anyio.sleep(0.02)


async def test_three_jobs_keep_one_quota_whatever_happens_to_them(tmp_path: Path, account: str) -> None:
    """One starts late, the one that keeps the quota is killed and started again: never above it, and all finish."""
    async with emulator() as served:
        jobs = [
            job_file(tmp_path, served.url, f"job{n}", account, queries=q)
            for n, q in enumerate((300, 100, 50))
        ]
        first = await start(jobs[0])
        await until(served, 20)  # it keeps the quota
        second = await start(jobs[1])
        await until(served, 120)
        third = await start(jobs[2])
        await until(served, 160)
        first.kill()
        await ended(first)
        again = await start(jobs[0])
        for process in (second, third, again):
            code, said = await ended(process)
            assert code == 0, said
    arrivals = list(served.counts.arrivals)
    assert len(arrivals) >= 450
    assert served.above() <= RPS and most(arrivals, 60) <= RPS * 60


@pytest.mark.slow
async def test_who_keeps_it_may_be_stopped_for_a_while(tmp_path: Path, account: str) -> None:
    """Five seconds in which its process does nothing: nobody passes the quota then or afterwards, and all end."""
    async with emulator() as served:
        jobs = [job_file(tmp_path, served.url, f"job{n}", account, queries=150) for n in range(3)]
        first = await start(jobs[0])
        await until(served, 20)
        others = [await start(job) for job in jobs[1:]]
        await until(served, 100)
        first.send_signal(signal.SIGSTOP)
        await anyio.sleep(5)
        first.send_signal(signal.SIGCONT)
        for process in (first, *others):
            code, said = await ended(process)
            assert code == 0, said
    assert served.above() <= RPS


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_kills_at_random_keep_the_quota(tmp_path: Path, account: str, seed: int) -> None:
    """Whoever is killed, and however soon it is started again: never above the quota, and all is ranked in the end."""
    chance = random.Random(seed)
    async with emulator() as served:
        jobs = [job_file(tmp_path, served.url, f"job{n}", account, queries=150) for n in range(3)]
        running = [await start(job) for job in jobs]
        for _ in range(8):
            await anyio.sleep(chance.uniform(0.3, 1.5))
            number = chance.randrange(3)
            running[number].kill()
            await ended(running[number])
            running[number] = await start(jobs[number])
        for process in running:
            code, said = await ended(process)
            assert code == 0, said
    assert served.above() <= RPS


async def test_another_quota_is_an_error_before_anything_is_sent(tmp_path: Path, account: str) -> None:
    """Exit 2, with both numbers and whose job says the other."""
    async with emulator() as served:
        first = await start(job_file(tmp_path, served.url, "first", account, queries=2000))
        await until(served, 5)
        code, said = await ended(
            await start(job_file(tmp_path, served.url, "other", account, queries=5, rpm=600))
        )
        assert code == 2
        assert "job first (process" in said and "rate.rpm 1,800" in said and "rate.rpm 600" in said
        first.terminate()
        await ended(first)
