"""The library's own way in."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs import rows

import batchrank
from batchrank import (
    Candidate,
    Endpoint,
    Failure,
    Job,
    JobError,
    LedgerError,
    Limits,
    Query,
    QueryError,
    Rate,
)
from batchrank.errors import RunStoppedError

pytestmark = pytest.mark.anyio
JOB = Job(
    model="qwen3-rerank", endpoint=Endpoint(url="emulator"), limits=Limits(documents=10), tokenizer="bytes",
    rate=Rate(rpm=10**6),
)  # fmt: skip


def queries(count: int, candidates: int = 12) -> Iterator[Query]:
    for row in rows(count, candidates):
        yield Query.of(row["query_id"], row["query"], [Candidate(**c) for c in row["candidates"]])


async def test_rankings_come_in_the_order_of_the_queries() -> None:
    """Any iterable of queries; one ranking each, in order."""
    found = [ranking async for ranking in batchrank.rerank(queries(20), JOB)]
    assert [ranking.query_id for ranking in found] == [f"q{i}" for i in range(20)]
    assert all(len(ranking) == 12 for ranking in found)
    assert sorted(found[0].doc_ids) == sorted(f"d0-{i}" for i in range(12))


async def test_an_async_iterable_does_too() -> None:
    """Queries may come from a database or a queue; each is ranked without waiting for the next one."""

    async def some() -> AsyncIterator[Query]:
        for query in queries(3):
            yield query

    assert [r.query_id async for r in batchrank.rerank(some(), JOB)] == ["q0", "q1", "q2"]


async def test_a_failed_query_raises_unless_somebody_listens() -> None:
    """Nobody overlooks a missing ranking by accident."""
    huge = Query.of("huge", "q", [Candidate("d", "x" * 200_000)])
    job = Job.model_validate(JOB.model_dump() | {"limits": {"documents": 10, "item_tokens": 10**6}})
    with pytest.raises(QueryError, match="query 'huge'"):
        [r async for r in batchrank.rerank([*queries(1), huge], job)]
    heard: list[Failure] = []
    one, two = queries(2)
    found = [r async for r in batchrank.rerank([one, huge, two], job, on_failure=heard.append)]
    assert [r.query_id for r in found] == ["q0", "q1"]
    assert [f.query_id for f in heard] == ["huge"]


async def test_leaving_the_loop_early_ends_the_run() -> None:
    """A consumer that has seen enough leaves nothing behind."""
    async for ranking in batchrank.rerank(queries(50), JOB):
        assert ranking.query_id == "q0"
        break


async def test_a_hopeless_run_raises(tmp_path: Path) -> None:
    """A refused address stops the run with the reason."""
    from batchrank.emulator.app import Emulator
    from batchrank.emulator.settings import Settings

    async with Emulator(Settings(keys=("right",))) as emulator:
        (tmp_path / "key").write_text("wrong")
        url = f"{emulator.url}/compatible-api/v1/reranks"
        endpoint = Endpoint(url=url, api_key_file=str(tmp_path / "key"))
        job = Job(model="qwen3-rerank", endpoint=endpoint, tokenizer="bytes")
        with pytest.raises(RunStoppedError, match="InvalidApiKey"):
            [r async for r in batchrank.rerank(queries(3), job)]


async def test_a_ledger_makes_a_second_pass_free(tmp_path: Path) -> None:
    """With a ledger, what was answered once is not asked again."""
    from batchrank.emulator.app import Emulator
    from batchrank.emulator.settings import Settings

    async with Emulator(Settings()) as emulator:
        url = f"{emulator.url}/compatible-api/v1/reranks"
        endpoint = Endpoint(url=url, api_key_file=str(tmp_path / "key"))
        (tmp_path / "key").write_text("any")
        job = Job(
            model="qwen3-rerank", endpoint=endpoint, ledger=str(tmp_path / "ledger.sqlite"), tokenizer="bytes"
        )
        first = [r async for r in batchrank.rerank(queries(5), job)]
        asked = emulator.requests
        second = [r async for r in batchrank.rerank(queries(5), job)]
        assert emulator.requests == asked > 0
        assert [list(r.doc_ids) for r in first] == [list(r.doc_ids) for r in second]


@pytest.mark.parametrize("job", [None, {"model": "qwen3-rerank"}, "job.yaml"])
async def test_a_job_that_is_none_is_told(job: Any) -> None:
    """At once, rather than never."""
    with pytest.raises(JobError, match=r"job is a .*; make a batchrank\.Job"):
        _ = [r async for r in batchrank.rerank(rows(1, 3), job)]


async def test_a_ledger_that_can_not_be_opened_is_told(tmp_path: Path) -> None:
    """In use by another process, no database, in a folder that is a file: an error, rather than silence for ever."""
    held = tmp_path / "held.sqlite"
    db = sqlite3.connect(held)
    db.executescript("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; CREATE TABLE t (x)")
    (tmp_path / "garbage.sqlite").write_bytes(b"no database " * 100)
    for path in (held, tmp_path / "garbage.sqlite", tmp_path / "garbage.sqlite" / "ledger.sqlite"):
        job = JOB.model_copy(update={"ledger": str(path)})
        with pytest.raises(LedgerError):
            _ = [r async for r in batchrank.rerank(rows(1, 3), job)]
    db.close()


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_an_error_of_the_callers_own_comes_out_as_it_is(asynchronous: bool) -> None:
    """From the iterable that is gone through, and from ``on_failure``."""

    class OwnError(Exception):
        pass

    def some() -> Iterator[dict[str, Any]]:
        yield rows(1, 3)[0]
        raise OwnError

    async def others() -> AsyncIterator[dict[str, Any]]:
        for row in some():
            yield row

    with pytest.raises(OwnError):
        _ = [r async for r in batchrank.rerank(others() if asynchronous else some(), JOB)]

    bad = Query.of("bad", "", [])

    def refuse(failure: Failure) -> None:
        raise OwnError

    with pytest.raises(OwnError):
        _ = [r async for r in batchrank.rerank([bad], JOB, on_failure=refuse)]
