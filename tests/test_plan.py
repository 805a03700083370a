"""``plan`` tells beforehand what ``run`` then does."""

import sqlite3
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from jobs import make_job, rows, run, write_jsonl

from batchrank.cli.plan import show_plan
from batchrank.job.config import Job
from batchrank.ledger.ledger import Ledger
from batchrank.planning.plan import Region, plan

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("method", ["raw", "rrf", "hub"])
async def test_a_plan_foretells_requests_documents_and_tokens(tmp_path: Path, method: str) -> None:
    """Exactly for one-pass methods; for the hub to within the first query's probe and the extra documents' lengths."""
    job = make_job(
        tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(20, 34)), merge={"method": method}, tokenizer="qwen"
    )
    bill = plan(job).methods[method]
    totals = (await run(job)).data["totals"]
    probe = 0 if method == "rrf" else 1
    slack = 0.1 if method == "hub" else 0
    assert abs(totals["requests"] - probe - bill.requests) <= slack * bill.requests
    assert abs(totals["sent"] - 10 * probe - bill.documents) <= slack * bill.documents + 2
    assert abs(totals["tokens"] - bill.tokens) <= (slack + 0.02) * bill.tokens


async def test_a_plan_needs_no_key_and_tells_what_would_be_rejected(tmp_path: Path) -> None:
    """Bad records by cause, blank and over-long documents, the largest lists."""
    data = rows(3, 12)
    data[0]["candidates"][0]["text"] = ""
    data[1]["candidates"][0]["text"] = "word " * 5_000
    job = make_job(
        tmp_path, write_jsonl(tmp_path / "in.jsonl", [*data, b"{"]), endpoint={"url": None}, tokenizer="qwen"
    )
    found = plan(job)
    assert (found.queries, found.documents, found.blank, found.truncated) == (3, 36, 1, 1)
    assert found.rejected == {"broken-json": 1}
    assert [entry["documents"] for entry in found.largest] == [12, 12, 12]
    assert found.methods["hub"].seconds > 0
    assert orjson.loads(orjson.dumps(found.data()))["currency"] == "CNY"


async def test_what_is_printed_is_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Square brackets, of an extra's name or in a query's id, are no markup."""
    row = rows(1, 4)[0] | {"query_id": "[bold]q[/]"}
    show_plan(make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", [row]), tokenizer="bytes"), as_json=False)
    shown = capsys.readouterr().out
    assert "pip install 'batchrank[qwen]'" in shown
    assert "[bold]q[/]" in shown


async def test_what_the_ledger_does_not_know_costs_what_the_table_says(tmp_path: Path) -> None:
    """Another model's answers are of no use; no key is needed."""
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(6, 34)))
    await run(job)
    other = make_job(
        tmp_path, tmp_path / "in.jsonl", out="other", ledger="out/ledger.sqlite", endpoint={"url": None}
    )
    found = plan(other)
    bill, net = found.methods["hub"], found.net
    assert net is not None and net.saved_tokens == 0 and net.reused == 0
    assert 0 <= net.documents - bill.documents <= 15  # the first query's probe


async def test_a_ledger_in_use_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rest of the plan is told all the same."""
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(6, 34)))
    await run(job)
    assert job.ledger_path is not None
    ledger = Ledger(job.ledger_path)
    show_plan(job, as_json=False)
    ledger.close()
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if "ledger" in line]
    assert "another batchrank process is using this ledger" in line and "rrf" in shown
    assert "tonight" not in shown


@pytest.mark.parametrize("damage", [b"garbage", b"\xff" * 4096, None], ids=["head", "page", "row"])
async def test_a_damaged_ledger_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: bytes | None
) -> None:
    """Whatever is damaged: no traceback, and the rest of the plan."""
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(6, 34)))
    await run(job)
    path = job.ledger_path
    assert path is not None
    if damage is None:
        with closing(sqlite3.connect(path)) as db:
            db.execute("UPDATE answers SET scores = 'text'")
            db.commit()
    else:
        data = bytearray(path.read_bytes())
        at = 0 if damage == b"garbage" else 4096
        data[at : at + len(damage)] = damage
        path.write_bytes(data)
    show_plan(job, as_json=False)
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if "ledger" in line]
    assert "is damaged" in line and "rrf" in shown


async def test_without_a_ledger_nothing_is_said_or_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A first night costs what the table says."""
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(2, 4)))
    show_plan(job, as_json=True)
    told = orjson.loads(capsys.readouterr().out)
    assert told["net"] is None and told["notice"] is None
    show_plan(job, as_json=False)
    assert "ledger" not in capsys.readouterr().out and not (tmp_path / "out").exists()


async def test_tonight_is_told_to_people_and_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two plain lines; the same numbers as JSON."""
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(6, 34)))
    await run(job)
    show_plan(job, as_json=True)
    net = orjson.loads(capsys.readouterr().out)["net"]
    assert (net["documents"], net["requests"], net["reused"]) == (0, 0, 6 * 34)
    show_plan(job, as_json=False)
    shown = capsys.readouterr().out
    assert "tonight, net of the ledger: 0 documents in 0 requests, 0 tokens (0.0000 CNY)" in shown
    assert f"from the ledger: 204 documents, which saves {net['saved_tokens']:,} tokens" in shown


def by_region(job: Job) -> dict[str, Region]:
    """A plan's regions by their names."""
    return {one.name: one for one in plan(job).regions}


async def test_regions_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The job's own first; where no price is known, that is said."""
    job = make_job(
        tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(6, 34)), endpoint={"region": "singapore"}
    )
    regions = by_region(job)
    assert list(regions) == ["singapore", "beijing", "hongkong"]
    tokens = plan(job).methods["hub"].tokens
    costs = [(one.cost, one.net_cost) for one in regions.values()]
    assert costs == [(tokens * 0.1 / 1e6, None), (tokens * 0.5 / 1e6, None), (None, None)]
    show_plan(job, as_json=False)
    shown = capsys.readouterr().out
    assert "singapore *" in shown and "not known" in shown and "net of the ledger" not in shown
    show_plan(job, as_json=True)
    told = orjson.loads(capsys.readouterr().out)["regions"]
    assert told[1]["region"] == "beijing" and told[1]["price"]["currency"] == "CNY" and told[0]["this_job"]


@pytest.mark.parametrize("identity", [None, "one"])
async def test_an_answer_saves_only_where_it_was_given(
    tmp_path: Path, identity: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Net of the ledger, another region costs all of it, as a run there would find; unless the job says otherwise."""
    data = write_jsonl(tmp_path / "in.jsonl", rows(6, 34))
    job = make_job(tmp_path, data, endpoint={"identity": identity})
    await run(job)
    regions = by_region(job)
    assert regions["beijing"].net_cost == 0
    there = regions["singapore"]
    moved = make_job(
        tmp_path, data, out="moved", ledger="out/ledger.sqlite",
        endpoint={"region": "singapore", "identity": identity},
    )  # fmt: skip
    net = plan(moved).net
    assert net is not None and there.net_cost is not None and net.cost is not None
    assert abs(there.net_cost - net.cost) <= 0.1 * net.cost
    assert there.cost is not None and (there.net_cost < there.cost / 20) is (identity is not None)
    show_plan(job, as_json=False)
    assert "net of the ledger" in capsys.readouterr().out


def test_a_job_with_an_address_of_its_own_is_in_no_other_region(tmp_path: Path) -> None:
    """Neither is a model that is served in one only."""
    data = write_jsonl(tmp_path / "in.jsonl", rows(2, 4))
    own = make_job(tmp_path, data, endpoint={"url": "https://gateway.example/rerank"})
    assert list(by_region(own)) == ["beijing"]
    assert list(by_region(make_job(tmp_path, data, model="gte-rerank-v2"))) == ["beijing"]
    assert list(by_region(make_job(tmp_path, data, model="rerank-v3.5"))) == ["default"]
