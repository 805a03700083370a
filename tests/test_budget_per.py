"""What a cap holds for: a run, a day, or all that the ledger ever paid; and what a scheduler is told at it."""

import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest
from against import World, same, world
from jobs import rows, write_jsonl

from batchrank.cli.status import status
from batchrank.ledger.rows import ANSWER, ROWS, answer_checksum, server_checksum
from batchrank.observe.observer import Observer
from batchrank.pipeline.run import Run

pytestmark = pytest.mark.anyio


def a_day_passes(path: Path) -> None:
    """Everything was spent a day earlier than it was."""
    db = sqlite3.connect(path)
    db.create_function("checksum", -1, server_checksum)
    db.create_function("answer_checksum", -1, answer_checksum)
    db.execute("UPDATE answers SET day = day - 1")
    db.execute(f"UPDATE answers SET digest = answer_checksum({ANSWER})")
    db.execute("UPDATE attempts SET day = day - 1")
    db.execute(f"UPDATE attempts SET digest = checksum({ROWS['attempts']})")
    db.commit()
    db.close()


async def nights(w: World, job: Any, most: int = 20) -> list[tuple[int, int]]:
    """A job that is started once a day until it is complete: exit codes, and what was billed each day."""
    found: list[tuple[int, int]] = []
    for _ in range(most):
        before = w.emulator.counts.tokens
        code = (await w.run(job, part_documents=60)).exit_code
        found.append((code, w.emulator.counts.tokens - before))
        if code == 0:
            break
        a_day_passes(job.ledger_path)
    return found


async def test_a_days_cap_lets_a_big_job_go_on_every_night(tmp_path: Path) -> None:
    """Each day spends up to the cap, 75 tells a scheduler that later helps, and the output is that of one night."""
    async with world(tmp_path, queries=16) as w:
        job, other = w.job(budget={"max_tokens": 12_000, "per": "day"}), w.job("other")
        found = await nights(w, job)
        assert len(found) > 2 and [code for code, _ in found] == [75] * (len(found) - 1) + [0]
        assert all(spent <= 12_000 for _, spent in found) and found[0][1] > 8_000
        assert w.paid_twice == 0
        await w.run(other, part_documents=60)
        assert same(job, other)


async def test_a_second_start_on_the_same_day_spends_no_more(tmp_path: Path) -> None:
    """And what is left to do is told in days; the summary tells the run's spending and the day's apart."""
    async with world(tmp_path, queries=16) as w:
        job = w.job(budget={"max_tokens": 12_000, "per": "day"})
        first, again = await w.run(job), await w.run(job)
        for report in (first, again):
            assert report.exit_code == 75 and "12,000 a day (UTC) could be passed" in str(report.reason)
            assert any("run the job again after midnight UTC" in n for n in report.data["notices"])
        assert w.emulator.counts.tokens <= 12_000
        assert any("at this cap it takes about 4 more days" in n for n in first.data["notices"])
        a_day_passes(tmp_path / "out" / "ledger.sqlite")
        spend = (await w.run(job)).data["spend"]
        assert w.emulator.counts.tokens <= 24_000
        assert (spend["per"], spend["tokens"] > 14_000, spend["counted_tokens"] <= 12_000) == (
            "day",
            True,
            True,
        )


async def test_a_cap_that_no_day_can_keep_needs_a_person(tmp_path: Path) -> None:
    """A request beyond it will not fit tomorrow either."""
    async with world(tmp_path) as w:
        report = await w.run(w.job(budget={"max_tokens": 100, "per": "day"}))
        assert report.exit_code == 1 and w.emulator.requests == 0


async def test_tonights_input_is_a_run_with_a_cap_of_its_own(tmp_path: Path) -> None:
    """Yesterday's reached cap holds nothing back; today's is a person's business once it is reached."""
    async with world(tmp_path, queries=10) as w:
        job = w.job(budget={"max_tokens": 10_000})
        for _ in range(2):
            report = await w.run(job)
            assert report.exit_code == 1 and "budget.max_tokens: 10,000 could be passed" in str(report.reason)
            assert any("raise budget.max_" in n for n in report.data["notices"])
        first = w.emulator.counts.tokens
        data = rows(16, 34)[10:]
        write_jsonl(w.data, data)
        report = await w.run(job)
        assert report.exit_code == 1 and first + 5_000 < w.emulator.counts.tokens <= first + 10_000
        assert report.data["spend"]["tokens"] <= 10_000
        raised = w.job(budget={"max_tokens": 100_000})
        assert (await w.run(raised)).exit_code == 0 and w.paid_twice == 0


async def test_other_settings_are_a_run_of_their_own_too(tmp_path: Path) -> None:
    """One input and one set of settings: the same in however many processes."""
    async with world(tmp_path, queries=10) as w:
        await w.run(w.job(budget={"max_tokens": 10_000}))
        first = w.emulator.counts.tokens
        await w.run(w.job(budget={"max_tokens": 10_000}, instruct="Rank by relevance."))
        assert w.emulator.counts.tokens > first + 5_000


async def test_a_total_cap_holds_for_all_that_the_ledger_paid(tmp_path: Path) -> None:
    """New input, other settings, other jobs with the same ledger, another day: nothing starts it anew."""
    async with world(tmp_path, queries=10) as w:
        ledger, cap = str(tmp_path / "one.sqlite"), {"max_tokens": 12_000, "per": "total"}
        assert (await w.run(w.job(ledger=ledger, budget=cap))).exit_code == 1
        write_jsonl(w.data, rows(20, 34)[10:])
        a_day_passes(tmp_path / "one.sqlite")
        for name in ("out", "other"):
            report = await w.run(w.job(name, ledger=ledger, budget=cap))
            assert report.exit_code == 1 and "12,000 in all could be passed" in str(report.reason)
        assert w.emulator.counts.tokens <= 12_000
        assert report.data["spend"]["tokens"] < 3_000 < report.data["spend"]["counted_tokens"]


async def test_status_tells_what_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A job at its cap is stopped, not failed; a cap for a day is shown beside what the run has spent."""
    async with world(tmp_path, queries=16) as w:
        running = Run(w.job(budget={"max_tokens": 12_000, "per": "day"}))
        with Observer(running) as observer:
            observer.ended(await running.execute())
    data = orjson.loads((tmp_path / "out" / "status.json").read_bytes())
    assert (data["state"], data["per"], data["exit_code"]) == ("stopped", "day", 75)
    status(str(tmp_path / "out"))
    assert "of 12,000 tokens a day (UTC)" in capsys.readouterr().out
