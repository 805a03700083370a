"""``batchrank runs``: every run is noted in its ledger, whatever its end, and whatever becomes of its output."""

import json
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from against import KEY, world
from jobs import make_job, rows, run, write_jsonl
from test_cli import batchrank, job_file
from test_stop import start, until

from batchrank.errors import LedgerError
from batchrank.ledger import state
from batchrank.ledger.ledger import Ledger
from batchrank.ledger.state import HISTORY

pytestmark = pytest.mark.anyio


def lines(folder: Path) -> list[dict[str, Any]]:
    return state.lines(folder / "out" / "ledger.sqlite")


async def test_each_run_has_a_line_with_its_own_part_of_the_bill(tmp_path: Path) -> None:
    """The first pays for all, the next for nothing, the third for what is new."""
    path = write_jsonl(tmp_path / "in.jsonl", rows(4, 23))
    await run(make_job(tmp_path, path))
    await run(make_job(tmp_path, path))
    write_jsonl(path, rows(5, 23))
    reports = await run(make_job(tmp_path, path, reuse={"audit": 0}))
    first, again, more = lines(tmp_path)
    assert (first["queries"], first["documents"], first["reused"], first["exit_code"]) == (4, 92, 0, 0)
    assert first["asked"] > 92 and first["cost"] > 0 and first["currency"] == "CNY"
    assert (again["asked"], again["reused"], again["requests"], again["cost"], again["tokens"]) == (
        0,
        92,
        0,
        0,
        0,
    )
    assert (more["queries"], more["reused"]) == (5, 92) and 23 <= more["asked"] < first["asked"]
    assert more["cost"] == round(reports.data["spend"]["cost"], 6)
    assert {line["output"] for line in (first, again, more)} == {str(tmp_path / "out")}
    assert first["started"] <= first["ended"] <= again["started"]


async def test_a_run_that_stopped_and_went_on_has_two_lines(tmp_path: Path) -> None:
    """Why it stopped, without a secret; together they cost what the run cost."""
    async with world(tmp_path, script={30: "400-arrearage"}) as w:
        assert (await w.run(w.job())).exit_code == 1
        report = await w.run(w.job())
        stopped, complete = lines(tmp_path)
        assert (stopped["exit_code"], complete["exit_code"]) == (1, 0)
        assert "Arrearage" in stopped["reason"] and complete["reason"] is None
        assert stopped["queries"] < complete["queries"]
        assert stopped["tokens"] > 0 and complete["tokens"] > 0
        assert stopped["tokens"] + complete["tokens"] == report.data["spend"]["tokens"]
        assert KEY not in json.dumps(lines(tmp_path))


async def test_what_a_run_raises_is_noted_too(tmp_path: Path) -> None:
    """Such as too many failures; and raised as ever."""
    path = write_jsonl(tmp_path / "in.jsonl", [{**row, "query": ""} for row in rows(4, 23)])
    report = await run(make_job(tmp_path, path, failures={"max_queries": 1}))
    (line,) = lines(tmp_path)
    assert line["exit_code"] == report.exit_code != 0 and line["ended"] and line["reason"]


async def test_the_history_survives_the_answers(tmp_path: Path) -> None:
    """--fresh --forget drops what was paid for, not that there was a run; nor does another job's run drop it."""
    path = write_jsonl(tmp_path / "in.jsonl", rows(2, 23))
    await run(make_job(tmp_path, path))
    await run(make_job(tmp_path, path), fresh=True, forget=True)
    await run(make_job(tmp_path, path, out="other", ledger=str(tmp_path / "out" / "ledger.sqlite")))
    found = lines(tmp_path)
    assert [Path(line["output"]).name for line in found] == ["out", "out", "other"]
    assert found[1]["asked"] == found[0]["asked"] > found[2]["asked"]  # which only audits
    (tmp_path / "elsewhere").mkdir()
    for folder, names in (("out", ["out", "out"]), ("other", ["other"])):
        shown = json.loads(batchrank("runs", f"../{folder}", "--json", cwd=tmp_path / "elsewhere").stdout)
        assert [Path(line["output"]).name for line in shown] == names, folder
    every = batchrank("runs", "other", "--all", cwd=tmp_path).stdout.decode().splitlines()
    assert len(every) == 4 and "output" in every[0]
    shutil.rmtree(tmp_path / "elsewhere")


async def test_the_gate_s_figures_are_in_the_line(tmp_path: Path) -> None:
    """Whether it passed, the overlap, and nDCG where there are judgements."""
    path = write_jsonl(tmp_path / "in.jsonl", rows(3, 23))
    (tmp_path / "qrels.txt").write_text("q0 0 d0-3 1\n")
    gate = {"qrels": "qrels.txt", "depth": 5}
    await run(make_job(tmp_path, path, gate=gate))
    report = await run(make_job(tmp_path, path, gate=gate | {"min_ndcg": 1}))
    first, second = lines(tmp_path)
    assert (first["gate"], first["rbo"], second["gate"], second["rbo"]) == ("passed", None, "failed", 1)
    assert (second["ndcg"], second["ndcg_depth"]) == (report.data["gate"]["ndcg"], 5)
    shown = batchrank("runs", "out", cwd=tmp_path).stdout.decode()
    assert "nDCG@5" in shown and "failed" in shown.splitlines()[-1] and "1.0000" in shown


async def test_a_line_that_is_damaged_is_a_clear_stop(tmp_path: Path) -> None:
    """Each has a checksum, like all of the ledger."""
    path = write_jsonl(tmp_path / "in.jsonl", rows(1, 3))
    await run(make_job(tmp_path, path))
    with sqlite3.connect(tmp_path / "out" / "ledger.sqlite") as db:
        db.execute("UPDATE state SET value = '{}' WHERE name GLOB ?", (f"{HISTORY}*",))
    db.close()
    with pytest.raises(LedgerError, match="damaged"):
        lines(tmp_path)


async def test_a_run_that_goes_on_is_no_obstacle(tmp_path: Path) -> None:
    """Its ledger is locked; what its main file holds is told all the same."""
    path = write_jsonl(tmp_path / "in.jsonl", rows(1, 3))
    await run(make_job(tmp_path, path))
    ledger = Ledger(tmp_path / "out" / "ledger.sqlite")
    done = batchrank("runs", "out", cwd=tmp_path)
    ledger.close()
    assert done.returncode == 0 and b"complete" in done.stdout, done.stderr


@pytest.mark.real_clock
@pytest.mark.slow
@pytest.mark.parametrize(("number", "end"), [(signal.SIGTERM, "interrupted"), (signal.SIGKILL, "killed")])
async def test_a_run_that_was_cut_off_says_so(tmp_path: Path, number: signal.Signals, end: str) -> None:
    """After a signal with its figures; after a kill nothing is left but that it had begun."""
    async with world(tmp_path, queries=6, latency=0.1) as w:
        process = await start(tmp_path, w.emulator)
        await until(lambda: w.emulator.requests > 10)
        process.send_signal(number)
        await process.communicate()
    (line,) = json.loads(batchrank("runs", "job.yaml", "--json", cwd=tmp_path).stdout)
    assert line["end"] == end
    assert ("asked" in line) == (end == "interrupted") == (line["ended"] is not None)


def test_what_has_no_history_is_told(tmp_path: Path) -> None:
    """No ledger, or none of this folder."""
    done = batchrank("runs", "nowhere", cwd=tmp_path)
    assert done.returncode == 2 and b"there is no ledger yet" in done.stderr
    write_jsonl(tmp_path / "in.jsonl", rows(1, 3))
    assert batchrank("run", job_file(tmp_path), cwd=tmp_path).returncode == 0
    shutil.move(tmp_path / "out", tmp_path / "moved")
    done = batchrank("runs", "moved", cwd=tmp_path)
    assert done.returncode == 2 and b"which --all lists" in done.stderr
    assert batchrank("runs", "moved", "--all", cwd=tmp_path).returncode == 0
