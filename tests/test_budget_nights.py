"""Nights of one job whose cap is reached every third night: what each night costs, writes and leaves to do."""

import io
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from against import World, world
from jobs import rankings, rows, write_jsonl

from batchrank.job.config import Job
from batchrank.ledger.ledger import Ledger
from batchrank.ledger.rows import DAY
from batchrank.pipeline import assemble, resume
from batchrank.pipeline.report import Report

pytestmark = pytest.mark.anyio
CAP = 9_000
BEGIN = 20_000.1 * DAY


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time of day as ledgers and runs are told it: a list of one, to be changed."""
    time = [BEGIN]
    monkeypatch.setattr(assemble, "Ledger", partial(Ledger, now=lambda: time[0]))
    monkeypatch.setattr(resume, "wall", lambda: time[0])
    yield time


def tonight(night: int, *, big: bool) -> list[dict[str, Any]]:
    """A night's queries, which nobody asked before; those of a big one cost more than the cap."""
    data = rows(16, 24) if big else rows(4, 8)
    for row in data:
        row["query"] += f" {night:02}"
    return data


def give(data: list[dict[str, Any]], path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a night's input where the job reads it."""
    if how == "stdin":
        text = b"".join(orjson.dumps(row) + b"\n" for row in data)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(text))))
    elif how == "files":
        for old in path.parent.glob("*.jsonl"):
            old.unlink()
        write_jsonl(path.parent / f"{data[0]['query'][-2:]}.jsonl", data)
    else:
        write_jsonl(path, data)


def nightly(w: World, how: str, per: str, cap: int = CAP) -> Job:
    path = {"stdin": "-", "files": str(w.data.parent / "*.jsonl")}.get(how, str(w.data))
    return w.job(
        input={"path": path, "format": "jsonl"}, budget={"max_tokens": cap, "per": per},
        reuse={"audit": 0},  # which pays for an old request again, where a cap left a list half asked
    )  # fmt: skip


async def go_on(w: World, job: Job, data: Any, how: str, monkeypatch: pytest.MonkeyPatch) -> Report:
    """The same command once more, on the same input."""
    if how == "stdin":
        give(data, w.data, how, monkeypatch)
    return await w.run(job, part_documents=60)


@pytest.mark.parametrize("per", ["run", "day"])
@pytest.mark.parametrize(
    ("how", "nights"),
    [("replaced", 7), ("files", 7), ("stdin", 7), pytest.param("replaced", 20, marks=pytest.mark.slow)],
)
async def test_every_night_is_complete_or_can_be_gone_on_with(
    tmp_path: Path, now: list[float], monkeypatch: pytest.MonkeyPatch, how: str, nights: int, per: str
) -> None:
    """A cap that was reached holds nothing back the next night, and the emulator's bill never passes it."""
    async with world(tmp_path, queries=1) as w:
        (tmp_path / "data").mkdir()
        w.data = w.data.rename(tmp_path / "data" / "in.jsonl")
        job = nightly(w, how, per)
        for night in range(nights):
            now[0] = BEGIN + night * 30 * DAY  # time enough for all that a night left
            big = night % 3 == 2
            data = tonight(night, big=big)
            give(data, w.data, how, monkeypatch)
            before = w.emulator.counts.tokens
            whole = rankings(job) if night else []
            report = await w.run(job, part_documents=60)
            bill = w.emulator.counts.tokens - before
            assert 0 < bill <= CAP, (night, bill)
            if not big:
                assert report.exit_code == 0, (night, report.reason)
                assert [one["query_id"] for one in rankings(job)] == [row["query_id"] for row in data]
                continue
            assert report.exit_code == (75 if per == "day" else 1) and bill > CAP / 2
            assert rankings(job) == whole  # last night's
            again = await go_on(w, job, data, how, monkeypatch)
            assert again.exit_code == report.exit_code and w.emulator.counts.tokens - before <= CAP
            while (
                report.exit_code and night % 2
            ):  # gone on with; on other nights tomorrow's input replaces it
                before = w.emulator.counts.tokens
                now[0] += 0 if per == "run" else DAY
                job = nightly(w, how, per, 100 * CAP) if per == "run" else job
                report = await go_on(w, job, data, how, monkeypatch)
                assert report.exit_code == 0 or 0 < w.emulator.counts.tokens - before <= CAP
                job = nightly(w, how, per)
            assert len(rankings(job)) == (16 if night % 2 else 4)
        assert w.paid_twice == 0


@pytest.mark.parametrize("how", ["replaced", "stdin"])
async def test_tonights_input_may_look_like_last_nights(
    tmp_path: Path, now: list[float], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Files of the same name and size, and standard input: the next day is a run of its own, the same day isn't."""
    async with world(tmp_path, queries=1) as w:
        job = nightly(w, how, "run")
        for night in range(4):
            now[0] = BEGIN + night * DAY
            for hour in range(3):
                give(tonight(night, big=True), w.data, how, monkeypatch)
                now[0] += hour * 3_600
                before = w.emulator.counts.tokens
                assert (await w.run(job, part_documents=60)).exit_code == 1
                bill = w.emulator.counts.tokens - before
                assert CAP / 2 < bill <= CAP if hour == 0 else bill == 0, (night, hour, bill)


async def test_an_input_that_stays_the_same_stays_one_run(tmp_path: Path, now: list[float]) -> None:
    """Nobody gave it anything new to do: a cap that was reached is a person's business, however many days pass."""
    async with world(tmp_path, data=tonight(0, big=True)) as w:
        job = nightly(w, "replaced", "run")
        for night in range(3):
            now[0] = BEGIN + night * DAY
            report = await w.run(job)
            assert report.exit_code == 1 and "raise budget.max_tokens" in " ".join(report.data["notices"])
        assert w.emulator.counts.tokens <= CAP
