"""Money where servers give no result: what may have been billed counts, searches are money, requests can be capped."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from against import world
from aiohttp import web
from jobs import make_job, rows, run, write_jsonl

from batchrank.job.config import Job
from batchrank.models import Price
from batchrank.pipeline.run import Run
from batchrank.pipeline.summary import Progress
from batchrank.send.budget import Before, Budget, Taken
from batchrank.send.spend import Spend

ANYIO = pytest.mark.anyio


@dataclass
class Server:
    """Answers as ``respond`` says, by the number of the request; keeps its own bill of what was computed."""

    respond: Callable[[int], int]
    usage: Callable[[int, int], dict[str, Any]] = lambda tokens, documents: {
        "usage": {"total_tokens": tokens}
    }
    factor: int = 1
    billed: int = 0
    searches: int = 0
    requests: list[float] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        asked = await request.json()
        documents, query = asked["documents"], asked["query"]
        self.requests.append(asyncio.get_running_loop().time())
        status = self.respond(len(self.requests))
        tokens = self.factor * sum(len(query.encode()) + len(text.encode()) for text in documents)
        await asyncio.sleep(0.1)
        if status in (200, 500, 502, 504, 520, 521, 522, 523, 524):
            self.billed += tokens
            self.searches += -(-len(documents) // 100)
        if status != 200:
            return web.Response(status=status, text="<html>Bad gateway</html>", content_type="text/html")
        results = [{"index": i, "relevance_score": 1 / (i + 1)} for i in range(len(documents))]
        return web.json_response({"results": results, **self.usage(tokens, len(documents))})


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/rerank", server.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/rerank"
    finally:
        await runner.cleanup()


def job_at(folder: Path, url: str, queries: int = 60, **sections: Any) -> Job:
    (folder / "key").write_text("sk-test")
    endpoint = {"url": url, "api_key_file": str(folder / "key")}
    return make_job(
        folder, write_jsonl(folder / "in.jsonl", rows(queries, 10)), endpoint=endpoint, **sections
    )


@ANYIO
@pytest.mark.parametrize("status", [500, 502, 504, 520, 521, 522, 523, 524])
async def test_a_gateway_that_fails_after_the_work_was_done_cannot_pass_the_cap(
    tmp_path: Path, status: int
) -> None:
    """Every other request is computed and billed, and answered with a gateway's error: the cap holds all the same."""
    server = Server(lambda number: status if number % 2 else 200)
    async with serving(server) as url:
        report = await run(job_at(tmp_path, url, budget={"max_tokens": 30_000}))
    spend = report.data["spend"]
    assert report.exit_code == 1 and "budget.max_tokens" in str(report.reason)
    assert server.billed <= 30_000 and spend["tokens"] <= 30_000
    possibly = spend["possibly_billed_tokens"]
    assert possibly > 0 and spend["tokens"] - possibly <= server.billed <= spend["tokens"]


@ANYIO
async def test_a_hard_stop_is_booked_at_what_was_predicted(tmp_path: Path) -> None:
    """Cut off in flight before any bill was seen: the prediction counts, not the worst that can be imagined."""
    server = Server(lambda number: 200)
    async with serving(server) as url:
        job = job_at(tmp_path, url)
        with anyio.move_on_after(0.08):
            await run(job)
        cut = len(server.requests)
        assert cut > 0
        server.billed = 0
        report = await run(job)
    spend = report.data["spend"]
    predicted = spend["possibly_billed_tokens"]
    assert report.exit_code == 0 and report.data["process"]["ambiguous"] == 0
    assert predicted <= cut * (server.billed / 60) * 1.5


@ANYIO
async def test_searches_are_what_a_cap_in_money_counts(tmp_path: Path) -> None:
    """A server that bills searches, and tells no tokens: 20 searches at 2 USD a thousand are all that 0.04 buys."""

    def usage(tokens: int, documents: int) -> dict[str, Any]:
        return {"meta": {"billed_units": {"search_units": -(-documents // 100)}}}

    server = Server(lambda number: 200, usage)
    async with serving(server) as url:
        model = "rerank-v3.5"
        job = job_at(tmp_path, url, model=model, budget={"max_cost": 0.04})
        report = await run(job)
        spend = report.data["spend"]
        assert report.exit_code == 1 and "budget.max_cost" in str(report.reason)
        assert server.searches == spend["searches"] == 20
        assert spend["cost"] == pytest.approx(0.04)
        assert (await run(job)).exit_code == 1 and server.searches == 20
        raised = await run(job_at(tmp_path, url, model=model, budget={"max_cost": 1}))
    assert raised.exit_code == 0 and server.searches == 60
    assert raised.data["spend"]["cost"] == pytest.approx(0.12)
    assert raised.data["totals"]["searches"] == 60


@ANYIO
async def test_requests_can_be_capped(tmp_path: Path) -> None:
    """budget.max_requests: no more are answered or possibly billed, over all processes of the run."""
    async with world(tmp_path, queries=30, candidates=8) as w:
        job = w.job(budget={"max_requests": 12})
        for _ in range(3):
            report = await w.run(job)
            assert report.exit_code == 1 and "budget.max_requests: 12" in str(report.reason)
            assert w.emulator.requests == 12
        assert report.data["spend"]["requests"] == 12
        assert (await w.run(w.job(budget={"max_requests": 30}))).exit_code == 0


def test_a_price_is_for_something() -> None:
    """Of tokens, of searches, or of both; not of nothing."""
    with pytest.raises(ValueError, match="a price needs text"):
        Price(currency="USD")
    both = Price(currency="USD", text=1.0, search=2.0)
    assert both.cost(10**6, searches=500) == 2.0 and both.dearest.search == 2.0


def test_long_documents_may_take_several_searches() -> None:
    """The first reservation assumes the worst, later ones what bills have shown."""
    spend = Spend(Price(currency="USD", search=2.0), Budget(cost=0.05))
    first = spend.reserve(0, 100)
    with pytest.raises(Exception, match=r"budget\.max_cost"):
        for _ in range(3):
            spend.reserve(0, 100)
    spend.settle(first, None, searches=2)
    assert spend.cost == pytest.approx(0.004)


def test_what_earlier_processes_may_have_spent_still_counts() -> None:
    """Lost requests are kept as predictions, and judged by the bills that came since."""
    before = Before(tokens=Taken(billed=100, lost={(50, 5): 2}, ratio=2.0, hidden=0.0))
    spend = Spend(None, Budget(tokens=400), before)
    assert (spend.tokens, spend.possible_tokens, spend.bound) == (300, 200, 300)
    assert spend.fits(50, 5) and not spend.fits(51, 5)


@ANYIO
async def test_while_nothing_succeeds_everybody_can_see_why(tmp_path: Path) -> None:
    """From five seconds on progress tells for how long and what came back; the end tells it too."""
    async with world(tmp_path, queries=4, faults={"503": 1.0}, fault_limit=0) as w:
        running = Run(w.job(retry={"outage": 40}))
        seen: list[Progress] = []

        async def look() -> None:
            while True:
                await anyio.sleep(1)
                if progress := running.progress():
                    seen.append(progress)

        async with anyio.create_task_group() as group:
            group.start_soon(look)
            report = await running.execute()
            group.cancel_scope.cancel()
        assert report.exit_code == 75
        told = [progress.trouble for progress in seen if progress.trouble]
        assert len(seen) - len(told) <= 6
        assert all("no request has succeeded for" in text and "HTTP 503" in text for text in told)
        assert any("HTTP 503" in notice for notice in report.data["notices"])


def total(run: Run) -> int:
    """The most that can have been billed to a run by now, what is in flight included."""
    assert run._engine is not None
    spend = run._engine.spend
    return spend.bound + sum(one.tokens for one in spend._open)


@ANYIO
@pytest.mark.parametrize(
    "usage",
    [
        pytest.param("told", marks=pytest.mark.slow),
        pytest.param("never", marks=pytest.mark.slow),
        "sometimes",
        "three times the count",
    ],
)
async def test_over_several_kills_the_bill_stays_between_what_we_tell(tmp_path: Path, usage: str) -> None:
    """At any moment the server's own bill is within our upper bound; in the end the two differ by what kills lost."""
    answered = 0

    def told(tokens: int, documents: int) -> dict[str, Any]:
        nonlocal answered
        answered += 1
        if usage == "never" or (usage == "sometimes" and answered % 2):
            return {}
        return {"usage": {"total_tokens": tokens}}

    server = Server(lambda number: 502 if number % 7 == 3 else 200, told)
    server.factor = 3 if usage.startswith("three") else 1
    async with serving(server) as url:
        job = job_at(tmp_path, url, limits={"documents": 5}, rate={"concurrency": 4})

        async def compare(running: Run) -> None:
            while True:
                await anyio.sleep(0.03)
                if running.progress() is not None and running._engine is not None:
                    assert server.billed <= total(running)

        ended = False
        for seconds in (1, 2, 3, 4, 1000):
            running = Run(job)
            with anyio.move_on_after(seconds):
                async with anyio.create_task_group() as group:
                    group.start_soon(compare, running)
                    report = await running.execute()
                    ended = True
                    group.cancel_scope.cancel()
        assert ended and report.exit_code == 0
    spend = report.data["spend"]
    possibly, one = spend["possibly_billed_tokens"], server.billed / len(server.requests)
    assert possibly > 0 and spend["tokens"] - possibly <= server.billed <= spend["tokens"]
    assert spend["tokens"] - server.billed <= 4 * 4 * 1.5 * one  # four kills, four requests in flight at each


@ANYIO
async def test_a_server_without_usage_is_booked_once_however_often_the_run_goes_on(tmp_path: Path) -> None:
    """What was answered counts as predicted, in the first process and in each one after it: never the worst twice."""
    server = Server(lambda number: 200, lambda tokens, documents: {})
    async with serving(server) as url:
        job = job_at(tmp_path, url)
        whole = (await run(job)).data["spend"]["tokens"]
        job = job_at(tmp_path, url, output={"path": "again"}, ledger=str(tmp_path / "again.sqlite"))
        server.respond = lambda number: 402 if number % 15 == 14 else 200
        seen = []
        for _ in range(10):
            report = await run(job)
            seen.append(report.data["spend"]["tokens"])
            if report.exit_code == 0:
                break
    assert len(seen) > 2 and seen == sorted(seen)
    assert seen[-1] == whole
