"""Full disks, damaged or busy files, and clocks that jump: the run stops with a reason, and nothing is lost."""

import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import numpy as np
import orjson
import pytest
from against import KEY, PATH, same, world
from jobs import outputs, rows

from batchrank.data import Answer
from batchrank.errors import LedgerError, OutputError
from batchrank.ledger.ledger import Ledger
from batchrank.pipeline.run import Run
from batchrank.pipeline.workers import background_task

ANYIO = pytest.mark.anyio
REAL = pytest.mark.real_clock


async def command(folder: Path, url: str, file_bytes: int | None) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process whose files may not grow beyond so many bytes."""
    job = {
        "input": {"path": "in.jsonl"}, "model": "qwen3-rerank", "endpoint": {"url": url},
        "limits": {"documents": 10}, "merge": {"top_k": 5}, "tokenizer": "bytes",
        "output": {"path": "out", "format": "jsonl"},
        "rate": {"rpm": 60_000},
    }  # fmt: skip
    (folder / "job.yaml").write_bytes(orjson.dumps(job))
    limit = (
        (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))) if file_bytes else None
    )
    return await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-m", "batchrank", "run", "job.yaml"],
            cwd=folder, capture_output=True, preexec_fn=limit, check=False,
            env={**os.environ, "DASHSCOPE_API_KEY": KEY, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )
    )  # fmt: skip


@ANYIO
@REAL
@pytest.mark.slow
async def test_a_full_disk_under_the_ledger_loses_nothing(tmp_path: Path) -> None:
    """The run stops with exit code 1 and says why; with room again it goes on, and no kept answer is asked again."""
    async with world(tmp_path, queries=8, latency=0.0, rpm=float("inf")) as w:
        stopped = await command(tmp_path, w.emulator.url + PATH, 200_000)
        assert stopped.returncode == 1
        assert b"ledger.sqlite: the ledger can't be written, the disk may be full" in stopped.stderr
        done = await command(tmp_path, w.emulator.url + PATH, None)
        assert done.returncode == 0, done.stderr
        assert w.emulator.counts.paid_twice <= 16  # in flight when the disk was full
        await w.run(w.job("other"))
        assert same(w.job(), w.job("other"))


@ANYIO
@REAL
@pytest.mark.slow
async def test_a_full_disk_under_the_output_loses_nothing(tmp_path: Path) -> None:
    """The half-written part is given up, the answers are kept: the next run pays nothing for them."""
    data = rows(12, 34)
    for row in data:
        for candidate in row["candidates"]:
            candidate["id"] += "x" * 20_000
    async with world(tmp_path, data=data, latency=0.0, rpm=float("inf")) as w:
        stopped = await command(tmp_path, w.emulator.url + PATH, 5_500_000)
        assert stopped.returncode == 1, stopped.stderr
        assert b"ranking-00000.jsonl can't be written" in stopped.stderr and b"free space" in stopped.stderr
        assert outputs(w.job()) == {}
        done = await command(tmp_path, w.emulator.url + PATH, None)
        assert done.returncode == 0, done.stderr
        assert w.emulator.counts.paid_twice == 0


@ANYIO
async def test_an_output_that_is_no_folder_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    """Nothing is paid for that could not be kept."""
    async with world(tmp_path) as w:
        (tmp_path / "out").write_text("a file")
        with pytest.raises((LedgerError, OutputError), match="out"):
            await w.run(w.job())
        assert w.emulator.requests == 0


@ANYIO
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_read_only_output_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    """The same for a folder without permission to write."""
    async with world(tmp_path) as w:
        (tmp_path / "out").mkdir(mode=0o500)
        with pytest.raises(LedgerError, match="can't be opened"):
            await w.run(w.job())
        assert w.emulator.requests == 0


@ANYIO
async def test_two_runs_of_one_job_do_not_meet(tmp_path: Path) -> None:
    """The second is refused at once, in this process or another, and the first goes on undisturbed."""
    async with world(tmp_path) as w:
        job = w.job()
        async with anyio.create_task_group() as group:
            group.start_soon(Run(job).execute)
            while w.emulator.requests < 3:  # noqa: ASYNC110 nothing tells
                await anyio.sleep(0.01)
            for _ in range(2):
                with pytest.raises(
                    OutputError, match=r"another batchrank process .* is writing to this folder"
                ):
                    await w.run(job)
        await w.run(w.job("other"))
        assert same(job, w.job("other"))


def test_a_refused_second_opening_leaves_the_lock_to_the_first(tmp_path: Path) -> None:
    """Closing a file ends a process's POSIX locks on it: opening the ledger must never open and close it besides."""
    path = tmp_path / "ledger.sqlite"
    first = Ledger(path)
    with pytest.raises(LedgerError):
        Ledger(path)
    code = "import sys; from pathlib import Path; from batchrank.ledger.ledger import Ledger; Ledger(Path(sys.argv[1]))"
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    other = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, check=False, env=environ
    )
    first.close()
    assert b"another batchrank process" in other.stderr


@ANYIO
async def test_a_flipped_bit_in_an_answer_never_becomes_a_ranking(tmp_path: Path) -> None:
    """SQLite has no checksums of its own: each answer carries one."""
    path = tmp_path / "ledger.sqlite"
    values = np.array([0.123456789, 0.987654321, 0.5])
    ledger = Ledger(path)
    await ledger.begin(1)
    await ledger.put(b"key", Answer(values, 10), 10)
    ledger.close()
    data = bytearray(path.read_bytes())
    at = data.index(values.astype("<f8").tobytes())
    data[at + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(LedgerError, match=r"damaged.*checksum"):
        Ledger(path)


@ANYIO
async def test_a_damaged_ledger_stops_the_run_before_it_pays_again(tmp_path: Path) -> None:
    """Pages of garbage: exit with the ledger's name, no ranking from it, no request for what it may hold."""
    async with world(tmp_path, queries=20) as w:
        await w.run(w.job())
        path, asked = tmp_path / "out" / "ledger.sqlite", w.emulator.requests
        data = bytearray(path.read_bytes())
        data[8192:] = random.Random(0).randbytes(len(data) - 8192)
        path.write_bytes(data)
        before = outputs(w.job())
        with pytest.raises(LedgerError, match="damaged"):
            report = await w.run(w.job())
            assert report.reason is not None
            raise report.reason
        assert outputs(w.job()) in (before, {})
        assert w.emulator.requests <= asked + 16


@ANYIO
async def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time of day is used for HTTP-dates alone: years back and forth cost a bounded pause, and no query."""
    rng, true = random.Random(0), time.time

    def jumping() -> float:
        return true() + rng.uniform(-1e8, 1e8)

    faults = {"429-requests+after-date": 0.1, "503+after-date": 0.1, "500": 0.1}
    async with world(tmp_path, queries=4, faults=faults) as w:
        monkeypatch.setattr(time, "time", jumping)
        report = await w.run(w.job())
        monkeypatch.undo()
        assert report.exit_code == 0 and report.data["process"]["seconds"] >= 0
        await w.run(w.job("other"))
        assert same(w.job(), w.job("other"))


@ANYIO
async def test_a_ledger_whose_server_was_cancelled_still_keeps_answers(tmp_path: Path) -> None:
    """Cancellation reaches the ledger's task as soon as anyone: whoever is finishing still commits."""
    ledger = Ledger(tmp_path / "ledger.sqlite")
    answer = Answer(np.array([1.0]), 1)

    async def finishing(key: bytes) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await ledger.put(key, answer, 1)

    async with anyio.create_task_group() as group:
        group.start_soon(ledger.serve)
        for number in range(20):
            group.start_soon(finishing, bytes([number]))
        await anyio.sleep(1)
        group.cancel_scope.cancel()
    assert (await ledger.begin(0)).answers == 20
    ledger.close()


@ANYIO
async def test_a_commit_under_way_survives_cancellation(tmp_path: Path) -> None:
    """Cancelled at any moment of a commit, a group is committed as a whole, and its waiters are told."""
    path = tmp_path / "ledger.sqlite"
    answer = Answer(np.array([1.0]), 1)

    async def put(ledger: Ledger, key: bytes) -> None:
        await ledger.put(key, answer, 1)

    for delay in range(8):
        ledger = Ledger(path)
        with anyio.CancelScope() as scope:
            async with background_task(ledger.serve), anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(put, ledger, bytes([delay, number]))
                for _ in range(delay):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
        ledger.close()
    ledger = Ledger(path)
    assert (await ledger.begin(0)).answers >= 30
    ledger.close()
