"""Answers outlive the address that gave them: replicas and moved hosts share them, and older ledgers keep theirs."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from against import PATH, same, world
from test_ledger_reuse import THIRD

from batchrank.job.config import Job
from batchrank.ledger.ledger import Ledger
from batchrank.ledger.rows import ROWS, checksum
from batchrank.ledger.schema import third_answer_checksum

pytestmark = pytest.mark.anyio


async def test_a_replica_is_not_asked_for_what_another_answered(tmp_path: Path) -> None:
    """Only a job that names another identity asks again."""
    async with world(tmp_path, queries=3) as w:
        first = w.job()
        assert (await w.run(first)).exit_code == 0
        asked = w.emulator.requests
        ledger = str(tmp_path / "out" / "ledger.sqlite")
        elsewhere = w.emulator.url.replace("127.0.0.1", "localhost") + PATH
        moved = w.job("moved", ledger=ledger, endpoint={"url": elsewhere}, reuse={"audit": 0})
        assert (await w.run(moved)).exit_code == 0
        assert w.emulator.requests == asked and same(first, moved)
        other = w.job("other", ledger=ledger, endpoint={"identity": "another model"})
        assert (await w.run(other)).exit_code == 0
        assert w.emulator.requests == 2 * asked


def of_third_schema(path: Path) -> None:
    """Write a ledger as a batchrank of schema 3 would have."""
    with closing(sqlite3.connect(path)) as new, closing(sqlite3.connect(path.with_name("older"))) as old:
        old.executescript(THIRD)
        old.execute("PRAGMA application_id = 0x62726B31")
        columns = "key, scores, tokens, predicted, request_id, run, day, searches"
        for *row, used in new.execute(f"SELECT {columns}, used FROM answers"):
            marks = ",".join("?" * 10)
            given = (*row, used, third_answer_checksum(*row))
            old.execute(f"INSERT INTO answers ({columns}, used, digest) VALUES ({marks})", given)
        columns = ROWS["rejections"].removesuffix(", question, server")
        for *row, used in new.execute(f"SELECT {columns}, used FROM rejections"):
            given = (*row, used, checksum(*row))
            old.execute(f"INSERT INTO rejections ({columns}, used, digest) VALUES (?,?,?,?,?,?,?,?)", given)
        for row in new.execute("SELECT * FROM state"):
            old.execute("INSERT INTO state VALUES (?,?,?)", row)
        old.commit()
    path.with_name("older").replace(path)


async def test_what_an_older_batchrank_paid_for_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keys were made of the endpoint's address: answers and rejections that decided a split get today's keys."""
    async with world(tmp_path, queries=6, request_tokens=700) as w:
        with monkeypatch.context() as older:
            older.setattr(Job, "answers_identity", Job.url)
            before = w.job()
            assert (await w.run(before)).exit_code == 0
        ledger = tmp_path / "out" / "ledger.sqlite"
        of_third_schema(ledger)
        with closing(sqlite3.connect(ledger)) as db:
            for table in ("answers", "rejections"):
                assert db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] > 6, table
        asked = w.emulator.requests
        now = w.job("now", ledger=str(ledger))
        assert (await w.run(now)).exit_code == 0
        assert w.emulator.requests == asked and same(before, now)
        opened = Ledger(ledger)
        assert not opened.legacy
        opened.close()
