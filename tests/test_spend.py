"""The cap: never passed, whatever bills turn out to be; and what is said when it is reached."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from against import same, world
from hypothesis import given
from hypothesis import strategies as st
from jobs import rows, write_jsonl

from batchrank.errors import BudgetReachedError, JobError
from batchrank.models import Price
from batchrank.send.budget import Budget, Reservation
from batchrank.send.spend import Spend

ANYIO = pytest.mark.anyio
BILLS: list[dict[str, Any]] = [
    {},
    {"overhead_tokens": 60},
    {"overhead_tokens": 60, "bill_instruct": True},
    {"faults": {"answer-dropped": 0.2, "index-missing": 0.2, "usage-missing": 0.2}, "overhead_tokens": 40},
]


@ANYIO
@pytest.mark.parametrize("bill", BILLS)
@pytest.mark.parametrize("cap", [3_000, 20_000, 60_000])
async def test_bills_never_pass_the_cap(tmp_path: Path, cap: int, bill: dict[str, Any]) -> None:
    """Hidden tokens, wasted answers, many requests at a time: what is really billed stays within the cap."""
    async with world(tmp_path, queries=10, latency=0.3, **bill) as w:
        job = w.job(budget={"max_tokens": cap}, instruct="Rank by relevance to the task at hand.")
        report = await w.run(job)
        assert report.exit_code == 1 and isinstance(report.reason, BudgetReachedError)
        assert w.emulator.counts.tokens <= cap
        told, lost = report.data["spend"]["tokens"], report.data["spend"]["possibly_billed_tokens"]
        assert w.emulator.counts.tokens <= told
        # What was lost counts by the worst bill, also by one that is worse than all before it and comes after the loss.
        assert told <= cap or (lost and told - lost <= cap)
        if not bill and cap > 10_000:
            assert w.emulator.counts.tokens > 0.8 * cap


def test_alike_requests_without_usage_count_together_as_much_as_was_reserved_for_each() -> None:
    """A sum is not rounded up beyond its parts, or what is spent could pass the cap by a token."""
    for predicted in range(200, 1_000):
        spend = Spend(None, Budget(tokens=10**6))
        spend.settle(spend.reserve(predicted, 9), predicted + 360)
        reserved = [spend.reserve(predicted, 9) for _ in range(3)]
        for one in reserved:
            spend.settle(one, None)
        assert spend.bound == predicted + 360 + sum(one.tokens for one in reserved)


@ANYIO
async def test_a_resumed_run_keeps_counting(tmp_path: Path) -> None:
    """The cap is the run's, not the process's: starting again and again spends nothing more."""
    async with world(tmp_path, queries=10, latency=0.3, overhead_tokens=30) as w:
        job = w.job(budget={"max_tokens": 25_000})
        for _ in range(4):
            assert (await w.run(job)).exit_code == 1
        assert w.emulator.counts.tokens <= 25_000


@ANYIO
async def test_at_the_cap_what_is_complete_is_published_and_the_rest_is_priced(tmp_path: Path) -> None:
    """Rankings so far are in place; raising the cap would cost about what it then does."""
    async with world(tmp_path, queries=16) as w:
        full = await w.run(w.job("other"), part_documents=60)
        job = w.job(budget={"max_cost": full.data["spend"]["cost"] / 2})
        report = await w.run(job, part_documents=60)
        assert report.exit_code == 1
        assert 2 < report.data["totals"]["queries"] < 14
        assert (tmp_path / "out" / "ranking-00000.jsonl").exists()
        (notice,) = [n for n in report.data["notices"] if "the rest of the input would take" in n]
        match = re.search(r"about [\d.]+ CNY \(([\d,]+) tokens\) in all", notice)
        assert match is not None, notice
        assert int(match[1].replace(",", "")) == pytest.approx(full.data["spend"]["tokens"], rel=0.25)
        raised = w.job(budget={"max_cost": 1.0})
        assert (await w.run(raised, part_documents=60)).exit_code == 0
        assert same(raised, w.job("other"))


@ANYIO
async def test_a_cap_too_small_for_one_query_still_prices_the_rest(tmp_path: Path) -> None:
    """No query is complete, so the estimate comes from the documents that were answered."""
    async with world(tmp_path, queries=10) as w:
        report = await w.run(w.job(budget={"max_tokens": 2_500}))
        assert report.data["totals"]["queries"] == 0
        assert any("the rest of the input would take at least about" in n for n in report.data["notices"])


@ANYIO
async def test_a_cap_on_a_cost_that_cannot_be_known_is_an_error(tmp_path: Path) -> None:
    """Without a price a cap in money would be no cap."""
    async with world(tmp_path) as w:
        job = w.job(endpoint={"region": "hongkong"}, budget={"max_cost": 1.0})
        if job.price is not None:
            pytest.skip("the card knows a price there")
        with pytest.raises(JobError, match=r"budget\.max_cost: no price is known"):
            await w.run(job)
        assert w.emulator.requests == 0


@ANYIO
@pytest.mark.parametrize(("queries", "documents"), [(1, 24), (10, 50), (70, 10)])
async def test_every_input_has_a_drift_to_tell(tmp_path: Path, queries: int, documents: int) -> None:
    """Without a cap nothing needs exact counts; a sample is counted all the same, whatever the input's size."""
    qwen: dict[str, Any] = {"sections": {"tokenizer": "qwen"}, "tokenizer": "qwen"}
    async with world(tmp_path, queries=queries, candidates=documents, overhead_tokens=50, **qwen) as w:
        report = await w.run(w.job())
        assert report.data["spend"]["drift"] > 0.1


@ANYIO
async def test_a_drift_is_reported_with_what_would_explain_it(tmp_path: Path) -> None:
    """Billed more than predicted by over 2%: the summary says by how much, and which overhead_tokens to set."""
    async with world(tmp_path, overhead_tokens=17, tokenizer="qwen", sections={"tokenizer": "qwen"}) as w:
        report = await w.run(w.job())
        assert any("limits.overhead_tokens: 17 would explain it" in n for n in report.data["notices"])
        mended = await w.run(w.job("mended", limits={"documents": 10, "overhead_tokens": 17}))
        assert not any("overhead_tokens" in n for n in mended.data["notices"])
        assert abs(mended.data["spend"]["drift"]) < 0.02


@ANYIO
async def test_spending_survives_a_kill_in_flight(tmp_path: Path) -> None:
    """A request noted as sent whose process died counts against the cap: its answer may have been billed."""
    from batchrank.ledger.ledger import Ledger
    from batchrank.pipeline.resume import scope

    async with world(tmp_path, queries=10, script={5: "400-arrearage"}) as w:
        job = w.job(budget={"max_tokens": 30_000})
        await w.run(job)
        ledger = Ledger(tmp_path / "out" / "ledger.sqlite")
        number = (await ledger.load(f"run/{scope(job)}"))["number"]
        await ledger.begin(number)
        await ledger.sent(b"in flight", 20_000, 10)
        ledger.close()
        report = await w.run(job)
        assert report.exit_code == 1
        assert w.emulator.counts.tokens <= 10_000
        assert orjson.loads((tmp_path / "out" / "summary.json").read_bytes())["spend"]["tokens"] <= 30_000


@given(
    st.integers(1, 50_000),
    st.integers(0, 80),
    st.lists(
        st.tuples(st.integers(1, 40), st.integers(1, 30), st.sampled_from(["bill", "lose", "refuse"])),
        max_size=60,
    ),
    st.integers(1, 8),
)
def test_reservations_keep_within_the_cap(
    cap: int, hidden: int, requests: list[tuple[int, int, str]], flight: int
) -> None:
    """Whatever is reserved, billed with hidden tokens, lost or refused, in any order: the bill stays within the cap."""
    spend = Spend(Price(currency="USD", text=0.1), Budget(tokens=cap))
    truth = 0
    open_now: list[tuple[Reservation, int, str]] = []
    for documents, each, fate in requests:
        predicted = documents * each
        billed = predicted + documents * hidden
        if not (spend.blind and open_now):
            try:
                open_now.append((spend.reserve(predicted, documents), billed, fate))
            except BudgetReachedError:
                assert spend.fits(predicted, documents) is False
        if len(open_now) < flight and not spend.blind:
            continue
        while open_now:
            reservation, billed, fate = open_now.pop(0)
            if fate == "bill":
                spend.settle(reservation, billed)
            elif fate == "lose":
                spend.lose(reservation)
            else:
                spend.release(reservation)
                billed = 0
            truth += billed
            assert truth <= spend.bound and truth <= cap
            assert spend.tokens <= spend.bound
            if len(open_now) < flight:
                break


@ANYIO
@pytest.mark.parametrize("limit", [False, True], ids=["all", "limited"])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("sizes", [[4, 60, 60, 60, 60], [60] * 5, [120, 30, 30, 30, 30]], ids=str)
async def test_no_rest_is_free(tmp_path: Path, sizes: list[int], part: float, limit: bool) -> None:
    """Whatever the lists' lengths, and with only so many of them wanted: told about right, or as the least."""
    data = [rows(n + 1, size)[n] for n, size in enumerate([*sizes, *([50] * 45 if limit else [])])]
    only: dict[str, Any] = {"input": {"limit": 5}} if limit else {}
    async with world(tmp_path, data=data, latency=0.3) as w:
        whole = (await w.run(w.job("other", **only))).data["spend"]["tokens"]
        report = await w.run(w.job(budget={"max_tokens": int(whole * part)}, **only))
        assert report.data["totals"]["queries"] < 5
        (notice,) = [n for n in report.data["notices"] if "the rest of the input would take" in n]
        assert "0.0000" not in notice
        told = re.search(r"\(([\d,]+) tokens\) in all", notice)
        assert told is not None
        total = int(told[1].replace(",", ""))
        if "at least" in notice:
            assert 0.4 * whole < total < 1.2 * whole
        else:
            assert total == pytest.approx(whole, rel=0.3)


@ANYIO
async def test_a_rest_of_which_much_is_known_costs_little(tmp_path: Path) -> None:
    """Earlier answers are expected to save what they saved so far, and are not taken for what was spent ahead."""
    async with world(tmp_path, queries=20, sections={"reuse": {"audit": 0}}) as w:
        await w.run(w.job())
        data = rows(20, 34)
        for number, row in enumerate(data):
            row["candidates"][3] = {"id": "new", "text": f"a new one {number}", "score": 30.5}
        write_jsonl(w.data, data)
        before = w.emulator.counts.tokens
        other = w.job("other", ledger=str(tmp_path / "ledger.sqlite"))
        (tmp_path / "ledger.sqlite").write_bytes((tmp_path / "out" / "ledger.sqlite").read_bytes())
        await w.run(other)
        tonight = w.emulator.counts.tokens - before
        report = await w.run(w.job(budget={"max_tokens": tonight // 2}))
        (notice,) = [n for n in report.data["notices"] if "the rest of the input would take" in n]
        told = re.search(r"\(([\d,]+) tokens\) in all", notice)
        assert told is not None and int(told[1].replace(",", "")) == pytest.approx(tonight, rel=0.4)
