"""Signals: the first one drains, the second ends at once; a blocked standard input holds nothing up."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import orjson
import pytest
from against import KEY, PATH, same, world
from jobs import outputs, rows

from batchrank.emulator.app import Emulator
from batchrank.errors import InterruptedRunError, StoppedError
from batchrank.job.load import load_job
from batchrank.pipeline.run import Options, Run

pytestmark = pytest.mark.anyio


async def start(
    folder: Path, emulator: Emulator, *, stdin: bool = False, **sections: object
) -> asyncio.subprocess.Process:
    """Start the command on a job that is already in the folder, or whose input is a pipe."""
    job = {
        "input": {"path": "-" if stdin else "in.jsonl"},
        "model": "qwen3-rerank",
        "endpoint": {"url": emulator.url + PATH},
        "limits": {"documents": 10},
        "tokenizer": "bytes",
        "output": {"path": "out", "format": "jsonl"},
        **sections,
    }
    (folder / "job.yaml").write_bytes(orjson.dumps(job))
    pipe = asyncio.subprocess.PIPE
    before = signal.signal(
        signal.SIGHUP, signal.SIG_DFL
    )  # tests under nohup ignore it, and so would the command
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "batchrank", "run", "job.yaml"),
            cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe,
            env={**os.environ, "DASHSCOPE_API_KEY": KEY, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGHUP, before)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 another process
            await asyncio.sleep(0.005)


@pytest.mark.real_clock
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        (signal.SIGHUP, 129),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
async def test_the_first_signal_drains(
    tmp_path: Path, number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in flight is waited for and kept: started again, the run repeats no request."""
    async with world(tmp_path, rpm=float("inf"), queries=12, latency=0.1) as w:
        process = await start(tmp_path, w.emulator)
        await until(lambda: w.emulator.requests > 10)
        process.send_signal(number)
        _, errors = await process.communicate()
        assert process.returncode == code, errors
        assert b"waiting for requests in flight" in errors and b"run the job again to continue" in errors
        assert w.summary(w.job())["process"]["ambiguous"] == 0
        monkeypatch.setenv("DASHSCOPE_API_KEY", KEY)
        assert (await w.run(load_job(tmp_path / "job.yaml", overrides=["rate.rpm=1000000"]))).exit_code == 0
        assert w.emulator.counts.paid_twice == 0


@pytest.mark.real_clock
async def test_the_second_signal_ends_at_once(tmp_path: Path) -> None:
    """Somebody who insists is not kept waiting; what was in flight counts as ambiguous in the next run."""
    async with world(tmp_path, queries=4, latency=60) as w:
        process = await start(tmp_path, w.emulator)
        assert process.stderr is not None
        await until(lambda: w.emulator.counts.open > 2)
        process.send_signal(signal.SIGTERM)
        while b"once more to stop at once" not in await process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        with anyio.fail_after(10):
            _, errors = await process.communicate()
        assert process.returncode == 143
        assert b"SIGTERM again: stopped at once; answers that were lost, and possibly billed: " in errors
        assert b": 0\n" not in errors


@pytest.mark.real_clock
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (None, 1)])
async def test_a_blocked_standard_input_holds_nothing_up(
    tmp_path: Path, number: signal.Signals | None, code: int
) -> None:
    """Nobody closes the pipe: an interrupted run, and one that the API stops, end all the same."""
    async with world(tmp_path, script={} if number else {2: "400-arrearage"}) as w:
        process = await start(tmp_path, w.emulator, stdin=True)
        assert process.stdin is not None
        process.stdin.writelines(orjson.dumps(row) + b"\n" for row in rows(250, 12))
        with anyio.fail_after(20):
            if number:
                await until(lambda: w.emulator.requests > 1)
                process.send_signal(number)
            assert await process.wait() == code


async def test_the_drain_has_a_deadline(tmp_path: Path) -> None:
    """Requests without an answer by then are cut off and counted as ambiguous; the run can go on later."""
    async with world(tmp_path, queries=4, latency=0.05, poison={"slow": "silence"}, silence=1000.0) as w:
        data = rows(4, 24)
        data[2]["query"] += " slow"
        w.data.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in data))
        run = Run(w.job(), Options(drain=10))
        began = anyio.current_time()
        async with anyio.create_task_group() as group:

            async def stop() -> None:
                await anyio.sleep(5)
                run.stop(InterruptedRunError("stopped by the test", signal.SIGINT))

            group.start_soon(stop)
            report = await run.execute()
        assert report.exit_code == 130
        assert anyio.current_time() - began == pytest.approx(15, abs=0.5)
        assert report.data["process"]["ambiguous"] == 3
        assert report.data["totals"]["queries"] == 2  # the third is missing, so the fourth has to wait
        second = Run(w.job())
        w.emulator.settings.poison.clear()  # type: ignore[attr-defined]
        report = await second.execute()
        assert report.exit_code == 0
        assert report.data["spend"]["possibly_billed_tokens"] > 0
        await w.run(w.job("other"))
        assert same(w.job(), w.job("other"))


async def test_a_long_pause_of_the_limiter_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """Told to come back in a minute and then to stop: nothing is in flight, so the run ends now."""
    async with world(
        tmp_path, queries=2, candidates=14, faults={"429-requests+after-absurd": 1.0}, fault_limit=0
    ) as w:
        run = Run(w.job())
        began = anyio.current_time()
        async with anyio.create_task_group() as group:

            async def stop() -> None:
                await anyio.sleep(5)
                run.stop(StoppedError("stopped by the test"))

            group.start_soon(stop)
            report = await run.execute()
        assert (report.exit_code, outputs(w.job())) == (75, {})
        assert anyio.current_time() - began < 6


async def test_a_run_that_is_cancelled_from_outside_ends_and_keeps_its_answers(tmp_path: Path) -> None:
    """A program that gives up on a run cancels it: no deadlock, and the ledger has what was answered."""
    async with world(tmp_path, queries=20) as w:
        for seconds in (0.3, 0.5, 0.7):
            with anyio.move_on_after(seconds) as scope:
                await Run(w.job()).execute()
            assert scope.cancelled_caught
        before = w.emulator.counts.billed.total()
        report = await w.run(w.job())
        assert report.exit_code == 0 and before > 20
        killed = report.data["process"]["ambiguous"]
        assert w.emulator.counts.paid_twice <= 16 * 3 and killed == 0


async def test_a_fault_in_the_program_is_raised_as_it_is(tmp_path: Path) -> None:
    """A bug shows as its own traceback, not as a group of groups of errors."""
    async with world(tmp_path) as w:
        run = Run(w.job())
        run._tell = None  # type: ignore[assignment,method-assign]
        with pytest.raises(TypeError, match="not callable"):
            await run.execute()
