"""Jobs that are started by themselves share one account's quota: real processes against one server."""

import os
import random
import signal
import sys
import time
import uuid
from bisect import bisect, bisect_left
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
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


async def start(served: "Counted", job: Path) -> Process:
    command = (sys.executable, "-m", "batchrank", "run", job.name, "--quiet")
    process = await anyio.open_process(command, cwd=job.parent, stdout=None, env=dict(os.environ))
    served.jobs.add(process.pid)
    return process


async def ended(process: Process) -> tuple[int, str]:
    assert process.stderr is not None
    said = b"".join([part async for part in process.stderr])
    return await process.wait(), said.decode()


class Counted(Emulator):
    """An emulator without a quota, that knows how long a busy machine held up its jobs and itself, and when."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.jobs = set[int]()
        self._at, self._held = [0.0], [0.0]

    async def watch(self) -> None:
        """Add up the seconds that this process came late, and those that a job's threads waited for a processor."""
        held, waited = 0.0, dict[Path, float]()
        while True:
            due = time.monotonic() + 0.01
            await anyio.sleep(0.01)
            held += time.monotonic() - due
            for thread, seconds in waits(self.jobs):
                held += seconds - waited.get(thread, seconds)
                waited[thread] = seconds
            self._at.append(time.monotonic())
            self._held.append(held)

    def above(self) -> int:
        """The most that came in any second, less what they may have been held up by on their way."""
        arrivals, found = list(self.counts.arrivals), 0
        for number, at in enumerate(arrivals):
            first, last = (bisect(self._at, at + by) - 1 for by in (-1, 1))
            seconds = max(0.2, 0.95 - (self._held[last] - self._held[first]))
            found = max(found, bisect_left(arrivals, at + seconds) - number)
        return found


def waits(processes: Iterable[int]) -> Iterator[tuple[Path, float]]:
    """How many seconds each thread of some processes has waited for a processor so far, as Linux tells."""
    for pid in processes:
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(OSError):  # it has ended
                yield thread, int(thread.read_text().split()[1]) / 1e9


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


@pytest.mark.slow
async def test_three_jobs_keep_one_quota_whatever_happens_to_them(tmp_path: Path, account: str) -> None:
    """One starts late, the one that keeps the quota is killed and started again: never above it, and all finish."""
    async with emulator() as served:
        jobs = [
            job_file(tmp_path, served.url, f"job{n}", account, queries=q) for n, q in enumerate((120, 60, 20))
        ]
        first = await start(served, jobs[0])
        await until(served, 20)  # it keeps the quota
        second = await start(served, jobs[1])
        await until(served, 50)
        third = await start(served, jobs[2])
        await until(served, 80)
        first.kill()
        await ended(first)
        again = await start(served, jobs[0])
        for process in (second, third, again):
            code, said = await ended(process)
            assert code == 0, said
    arrivals = list(served.counts.arrivals)
    assert len(arrivals) >= 200
    assert served.above() <= RPS and most(arrivals, 60) <= RPS * 60


@pytest.mark.slow
async def test_who_keeps_it_may_be_stopped_for_a_while(tmp_path: Path, account: str) -> None:
    """Five seconds in which its process does nothing: nobody passes the quota then or afterwards, and all end."""
    async with emulator() as served:
        jobs = [job_file(tmp_path, served.url, f"job{n}", account, queries=60) for n in range(3)]
        first = await start(served, jobs[0])
        await until(served, 20)
        others = [await start(served, job) for job in jobs[1:]]
        await until(served, 60)
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
        jobs = [job_file(tmp_path, served.url, f"job{n}", account, queries=60) for n in range(3)]
        running = [await start(served, job) for job in jobs]
        for _ in range(5):
            await anyio.sleep(chance.uniform(0.3, 1.5))
            number = chance.randrange(3)
            running[number].kill()
            await ended(running[number])
            running[number] = await start(served, jobs[number])
        for process in running:
            code, said = await ended(process)
            assert code == 0, said
    assert served.above() <= RPS


async def test_another_quota_is_an_error_before_anything_is_sent(tmp_path: Path, account: str) -> None:
    """Exit 2, with both numbers and whose job says the other."""
    async with emulator() as served:
        first = await start(served, job_file(tmp_path, served.url, "first", account, queries=2000))
        await until(served, 5)
        code, said = await ended(
            await start(served, job_file(tmp_path, served.url, "other", account, queries=5, rpm=600))
        )
        assert code == 2
        assert "job first (process" in said and "rate.rpm 1,800" in said and "rate.rpm 600" in said
        first.terminate()
        await ended(first)
