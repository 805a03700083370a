"""A ledger that is only looked at: nothing is written, and nobody is kept from using it."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_ledger_reuse import fourth, third, written

from batchrank.data import Answer
from batchrank.errors import LedgerError
from batchrank.ledger.glance import Glance
from batchrank.ledger.ledger import Ledger
from batchrank.pipeline.workers import background_task

pytestmark = pytest.mark.anyio


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_glance_keeps_no_run_from_beginning_and_ends_with_it(tmp_path: Path) -> None:
    """A cron job must not fail because somebody looks at its plan."""
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    async with background_task(ledger.serve):
        await ledger.put(b"k", Answer(np.ones(2), 9), 9)
    ledger.close()
    glance = Glance(path)
    assert set(await glance.find([b"k", b"other"])) == {b"k"}
    ledger = Ledger(path)
    with pytest.raises(LedgerError, match="another batchrank process is using this ledger"):
        await glance.find([b"k"])
    glance.close()
    ledger.close()


@pytest.mark.parametrize("make", [third, fourth])
async def test_a_glance_at_an_older_ledger_leaves_it_as_it_is(
    tmp_path: Path, make: Callable[[sqlite3.Connection], object]
) -> None:
    """What it holds is known all the same, although a run would bring it up to date; no other file appears."""
    path = tmp_path / "ledger.sqlite"
    written(path, lambda db: (db.execute("PRAGMA journal_mode = WAL"), make(db)))
    before = path.read_bytes()
    glance = Glance(path)
    found = await glance.find([b"k", b"r"])
    assert [found[key].server for key in (b"k", b"r")] == [None, None]
    glance.close()
    assert path.read_bytes() == before and names(tmp_path) == ["ledger.sqlite"]


async def test_what_a_killed_run_left_in_the_log_is_seen(tmp_path: Path) -> None:
    """Its latest answers aren't in the main file yet; and a run may begin meanwhile."""
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    async with background_task(ledger.serve):
        await ledger.put(b"k", Answer(np.ones(2), 9), 9)
        (tmp_path / "killed").mkdir()
        for file in (path, path.with_name("ledger.sqlite-wal")):
            shutil.copy(file, tmp_path / "killed")
    ledger.close()
    copy = tmp_path / "killed" / "ledger.sqlite"
    main, log = copy.read_bytes(), copy.with_name("ledger.sqlite-wal").read_bytes()
    glance = Glance(copy)
    assert set(await glance.find([b"k"])) == {b"k"}
    assert (copy.read_bytes(), copy.with_name("ledger.sqlite-wal").read_bytes()) == (main, log)
    Ledger(copy).close()
    glance.close()
