"""Sending, part by part: whose turn it is, what counts as an outage, and that one request is asked once."""

from pathlib import Path

import anyio
import pytest
from against import world
from hypothesis import given
from hypothesis import strategies as st
from jobs import rows

from batchrank.errors import OutageError, StoppedError
from batchrank.limiter import Limiter
from batchrank.records import Rejection
from batchrank.send import Dispatcher, Places
from batchrank.send.health import UNREACHABLE, Health

ANYIO = pytest.mark.anyio
FAILED = Rejection(500, "InternalError", "oh")


@ANYIO
async def test_the_oldest_query_goes_first() -> None:
    """A second round of an early query overtakes the first round of later ones."""
    dispatcher = Dispatcher(Limiter(rpm=60_000, tpm=1e12), Places(1))
    order: list[int] = []

    async def ask(position: int) -> None:
        async with dispatcher.turn((position, 0, 0), 1):
            order.append(position)
            await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        group.start_soon(dispatcher.serve)
        group.start_soon(ask, 9)
        await anyio.sleep(0.5)
        for position in (7, 3, 5):
            group.start_soon(ask, position)
        await anyio.sleep(5)
        group.cancel_scope.cancel()
    assert order == [9, 3, 5, 7]


@ANYIO
@pytest.mark.parametrize("moment", [0.0, 0.01, 0.5, 1.5])
async def test_whoever_gives_up_waiting_takes_no_place(moment: float) -> None:
    """Cancelled before, while or after its turn comes: every place is free again."""
    dispatcher = Dispatcher(Limiter(rpm=60_000, tpm=1e12), Places(2))

    async def ask(number: int) -> None:
        async with dispatcher.turn((number, 0, 0), 1):
            await anyio.sleep(1)

    async with anyio.create_task_group() as serving:
        serving.start_soon(dispatcher.serve)
        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(ask, number)
            await anyio.sleep(moment)
            group.cancel_scope.cancel()
        await anyio.sleep(0.1)
        assert dispatcher.places.busy == 0
        with anyio.fail_after(2):
            await ask(0)
        serving.cancel_scope.cancel()


@ANYIO
async def test_closing_wakes_everyone_and_ends_the_serving() -> None:
    """Those that wait, the one whose turn is next, and those that come later get the reason; nothing spins."""
    limiter = Limiter(rpm=60_000, tpm=1e12)
    limiter.throttled("requests", 60.0)
    dispatcher = Dispatcher(limiter, Places(2))
    told: list[str] = []

    async def ask(number: int) -> None:
        try:
            async with dispatcher.turn((number, 0, 0), 1):
                raise AssertionError("sent after the close")
        except StoppedError as reason:
            told.append(str(reason))

    async with anyio.create_task_group() as serving:
        serving.start_soon(dispatcher.serve)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                for number in range(4):
                    group.start_soon(ask, number)
                await anyio.sleep(1)
                dispatcher.close(StoppedError("enough"))
            await ask(9)
        serving.cancel_scope.cancel()
    assert told == ["enough"] * 5


@ANYIO
async def test_the_very_same_request_is_asked_once(tmp_path: Path) -> None:
    """Two queries with the same texts share one answer, even when both are under way at a time."""
    data = rows(1, 8) * 4
    for number, row in enumerate(data := [dict(row) for row in data]):
        row["query_id"] = f"q{number}"
    async with world(tmp_path, data=data) as w:
        report = await w.run(w.job())
        assert report.data["totals"]["queries"] == 4
        assert w.emulator.requests == 1


@ANYIO
async def test_a_request_that_comes_again_much_later_is_not_asked_again(tmp_path: Path) -> None:
    """Not even where it was looked up before the first one was answered: queries are looked up a batch at a time."""
    data = rows(200, 8)
    again = [data[number] | {"query_id": f"again-{number}"} for number in (0, 3, 60, 199)]
    async with world(
        tmp_path, data=[*data[:70], again[0], *data[70:], *again[1:], again[0] | {"query_id": "b"}]
    ) as w:
        report = await w.run(w.job())
        assert report.data["totals"]["queries"] == 205
        assert w.emulator.requests == 200 and w.emulator.counts.paid_twice == 0


@ANYIO
async def test_an_answer_is_in_the_ledger_before_it_is_used(tmp_path: Path) -> None:
    """Every request of a complete run is held, and held once."""
    import sqlite3

    async with world(tmp_path) as w:
        await w.run(w.job())
        db = sqlite3.connect(tmp_path / "out" / "ledger.sqlite")
        assert db.execute("SELECT COUNT(*) FROM answers").fetchone() == (w.emulator.requests,)
        assert db.execute("SELECT COUNT(*) FROM sent").fetchone() == (0,)
        db.close()


def test_failures_count_against_a_query_only_while_others_fare_better() -> None:
    """A few failing are at fault themselves; many at once, with no success between, are an outage."""
    health = Health(600)
    assert all(health.failed(n, 1.0, FAILED, costly=False) for n in range(4))
    assert not health.failed(5, 1.0, FAILED, costly=False)
    assert not health.failed(0, 2.0, FAILED, costly=False)
    health.succeeded()
    assert health.failed(0, 3.0, FAILED, costly=False)
    assert not health.failed(0, 3.0, Rejection(None, UNREACHABLE, ""), costly=False)


def test_an_outage_is_timed_from_its_first_failure() -> None:
    """A run that needed no request for an hour is not called off at the first failure after it."""
    health = Health(60)
    health.succeeded()
    health.failed(7, 10_000.0, FAILED, costly=False)
    health.throttled(10_059.0, FAILED)
    with pytest.raises(OutageError, match="no request has succeeded for 61 s"):
        health.failed(7, 10_061.0, FAILED, costly=False)


@given(st.lists(st.booleans(), max_size=400))
def test_the_retry_budget_is_spent_by_costly_failures_and_earned_by_successes(costs: list[bool]) -> None:
    """Without any success, a hundred attempts that may have been billed are all a run will risk."""
    health = Health(1e9)
    spent = 0
    for number, costly in enumerate(costs):
        try:
            spent += health.failed(number, 1.0, FAILED, costly=costly) or costly
        except OutageError:
            assert spent == 100
            return
    assert spent <= 100
