"""Documents and queries that always fail: each costs itself, nothing waits for it, nothing is asked twice."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from against import World, world
from jobs import outputs, rankings, rows

pytestmark = pytest.mark.anyio

FAILURES = [
    "500",
    "502+html",
    "score-null",
    "results-fewer",
    "400-parameter",
    "403",
    "404-model",
    "answer-dropped",
]


def poisoned(queries: int, candidates: int, every: int, *, word: str = "unlucky") -> list[dict[str, Any]]:
    """Every so manieth query has one bad document, each at another place."""
    data = rows(queries, candidates)
    for number in range(every - 1, queries, every):
        data[number]["candidates"][number * 7 % candidates]["text"] += f" {word}"
    return data


def bad(data: list[dict[str, Any]], word: str = "unlucky") -> dict[str, str]:
    """The bad document of each query that has one."""
    return {
        row["query_id"]: c["id"] for row in data for c in row["candidates"] if c["text"].endswith(f" {word}")
    }


def check(w: World, job: Any, data: list[dict[str, Any]], cause: str = "document-lost") -> None:
    """Every query is ranked; the bad documents stand last, without a score, and are told; all others have a score."""
    worst = bad(data)
    ranked = rankings(job)
    assert [row["query_id"] for row in ranked] == [row["query_id"] for row in data]
    for row in ranked:
        unscored = [e["doc_id"] for e in row["ranking"] if e["score"] is None]
        assert unscored == ([worst[row["query_id"]]] if row["query_id"] in worst else [])
        assert row["ranking"][-1]["doc_id"] in unscored or not unscored
    letters = {(x["query_id"], x["cause"]) for x in w.letters(job)}
    assert letters == {(query, cause) for query in worst}


@pytest.mark.parametrize("fault", FAILURES)
async def test_one_document_in_every_fourth_query_fails_always(tmp_path: Path, fault: str) -> None:
    """The document is lost, not its query and not the job; a rerun asks nothing, --only-failed asks again."""
    data = poisoned(20, 9, 4)
    poison = {"unlucky": fault}
    async with world(tmp_path, data=data, poison=poison, sections={"limits": {"documents": 9}}) as w:
        job = w.job()
        report = await w.run(job)
        assert report.exit_code == 3, report.reason
        check(w, job, data)
        assert report.data["totals"]["failed"] == 0 and report.data["totals"]["lost"] == 5
        assert report.data["spend"]["tokens"] >= w.emulator.counts.tokens
        asked, before = w.emulator.requests, outputs(job)
        again = await w.run(job)
        assert (again.exit_code, w.emulator.requests, outputs(job)) == (3, asked, before)
        poison.clear()
        assert (await w.run(job, only_failed=True)).exit_code == 0
        assert all(e["score"] is not None for row in rankings(job) for e in row["ranking"])


async def test_a_list_of_several_chunks_loses_just_its_bad_document(tmp_path: Path) -> None:
    """The rest of its chunk comes back in parts, and the top is exact all the same."""
    data = poisoned(6, 60, 3)
    async with world(tmp_path, data=data, poison={"unlucky": "500"}, scores="relative") as w:
        job = w.job(merge={"top_k": 10})
        report = await w.run(job)
        assert report.exit_code == 3
        check(w, job, data)
        assert report.data["totals"]["certified"] == 6


async def test_nothing_waits_for_what_fails(tmp_path: Path) -> None:
    """200 queries, two in a hundred with a bad document, all defaults: all ranked, within half a minute more."""
    sections = {"limits": {"documents": 500}, "tokenizer": "bytes"}
    seconds = {}
    for name, fault in (("good", None), ("failing", "500"), ("useless", "score-null")):
        data = poisoned(200, 8, 50)
        folder = tmp_path / name
        folder.mkdir()
        poison = {"unlucky": fault} if fault else {}
        async with world(folder, data=data, poison=poison, sections=sections) as w:
            job, started = w.job(), anyio.current_time()
            report = await w.run(job)
            seconds[name] = anyio.current_time() - started
            assert report.exit_code == (3 if fault else 0), report.reason
            if fault:
                check(w, job, data)
    assert max(seconds.values()) - seconds["good"] < 30


async def test_queries_that_fail_as_a_whole_stop_nothing(tmp_path: Path) -> None:
    """Every other query is one that no request is accepted with: dead letters, and the rest is ranked."""
    data = rows(40, 12)
    for row in data[1::2]:
        row["query"] += " hopeless"
    async with world(tmp_path, data=data, poison={"hopeless": "500"}) as w:
        job = w.job()
        report = await w.run(job)
        assert report.exit_code == 3
        assert [row["query_id"] for row in rankings(job)] == [row["query_id"] for row in data[::2]]
        assert report.data["totals"]["causes"] == {"no-answer": 20}
        asked = w.emulator.requests
        assert (await w.run(job)).exit_code == 3 and w.emulator.requests == asked


async def test_a_job_of_one_query_tells_a_bad_document_from_an_outage(tmp_path: Path) -> None:
    """Nothing else succeeds meanwhile: a tiny request that is known to be good tells."""
    data = poisoned(1, 9, 1)
    async with world(tmp_path, data=data, poison={"unlucky": "500"}) as w:
        job = w.job()
        assert (await w.run(job)).exit_code == 3
        check(w, job, data)
        (probe,) = {r.body for r in w.emulator.received if b"copy a file" in r.body} or {b""}
        assert w.emulator.requests < 60 and len(probe) < 300


async def test_requests_that_take_too_long_are_halved_and_the_limit_named(tmp_path: Path) -> None:
    """A gateway that gives up on large requests: halves are answered, and the notice says what to set."""
    data = poisoned(4, 9, 2)
    async with world(tmp_path, data=data, poison={"unlucky": "504"}) as w:
        report = await w.run(w.job())
        assert report.exit_code == 3
        assert any("504" in n and "limits.documents" in n for n in report.data["notices"])


async def test_an_outage_in_the_middle_loses_no_document(tmp_path: Path) -> None:
    """While bad documents are being looked for the API goes away for minutes: they alone are lost in the end."""
    data = poisoned(12, 9, 3)
    faults: dict[str, float] = {}
    async with world(tmp_path, data=data, poison={"unlucky": "500"}, faults=faults, fault_limit=0) as w:
        job = w.job()

        async def storms() -> None:
            for _ in range(3):
                await anyio.sleep(2)
                faults["503"] = 1.0
                await anyio.sleep(100)
                faults.clear()

        async with anyio.create_task_group() as group:
            group.start_soon(storms)
            report = await w.run(job)
            group.cancel_scope.cancel()
        assert report.exit_code == 3
        check(w, job, data)
