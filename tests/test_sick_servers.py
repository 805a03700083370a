"""Sick servers of many kinds, each with a true order and a bill of its own: rankings, money, waiting, words."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest
from jobs import failed, outputs, rankings, rows, run
from sick_server import PROBE, Api, job_for, reply, serving, wrong

from batchrank.errors import StoppedError
from batchrank.pipeline.run import Options, Run

pytestmark = pytest.mark.anyio
ALL: dict[str, Any] = {"limits": {"documents": 500}}


def too_long(q: str, docs: list[str], n: int) -> Any:
    """One document over the server's own limit of an item fails its whole request (llama.cpp's words)."""
    if any(len(t) > 900 for t in docs):
        return reply(
            500,
            {
                "error": {
                    "code": 500,
                    "message": "input is too large to process. increase the physical batch size",
                }
            },
        )
    return None


def too_long_413(q: str, docs: list[str], n: int) -> Any:
    return reply(413, {"error": "Payload Too Large"}) if any(len(t) > 900 for t in docs) else None


def _lists() -> tuple[list[Any], set[str]]:
    """Two short lists with one over-long document each, then lists of 12 good ones whose sum is larger."""
    data = rows(2, 2) + rows(12, 12)[2:]
    lost = set()
    for row in data[:2]:
        row["candidates"][1]["text"] += " xx" * 300
        lost.add(row["candidates"][1]["id"])
    for row in data[2:]:
        for c in row["candidates"]:
            c["text"] += " yy" * 40
    return data, lost


# 1. wrong ranking
async def test_a_request_that_was_held_up_three_times_is_not_halved(tmp_path: Path) -> None:
    """Three time-outs halve a request, and halves are merged otherwise; not those of a process that was suspended."""

    def suspended(q: str, docs: list[str], n: int) -> None:
        if n <= 3 and len(docs) > 1:
            asyncio.get_running_loop().advance(500)  # type: ignore[attr-defined]  # virtual time's

    data = rows(1, 6)
    async with serving(Api(suspended, latency=10)) as api:
        await run(job_for(tmp_path, data, api, **ALL))
    assert [len(docs) for _, docs, _ in api.of(data[0]["query"])] == [6, 6, 6, 6]


@pytest.mark.parametrize("fate", [too_long, too_long_413])
async def test_an_overlong_document_has_no_other_list_cut(tmp_path: Path, fate: Any) -> None:
    """Lists without it are asked whole, as the server takes them."""
    data, _ = _lists()
    async with serving(Api(fate)) as api:
        job = job_for(tmp_path, data, api, **ALL, rate={"concurrency": 1})
        await run(job)
        whole = {a[0] for a in api.asked if len(a[1]) == 12 and a[2] == 200}
        assert len(whole) == 10


async def test_an_overlong_document_makes_no_other_list_wrong(tmp_path: Path) -> None:
    """The server would have taken each list of five in one request."""
    data = rows(2, 2) + rows(12, 5)[2:]
    lost = set()
    for row in data[:2]:
        row["candidates"][1]["text"] += " xx" * 300
        lost.add(row["candidates"][1]["id"])
    for row in data[2:]:
        for c in row["candidates"]:
            c["text"] += " yy" * 200
    async with serving(Api(too_long_413)) as api:
        job = job_for(tmp_path, data, api, **ALL, rate={"concurrency": 1})
        await run(job)
        assert not wrong(job, data[2:], 5)


@pytest.mark.parametrize("concurrency", [1, "auto"])
async def test_a_few_overlong_documents_spoil_no_other_ranking(tmp_path: Path, concurrency: Any) -> None:
    """200 lists of five, every tenth with one document over the server's limit: all others are asked whole, as ever."""
    data = rows(200, 5)
    for row in data:
        for c in row["candidates"]:
            c["text"] += " yy" * 60
    for row in data[::10]:
        row["candidates"][2]["text"] += " xx" * 250
    good = [row for number, row in enumerate(data) if number % 10]
    async with serving(Api(too_long_413)) as api:
        job = job_for(tmp_path, data, api, **ALL, rate={"concurrency": concurrency})
        report = await run(job)
        spoilt = wrong(job, good, 5)
        assert not spoilt, (
            len(spoilt),
            report.data["totals"]["methods"],
            report.data["notices"],
            next(iter(spoilt.values())),
        )


async def test_a_stop_after_sizes_were_learnt_changes_nothing(tmp_path: Path) -> None:
    """Promise 1: byte-identical however often it was interrupted."""
    data, _ = _lists()
    async with serving(Api(too_long)) as api:
        whole = job_for(tmp_path, data, api, out="whole", **ALL, rate={"concurrency": 1})
        await run(whole)
        cut = job_for(tmp_path, data, api, out="cut", **ALL, rate={"concurrency": 1})
        begun, first = Run(cut, Options(drain=0.0)), len(api.asked)
        async with anyio.create_task_group() as group:

            async def stop() -> None:
                while len(api.asked) < first + 4:  # noqa: ASYNC110 the server tells
                    await anyio.sleep(0.01)
                begun.stop(StoppedError("cut"))

            group.start_soon(stop)
            await begun.execute()
        await run(cut)
        assert outputs(cut) == outputs(whole)


@pytest.mark.parametrize("kind", ["refused", "500"])
async def test_good_documents_among_many_bad_ones_are_ranked(tmp_path: Path, kind: str) -> None:
    """Every second of 16 documents is bad, those at even places: the other eight would be accepted."""
    data = rows(6, 16)
    for c in data[2]["candidates"][::2]:
        c["text"] += " unlucky"

    def fate(q: str, docs: list[str], n: int) -> Any:
        if not any("unlucky" in t for t in docs):
            return None
        if kind == "500":
            return reply(500, {"message": "x"})
        return reply(400, {"code": "DataInspectionFailed", "message": "inappropriate content"})

    async with serving(Api(fate)) as api:
        job = job_for(tmp_path, data, api, **ALL)
        await run(job)
        assert "q2" in {r["query_id"] for r in rankings(job)}, failed(job)[0]["message"]


async def test_a_good_part_that_meets_two_503s_is_not_lost(tmp_path: Path) -> None:
    """One document is blocked; a good neighbour, asked alone, gets 503 twice and would be answered then."""
    data = rows(6, 4)
    data[2]["candidates"][0]["text"] += " unlucky"
    good = data[2]["candidates"][2]["text"]

    def fate(q: str, docs: list[str], n: int) -> Any:
        if any("unlucky" in t for t in docs):
            return reply(403, text="<html>blocked</html>")
        return reply(503, {"message": "busy"}) if docs == [good] and n <= 2 else None

    async with serving(Api(fate)) as api:
        job = job_for(tmp_path, data, api, **ALL)
        await run(job)
        assert [x["message"].split("'")[1] for x in failed(job)] == ["d2-0"]


# 2. money
@pytest.mark.parametrize("told", [True, False])
async def test_a_cap_in_searches_holds_over_several_processes(tmp_path: Path, told: bool) -> None:
    """0.002 a search, cap 0.020: ten searches at most; each process is cut after three requests."""
    usage = {"meta": {"billed_units": {"search_units": 1}}} if told else {}
    model = {"base": "qwen3-rerank", "name": "rerank-x", "price": {"currency": "USD", "search": 2.0}}
    async with serving(Api(usage=lambda q, d: usage)) as api:
        for number in range(8):
            job = job_for(
                tmp_path, rows(40, 5), api, limits={"documents": 100}, endpoint={"wire": "cohere"},
                budget={"max_cost": 0.020}, rate={"concurrency": 1}, model=model,
            )  # fmt: skip
            begun, first = Run(job, Options(drain=0.0)), len(api.asked)
            async with anyio.create_task_group() as group:

                async def stop() -> None:
                    while len(api.asked) < first + 3:  # noqa: ASYNC110, B023 ends with its loop
                        await anyio.sleep(0.01)
                    begun.stop(StoppedError("cut"))  # noqa: B023

                if number < 7:
                    group.start_soon(stop)
                report = await begun.execute()
                group.cancel_scope.cancel()
        assert len(api.asked) <= 10, (len(api.asked), report.data["spend"]["searches"])


async def _outage(tmp_path: Path, seconds: float, status: int, **sections: Any) -> tuple[Any, Api, float]:
    api, down = Api(), [0.0, 0.0]
    api.fate = lambda q, d, n: (
        reply(status, text="down", billed=status == 502)
        if down[0] <= anyio.current_time() < down[1]
        else None
    )
    async with serving(api):
        job = job_for(
            tmp_path, rows(60, 300), api, limits={"documents": 300, "request_tokens": 120_000}, **sections
        )
        started = anyio.current_time()

        async def storm() -> None:
            while len(api.asked) < 5:  # noqa: ASYNC110 the server tells
                await anyio.sleep(0.1)
            down[:] = [anyio.current_time(), anyio.current_time() + seconds]

        async with anyio.create_task_group() as group:
            group.start_soon(storm)
            report = await run(job)
        return report, api, anyio.current_time() - started


async def test_probes_are_booked_at_what_they_may_cost(tmp_path: Path) -> None:
    """Half a minute of billed 502s: the server's bill is known exactly, as tokens are bytes here."""
    report, api, _ = await _outage(tmp_path, 30, 502, rate={"concurrency": 4})
    spend = report.data["spend"]
    assert api.billed <= spend["tokens"] <= 1.5 * api.billed, (api.billed, spend["tokens"])


async def test_a_cap_far_away_is_not_met_by_probes(tmp_path: Path) -> None:
    report, api, _ = await _outage(
        tmp_path, 30, 502, rate={"concurrency": 4}, budget={"max_tokens": 50_000_000}
    )
    assert report.exit_code == 0, (api.billed, report.reason)


async def test_probes_use_up_no_quota_of_tokens(tmp_path: Path) -> None:
    """Without the outage of 200 s the job takes 176 s, as the token quota wants."""
    _, _, seconds = await _outage(tmp_path, 200, 503, rate={"concurrency": 4, "tpm": 600_000})
    assert seconds < 176 + 200 + 120, seconds


async def test_an_outage_that_ends_between_two_probes_makes_later_ones_no_dearer(tmp_path: Path) -> None:
    """The harmless request failed for the outage's sake, not for its own."""
    api = Api()
    data = rows(40, 60)
    for row in data[20::4]:
        row["candidates"][7]["text"] += " unlucky"
    failing = [False, False]

    def fate(q: str, docs: list[str], n: int) -> Any:
        if len(api.asked) >= 5 and not failing[1]:
            failing[0] = True
        if failing[0] and not failing[1]:
            if q == PROBE:
                failing[1] = True  # the last request that meets the outage
            return reply(503, text="down")
        return reply(400, {"message": "invalid"}) if any("unlucky" in t for t in docs) else None

    api.fate = fate
    async with serving(api):
        job = job_for(tmp_path, data, api, **ALL, rate={"concurrency": 1})
        await run(job)
        paid = Counter((a[0], a[1]) for a in api.asked if a[2] == 200 and a[0] != PROBE)
        assert sum(paid.values()) - len(paid) <= 1, [(len(k[1]), n) for k, n in paid.items() if n > 1]


async def test_a_rerun_books_nothing_for_documents_found_too_long(tmp_path: Path) -> None:
    """llama.cpp's 500: known from the first run, and possibly billed each time it is asked."""
    data, _ = _lists()
    async with serving(Api(too_long)) as api:
        job = job_for(tmp_path, data, api, **ALL, rate={"concurrency": 1})
        await run(job)
        asked = len(api.asked)
        again = await run(job)
        assert {words for *_, words in api.asked[asked:]} <= {500}  # which cost nothing
        assert again.data["spend"]["possibly_billed_tokens"] == 0


# 3. stuck, and requests without a result
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (
            429,
            {
                "code": "Throttling.AllocationQuota",
                "message": "Allocated quota exceeded, please increase your quota limit.",
            },
        ),
        (429, {"message": "Too Many Requests"}),
        (503, {"message": "too many requests"}),
    ],
)
async def test_one_request_that_is_always_throttled_stops_nothing(
    tmp_path: Path, status: int, body: Any
) -> None:
    """As a request beyond the account's tokens a minute is: the others succeed at any time, and so would its halves."""
    data = rows(60, 9)
    data[5]["candidates"][4]["text"] += " heavy" * 100
    async with serving(Api(lambda q, d, n: reply(status, body) if sum(map(len, d)) > 1200 else None)) as api:
        job = job_for(tmp_path, data, api, **ALL)
        report = await run(job)
        assert report.exit_code in (0, 3), report.reason
        assert len(rankings(job)) >= 59


async def test_a_query_too_long_costs_few_requests(tmp_path: Path) -> None:
    """No part of it is accepted: soon given up, with a dead letter; a rerun asks a few parts again, which is free."""
    data = rows(12, 6) + rows(13, 300)[12:]
    data[12]["query"] += " very" * 300
    words = {"message": "query length exceeds the limit of 512 tokens"}
    async with serving(Api(lambda q, d, n: reply(400, words) if len(q) > 1000 else None)) as api:
        job = job_for(tmp_path, data, api, **ALL)
        assert (await run(job)).exit_code == 3
        assert len(api.asked) < 12 + 60
        assert len(rankings(job)) == 12
        billed = api.billed
        assert (await run(job)).exit_code == 3
        assert len(api.asked) < 12 + 120 and api.billed == billed


async def test_a_document_that_the_server_hangs_on_holds_up_the_job_for_its_retries_only(
    tmp_path: Path,
) -> None:
    """Six tries of a minute each, and little more."""
    data = rows(60, 16)
    data[20]["candidates"][3]["text"] += " unlucky"

    api = Api()
    original = api.handle

    async def hang(request: Any) -> Any:
        if b"unlucky" in await request.read():
            await anyio.sleep(120)
        return await original(request)

    api.handle = hang  # type: ignore[method-assign]
    async with serving(api):
        job = job_for(tmp_path, data, api, **ALL)
        started = anyio.current_time()
        assert (await run(job)).exit_code == 3
        assert anyio.current_time() - started < 500


async def test_a_fresh_run_asks_again_about_what_was_blocked(tmp_path: Path) -> None:
    """Sender.anew is there for that, and nothing sets it."""
    data, blocked = rows(6, 4), [True]
    data[2]["candidates"][0]["text"] += " unlucky"

    def fate(q: str, docs: list[str], n: int) -> Any:
        return (
            reply(403, text="<html>blocked</html>")
            if blocked[0] and any("unlucky" in t for t in docs)
            else None
        )

    async with serving(Api(fate)) as api:
        job = job_for(tmp_path, data, api, **ALL)
        assert (await run(job)).exit_code == 3
        blocked[0] = False
        assert (await run(job, fresh=True)).exit_code == 0


# 4. messages
async def test_a_cap_on_requests_says_what_to_raise(tmp_path: Path) -> None:
    async with serving(Api()) as api:
        report = await run(job_for(tmp_path, rows(20, 5), api, **ALL, budget={"max_requests": 7}))
        assert any("budget.max_requests" in notice for notice in report.data["notices"]), report.data[
            "notices"
        ]


async def test_a_cap_met_among_failures_tells_what_is_left(tmp_path: Path) -> None:
    """Nothing is ranked yet, and the rest is said to take 0 tokens."""
    data = rows(12, 12)
    for row in data[::3]:
        row["candidates"][4]["text"] += " unlucky"
    bad = reply
    async with serving(
        Api(
            lambda q, d, n: (
                bad(500, {"message": "x"}, billed=True) if any("unlucky" in t for t in d) else None
            )
        )
    ) as api:
        report = await run(job_for(tmp_path, data, api, **ALL, budget={"max_tokens": 15_000}))
        assert report.data["totals"]["queries"] < 12
        assert not any("(0 tokens)" in notice for notice in report.data["notices"]), report.data["notices"]


async def test_a_single_document_too_large_is_not_told_as_a_limit_of_documents(tmp_path: Path) -> None:
    data = rows(12, 12)
    data[3]["candidates"][5]["text"] += " xx" * 400
    async with serving(Api(too_long)) as api:
        report = await run(job_for(tmp_path, data, api, **ALL))
        assert not any("set limits.documents" in notice for notice in report.data["notices"]), report.data[
            "notices"
        ]


async def test_raw_over_a_halved_list_is_told(tmp_path: Path) -> None:
    """Every list was planned as one request; the server takes 12, and raw sorts scores of several requests together."""
    data = rows(6, 30)
    limited = Api(
        lambda q, d, n: reply(413, {"error": "batch size > maximum allowed"}) if len(d) > 12 else None
    )
    async with serving(limited) as api:
        job = job_for(tmp_path, data, api, **ALL, merge={"method": "raw", "top_k": 5})
        report = await run(job)
        assert wrong(job, data, 5)
        assert any("WRONG" in notice or "comparable" in notice for notice in report.data["notices"]), (
            report.data["notices"]
        )


async def test_failures_of_several_kinds_are_counted_each_for_itself(tmp_path: Path) -> None:
    """Three failures of one kind and one of another don't add up to four of the other: nothing is halved."""

    def fate(query: str, documents: list[str], times: int) -> Any:
        if query == PROBE or times > 4:
            return None
        return reply(200, {"results": []}) if times == 4 else reply(500, {"message": "oh"})

    async with serving(Api(fate)) as api:
        report = await run(job_for(tmp_path, rows(1, 8), api, **ALL))
        assert (report.exit_code, report.data["process"]["splits"]) == (0, 0)
        assert report.data["totals"]["requests"] == 1
