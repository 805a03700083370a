"""Bits flipped in what a killed run left: the same output or a clear stop, and never more billed than the cap."""

import random
import shutil
from collections import Counter
from pathlib import Path

import anyio
import pytest
from against import World, world
from crash_damage import flip
from jobs import outputs

from batchrank.errors import BatchrankError, LedgerError, OutputError
from batchrank.job.config import Job

pytestmark = pytest.mark.anyio


async def cut_off(w: World, job: Job, to: Path) -> int:
    """What a kill in the midst of a run leaves, copied while it goes on; what was billed by then."""
    out = to.with_name("out")

    async def copy() -> None:
        while len(list(out.glob("ranking-*"))) < 3:  # noqa: ASYNC110 nothing tells
            await anyio.sleep(0.05)
        shutil.copytree(out, to)
        billed.append(w.emulator.counts.tokens)

    billed: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(copy)
        assert (await w.run(job, part_documents=60)).exit_code == 0
    assert (to / "ledger.sqlite-wal").stat().st_size > 0
    return billed[0]


async def flips(folder: Path, *, count: int, seed: int) -> Counter[str]:
    """Flip bits, one for each run; what came of it."""
    found: Counter[str] = Counter()
    rng = random.Random(seed)
    async with world(folder, queries=12, latency=0.3) as w:
        billed = await cut_off(w, w.job(), folder / "snapshot")
        cap = 2 * w.emulator.counts.tokens
        job = w.job(budget={"max_tokens": cap})
        expected = outputs(job)
        files = sorted(path.name for path in (folder / "snapshot").iterdir() if path.stat().st_size)
        for _ in range(count):
            shutil.rmtree(folder / "out")
            shutil.copytree(folder / "snapshot", folder / "out")
            path = folder / "out" / rng.choice(files)
            flip(path, rng)
            before = w.emulator.counts.tokens
            try:
                report = await w.run(job, part_documents=60)
            except BatchrankError as error:
                assert isinstance(error, LedgerError | OutputError) and w.emulator.counts.tokens == before, (
                    path.name
                )
                found["stopped"] += 1
            else:
                assert report.exit_code == 0 and outputs(job) == expected, path.name
                assert billed + w.emulator.counts.tokens - before <= cap
                found["the same"] += 1
    return found


async def test_a_flipped_bit_never_becomes_an_output(tmp_path: Path) -> None:
    """In the ledger, its log, a part, the dead letters, the folder's lock: the same bytes, or nothing is sent."""
    found = await flips(tmp_path, count=15, seed=2)
    assert found["stopped"] > 1 and found["the same"] > 1


@pytest.mark.slow
async def test_hundreds_of_flipped_bits(tmp_path: Path) -> None:
    """The same at more places."""
    assert (await flips(tmp_path, count=150, seed=2)).total() == 150


@pytest.mark.parametrize("lost", ["ledger.sqlite", "ledger.sqlite-wal"])
async def test_a_lost_file_is_a_stop_or_costs_what_is_in_it(tmp_path: Path, lost: str) -> None:
    """Without the ledger nothing starts; without its log the last seconds are paid again, within the cap."""
    async with world(tmp_path, queries=12, latency=0.3) as w:
        billed = await cut_off(w, w.job(), tmp_path / "snapshot")
        cap = 2 * w.emulator.counts.tokens
        job = w.job(budget={"max_tokens": cap})
        expected = outputs(job)
        shutil.rmtree(tmp_path / "out")
        shutil.move(tmp_path / "snapshot", tmp_path / "out")
        (tmp_path / "out" / lost).unlink()
        before = w.emulator.counts.tokens
        if lost == "ledger.sqlite":
            with pytest.raises(LedgerError, match="gone"):
                await w.run(job, part_documents=60)
            assert w.emulator.counts.tokens == before
        else:
            assert (await w.run(job, part_documents=60)).exit_code == 0
            assert outputs(job) == expected
            assert billed + w.emulator.counts.tokens - before <= cap
