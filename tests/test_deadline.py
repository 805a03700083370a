"""A run that has to end in time: it does, nothing is lost, and it says early that it won't be done."""

import time
from datetime import datetime
from pathlib import Path

import anyio
import orjson
import pytest
from against import same, world
from jobs import cut, make_job, rows, write_jsonl

from batchrank.cli.status import status
from batchrank.errors import JobError
from batchrank.ledger import state as clock
from batchrank.observe.observer import Observer
from batchrank.pipeline.deadline import Pace, Until, first
from batchrank.pipeline.run import Options, Run

pytestmark = pytest.mark.anyio


def seconds(text: str) -> float:
    """Seconds from noon to the next time that a clock shows so."""
    noon = datetime(2026, 11, 26, 12, 0).timestamp()
    return Until.clock(text, noon).at - noon


def test_the_next_such_time_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Today's if it is to come, else tomorrow's; summer time is the clock's own business."""
    assert (seconds("13:30"), seconds("06:00"), seconds("12:00")) == (5_400, 18 * 3_600, 24 * 3_600)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        evening = datetime(2026, 3, 28, 23, 0).timestamp()
        assert Until.clock("06:00", evening).at - evening == 6 * 3_600
    finally:
        monkeypatch.undo()
        time.tzset()


def test_spans_are_as_people_write_them() -> None:
    """Of the two ends, the earlier one counts."""
    assert [Until.after(text, 0).at for text in ("2h", "90m", "1h30m", "45s", "1d")] == [
        7_200, 5_400, 5_400, 45, 86_400,
    ]  # fmt: skip
    assert first(None, None, 0) is None
    end = first("1s", "06:00", 0)
    assert end is not None and end.ended == "--max-time 1s leaves no time to send more"


@pytest.mark.parametrize("text", ["", "2", "2 hours", "-1h", "0m", "1.5h"])
def test_what_is_no_span_is_said_to_be_none(text: str) -> None:
    """With what to write instead."""
    with pytest.raises(JobError, match="write one such as 2h"):
        Until.after(text, 0)


@pytest.mark.parametrize("text", ["6", "25:00", "06", "tomorrow", "06:00+02:00"])
def test_what_is_no_time_is_said_to_be_none(text: str) -> None:
    """With what to write instead."""
    with pytest.raises(JobError, match="write it as 06:00"):
        Until.clock(text, 0)


def test_only_the_better_pace_makes_it_clear() -> None:
    """A slow start is no reason to warn; a run that has become slow is, once its mean is too slow as well."""
    fast, slow = Pace(), Pace()
    for at in range(1, 101):
        fast.add(at, 0.1 * (at > 50) * (at - 50) / 50, "rate")
        slow.add(at, min(0.1, at / 500), "rate")
    assert fast.ahead(450, (0, 0)) > 0.95
    assert 0.5 < slow.ahead(450, (0, 0)) < 0.6


async def test_it_ends_in_time_and_loses_nothing(tmp_path: Path) -> None:
    """Requests in flight are answered by then; each later run goes on, and in the end the output is that of one."""
    async with world(tmp_path, queries=36, latency=2.0, sections={"rate": {"rpm": 300}}) as w:
        job, other = w.job(), w.job("other")
        codes: list[int] = []
        while not codes or codes[-1] == 75:
            began = clock.wall()
            report = await w.run(job, part_documents=150, until=Until(began + 30, "06:00"))
            codes.append(report.exit_code)
            assert clock.wall() - began <= 30
            assert report.data["process"]["ambiguous"] == 0
            if report.exit_code:
                assert clock.wall() - began > 20  # no more is left unused than answers take
                assert "--until 06:00 leaves no time to send more; run the job again" in str(report.reason)
        assert codes[-1] == 0 and 2 < len(codes) < 8
        assert w.paid_twice == 0
        await w.run(other, part_documents=150)
        assert same(job, other)


async def test_what_is_not_answered_by_then_is_cut_off(tmp_path: Path) -> None:
    """A server that falls silent holds nothing up; its requests count as possibly billed."""
    data = rows(30, 8)
    for row in data[20:]:
        row["query"] += " slow"
    async with world(tmp_path, data=data, latency=0.1, poison={"slow": "silence"}, silence=1000.0) as w:
        began = clock.wall()
        report = await Run(w.job(), Options(until=Until(began + 40, "06:00"))).execute()
        assert report.exit_code == 75 and clock.wall() - began <= 40
        assert report.data["process"]["ambiguous"] > 0 and report.data["totals"]["queries"] == 20


async def test_a_run_that_is_done_before_is_done(tmp_path: Path) -> None:
    """No word of the end."""
    async with world(tmp_path) as w:
        report = await Run(w.job(), Options(until=Until(clock.wall() + 3_600, "06:00"))).execute()
        assert report.exit_code == 0 and not any("06:00" in notice for notice in report.data["notices"])


@pytest.mark.parametrize("limit", [None, 400])
async def test_that_it_will_not_be_done_is_said_early(
    tmp_path: Path, limit: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once, with how far it will be and what holds it back; so do progress and status, while it runs."""
    queries = 400 if limit is None else 2_000
    async with world(tmp_path, queries=queries, candidates=8, sections={"rate": {"rpm": 120}}) as w:
        job = w.job(input={"limit": limit} if limit else {}, merge={"method": "raw"})
        began = clock.wall()
        run = Run(job, Options(until=Until(began + 100, "06:00")))
        told: list[tuple[float, str, str | None]] = []

        async def watch() -> None:
            while not told:
                await anyio.sleep(1)
                if run.notices and (progress := run.progress()):
                    told.append((clock.wall() - began, run.notices[0], progress.forecast))
                    await anyio.sleep(2)
                    status(str(tmp_path / "out"))

        with Observer(run) as observer:
            async with anyio.create_task_group() as group:
                group.start_soon(observer.watch)
                group.start_soon(watch)
                report = await run.execute()
                group.cancel_scope.cancel()
            observer.ended(report)
        ((when, notice, forecast),) = told
        assert when < 40 and report.exit_code == 75
        assert notice.startswith("it won't be done in time: at this pace ")
        done = report.data["totals"]["queries"] / 400
        assert forecast is not None and "by 06:00; rate.rpm binds" in forecast
        assert abs(int(forecast.split("%")[0].split()[-1]) / 100 - done) < 0.1
        assert "forecast" in capsys.readouterr().out
        assert sum("won't be done" in n for n in report.data["notices"]) == 1
        status(str(tmp_path / "out"))
        shown = capsys.readouterr().out
        assert "under way" not in shown and "in flight" not in shown
        data = orjson.loads((tmp_path / "out" / "status.json").read_bytes())
        assert abs(data["progress"]["share"] - done) < 0.05


async def test_no_end_is_foretold_from_what_an_earlier_process_did(tmp_path: Path) -> None:
    """A run that goes on tells the time to go by its own pace."""
    async with world(tmp_path, queries=300, candidates=8, sections={"rate": {"rpm": 120}}) as w:
        job = w.job(merge={"method": "raw"})
        await w.run(job, part_documents=80, until=Until(clock.wall() + 80, "06:00"))
        run = Run(cut(job, 80))
        eta: list[float] = []

        async def watch() -> None:
            while not eta:
                await anyio.sleep(1)
                progress = run.progress()
                if progress and progress.queries > 200 and progress.eta is not None:
                    eta.append(
                        progress.eta / progress.elapsed * (progress.queries - 130) / (300 - progress.queries)
                    )

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            assert (await run.execute()).exit_code == 0
        assert 0.5 < eta[0] < 2


def test_wrong_times_are_usage(tmp_path: Path) -> None:
    """Exit code 2, before anything is sent or written."""
    from test_cli import batchrank

    make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(2, 4)))
    for option in ("--max-time", "--until"):
        ended = batchrank("run", "out.yaml", option, "soon", cwd=tmp_path)
        assert (ended.returncode, (tmp_path / "out").exists()) == (2, False)
        assert option.encode() in ended.stderr
    ended = batchrank("run", "out.yaml", "--max-time", "1h", cwd=tmp_path)
    assert ended.returncode == 0
