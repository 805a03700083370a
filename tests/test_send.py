"""Sending, part by part: whose turn it is, what counts as an outage, and that one request is asked once."""

from pathlib import Path

import anyio
import numpy as np
import pytest
from against import world
from hypothesis import given
from hypothesis import strategies as st
from jobs import rows
from servers import alone, holding

from batchrank.data import Answer, Candidate, Query, Rejection
from batchrank.errors import OutageError, StoppedError
from batchrank.merge.verdict import Verdicts
from batchrank.pipeline.assemble import engine, opened_ledger, sharder
from batchrank.pipeline.endpoint import codec, encoder
from batchrank.send.admission import Scheduler
from batchrank.send.concurrency import ConcurrencyLimit
from batchrank.send.health import UNREACHABLE, OutageDetector, Size, Sizes
from batchrank.send.limiter import Limiter

ANYIO = pytest.mark.anyio
FAILED = Rejection(500, "InternalError", "oh")


@ANYIO
async def test_the_oldest_query_goes_first() -> None:
    """A second round of an early query overtakes the first round of later ones."""
    scheduler = Scheduler(Limiter(rpm=60_000, tpm=1e12), alone(ConcurrencyLimit(1)))
    order: list[int] = []

    async def ask(position: int) -> None:
        async with holding(scheduler, (position, 0, 0), 1):
            order.append(position)
            await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.serve)
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
    scheduler = Scheduler(Limiter(rpm=60_000, tpm=1e12), alone(ConcurrencyLimit(2)))

    async def ask(number: int) -> None:
        async with holding(scheduler, (number, 0, 0), 1):
            await anyio.sleep(1)

    async with anyio.create_task_group() as serving:
        serving.start_soon(scheduler.serve)
        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(ask, number)
            await anyio.sleep(moment)
            group.cancel_scope.cancel()
        await anyio.sleep(0.1)
        assert scheduler.fleet.busy == 0
        with anyio.fail_after(2):
            await ask(0)
        serving.cancel_scope.cancel()


@ANYIO
async def test_closing_wakes_everyone_and_ends_the_serving() -> None:
    """Those that wait, the one whose turn is next, and those that come later get the reason; nothing spins."""
    limiter = Limiter(rpm=60_000, tpm=1e12)
    limiter.throttled("requests", 60.0)
    scheduler = Scheduler(limiter, alone(ConcurrencyLimit(2)))
    told: list[str] = []

    async def ask(number: int) -> None:
        try:
            async with holding(scheduler, (number, 0, 0), 1):
                raise AssertionError("sent after the close")
        except StoppedError as reason:
            told.append(str(reason))

    async with anyio.create_task_group() as serving:
        serving.start_soon(scheduler.serve)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                for number in range(4):
                    group.start_soon(ask, number)
                await anyio.sleep(1)
                scheduler.close(StoppedError("enough"))
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
async def test_what_was_answered_meanwhile_is_not_sent(tmp_path: Path) -> None:
    """Whoever asks may have looked it up before that, as a process does that takes over what a dead one had asked.

    Its answer is that of the ledger; nothing is in flight, reserved or counted. Another run may ask it again.
    """
    async with world(tmp_path) as w, opened_ledger(tmp_path / "ledger.sqlite") as ledger:
        job = w.job()
        spent = await ledger.begin(1)
        async with engine(job, sharder(job), ledger, spent, Verdicts(job.card.scores)) as parts:
            query = Query.of("q", "what", [Candidate("a", "one"), Candidate("b", "two")])

            async def ask() -> Answer | Rejection:
                request = encoder(job, codec(job), legacy=False).encode(query, np.arange(2))
                request.predicted = 1_000
                return await parts.gateway.ask(request, lambda: "here")

            found = [await ask() for _ in range(3)]
            assert w.emulator.requests == 1 and parts.gateway.counts.requests == 1
            assert len({repr(one) for one in found}) == 1 and isinstance(found[0], Answer)
            assert not parts.spend.in_flight and not parts.fleet.busy
            await ledger.begin(2)
            await ask()
            assert w.emulator.requests == 2


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


def test_what_succeeds_tells_a_bad_request_from_an_outage() -> None:
    """A failure is a request's own if anything has succeeded since its try began, however many others fail."""
    outage = OutageDetector(600, accepted=False)
    assert not outage.works(0.0) and not outage.accepted
    outage.succeeded(5.0, 3.0)
    assert outage.accepted and outage.works(4.0) and not outage.works(6.0)
    assert outage.works(3.0, sent=True) and not outage.works(4.0, sent=True)


def test_an_outage_is_timed_from_its_first_failure() -> None:
    """A run that needed no request for an hour is not called off at the first failure after it."""
    outage = OutageDetector(60, accepted=True)
    outage.succeeded(0.0, 0.0)
    for moment in (10_000.0, 10_030.0, 10_059.0):
        outage.failed(moment, FAILED)
    with pytest.raises(OutageError, match="no request has succeeded for 61 s"):
        outage.failed(10_061.0, FAILED)


def test_trouble_is_told_from_five_seconds_on() -> None:
    """While nothing succeeds: since when, and what came back last; after a success, nothing."""
    outage = OutageDetector(600, accepted=True)
    outage.failed(100.0, FAILED)
    assert outage.trouble(104.0) is None
    outage.failed(104.5, Rejection(None, UNREACHABLE, "no route"))
    trouble = outage.trouble(106.0)
    assert (
        trouble is not None
        and trouble.startswith("no request has succeeded for 6 s;")
        and "no route" in trouble
    )
    outage.succeeded(107.0, 106.0)
    assert outage.trouble(200.0) is None


@given(st.lists(st.integers(0, 4), max_size=600))
def test_wasted_answers_are_bounded_by_those_that_arrive(waste: list[int]) -> None:
    """A hundred answers possibly billed without a result, and half a one for each that arrives, are all a run risks."""
    outage = OutageDetector(1e9, accepted=True)
    wasted = 0
    for successes, attempts in enumerate(waste, 1):
        outage.succeeded(float(successes), float(successes))
        try:
            outage.wasted(attempts, FAILED)
        except OutageError:
            assert wasted + attempts > 100
            return
        wasted += attempts
        assert wasted <= 100 + successes / 2


SIZES = st.builds(Size, st.integers(1, 40), st.integers(1, 400), st.integers(1, 4_000))


@given(SIZES, st.lists(SIZES, max_size=60))
def test_what_is_halved_unasked_would_have_been_rejected(limit: Size, sizes: list[Size]) -> None:
    """Whatever the limits are, no request within them is held to be too large, and what is known is used."""
    known = Sizes()
    for size in sizes:
        allowed = all(a <= b for a, b in zip(size, limit, strict=True))
        if known.hopeless(size) is not None:
            assert not allowed
        elif allowed:
            known.accepted(size.documents, size.body)
        else:
            known.rejected(size, FAILED)
            assert known.hopeless(size) is not None


def test_a_size_well_below_an_accepted_one_is_no_reason() -> None:
    """A request half as large as one that was accepted, in documents and in bytes, can't be too large."""
    sizes = Sizes()
    assert sizes.plausible(1, 10)
    sizes.accepted(100, 10_000)
    assert not sizes.plausible(50, 5_000) and sizes.plausible(51, 5_000) and sizes.plausible(50, 6_000)
