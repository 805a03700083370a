"""A ledger that serves for ever: what it holds is told, what is no longer needed is dropped, no bill is forgotten."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from jobs import make_job, rows, run, write_jsonl
from test_cli import batchrank

from batchrank.data import Answer, Rejection
from batchrank.errors import JobError
from batchrank.job.running import parse_age
from batchrank.ledger.care import Compaction, compact, inventory
from batchrank.ledger.entries import About
from batchrank.ledger.ledger import Ledger
from batchrank.ledger.rows import DAY
from batchrank.pipeline.workers import background_task

pytestmark = pytest.mark.anyio
NIGHTS = 20
BEGIN = 20_000
"""A day."""


@pytest.mark.parametrize(("text", "seconds"), [("36h", 129_600), ("30d", 2_592_000), (" 2 W ", 1_209_600)])
def test_an_age_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    """Hours, days or weeks."""
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1.5d", "30m", "9999999d", "٣d", "30dd"])
def test_what_is_no_age_is_refused(text: str) -> None:
    """With what would be one."""
    with pytest.raises(ValueError, match="is no age; write a number of hours, days or weeks: 36h, 30d or 4w"):
        parse_age(text)


async def nights(path: Path | None, used: Sequence[int] = ()) -> Ledger:
    """A ledger with an answer of each night, those of some of which the last night used too."""
    time = [0.0]
    ledger = Ledger(path, now=lambda: time[0])
    for night in range(1, NIGHTS + 1):
        time[0] = (BEGIN + night) * DAY
        await ledger.begin(night)
        about = About(night, bytes(8 * 100), "pass") if night > NIGHTS // 2 else None
        await ledger.put(bytes([night]), Answer(np.ones(100), 10), 9, about)
    await ledger.put(b"rejected", Rejection(400, "refused", "no"), 9)
    await ledger.find([bytes([night]) for night in used])
    await ledger.save("run/job", {"number": NIGHTS, "complete": True})
    return ledger


async def test_what_it_holds_is_told() -> None:
    """How much, how old, and how much of it serves document by document."""
    ledger = await nights(None)
    found = await inventory(ledger)
    assert (found.answers, found.documents, found.tokens, found.reusable) == (20, 2_000, 200, 10)
    assert (found.oldest, found.undated, found.rejections) == ((BEGIN + 1) * DAY, 0, 1)
    ledger.close()
    empty = await inventory(Ledger(None))
    assert (empty.answers, empty.documents, empty.oldest, empty.undated) == (0, 0, None, 0)


async def test_what_was_not_used_is_dropped_and_its_bill_is_not(tmp_path: Path) -> None:
    """The file gets smaller, spending does not; what was recollected was used."""
    path = tmp_path / "ledger.sqlite"
    ledger = await nights(path, used=[3])
    async with background_task(ledger.serve):
        await ledger.recollect([15], before=NIGHTS)
        for number in range(1_000):
            await ledger.put(number.to_bytes(4, "big"), Answer(np.ones(100), 10), 9)
        await ledger.begin(NIGHTS + 1)
        await ledger.find([bytes([night]) for night in (3, 15, NIGHTS)])
        await ledger.save("run/job", {"number": NIGHTS + 1, "complete": True})
        before = await ledger.spent("total"), await ledger.spent("day")
    dropped = await compact(ledger, "job")
    assert (dropped.old, dropped.unused) == (0, 1_000 + NIGHTS - 3 + 1)
    assert dropped.after < dropped.before / 5
    ledger.close()
    assert path.stat().st_size == dropped.after
    ledger = Ledger(path, now=lambda: (BEGIN + NIGHTS) * DAY)
    assert (await ledger.spent("total"), await ledger.spent("day")) == before
    assert (await inventory(ledger)).answers == 3
    ledger.close()


async def test_what_is_too_old_is_dropped_whoever_used_it() -> None:
    """An unknown age is too old."""
    ledger = await nights(None, used=range(1, NIGHTS + 1))
    await ledger.perform(lambda db: db.execute("UPDATE answers SET at = 0 WHERE key = ?", (bytes([19]),)))
    before = await ledger.spent("total")
    dropped = await compact(ledger, "job", unused=False, since=(BEGIN + 16) * DAY)
    assert (dropped.old, dropped.undated, dropped.unused) == (16, 1, 0)
    left = await ledger.perform(lambda db: db.execute("SELECT key FROM answers ORDER BY key").fetchall())
    assert left == [(bytes([night]),) for night in (16, 17, 18, 20)]
    assert await ledger.spent("total") == before
    assert isinstance(await compact(ledger, "job", since=(BEGIN + 99) * DAY), Compaction)
    assert (await inventory(ledger)).answers == 0
    ledger.close()


@pytest.mark.parametrize("unused", [True, False])
async def test_nothing_is_dropped_while_a_run_is_unfinished(unused: bool) -> None:
    """It decides by what the ledger held when it began."""
    ledger = await nights(None)
    await ledger.save("run/job", {"number": NIGHTS, "complete": False})
    with pytest.raises(JobError, match="last run is not complete"):
        await compact(ledger, "job", unused=unused, since=(BEGIN + 99) * DAY)
    assert (await inventory(ledger)).answers == NIGHTS
    ledger.close()


async def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    """What was dropped and why, and the size before and after; a wrong age is a wrong command."""
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(2, 25)))
    assert (await run(job)).exit_code == 0
    done = batchrank("ledger", "out.yaml", cwd=tmp_path)
    assert b"bytes a score" in done.stdout and b"answer of 2" in done.stdout and not done.stderr
    done = batchrank("ledger", "out.yaml", "--compact", "--max-age", "30d", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.decode().splitlines()[:2] == [
        "dropped 0 answers older than 30d",
        "dropped 0 entries that the last complete run did not use",
    ]
    assert re.search(rb"the ledger took \d+ KiB and takes \d+ KiB now", done.stderr)
    done = batchrank("ledger", "out.yaml", "--max-age", "old", cwd=tmp_path)
    assert done.returncode == 2 and b"--max-age: 'old' is no age; write a number of hours" in done.stderr
