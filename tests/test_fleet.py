"""Several servers of one model: each gets what it copes with, who fails is replaced, and nothing is lost by it."""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from aiohttp import web
from fleets import HARMLESS, Server, during, fleet, job_at, paid_twice, state
from jobs import cut, outputs, run
from sick_server import reply

from batchrank.errors import StoppedError
from batchrank.pipeline.run import Run

ANYIO = pytest.mark.anyio


@ANYIO
@pytest.mark.parametrize(
    ("concurrency", "queries"), [pytest.param("auto", 400, marks=pytest.mark.slow), (24, 250)]
)
async def test_each_is_used_by_what_it_copes_with(tmp_path: Path, concurrency: Any, queries: int) -> None:
    """Of three servers at 80, 40 and 10 requests a second each gets its part within 15%, and none stands idle."""
    servers = Server(workers=8, latency=0.1), Server(workers=4, latency=0.1), Server(workers=4, latency=0.4)
    async with fleet(*servers):
        job = job_at(tmp_path, *servers, queries=queries, rate={"concurrency": concurrency})
        began = anyio.current_time()
        report = await run(job)
        took = anyio.current_time() - began
    assert report.exit_code == 0 and paid_twice(*servers) == 0
    total = sum(server.answered for server in servers)
    for server, speed in zip(servers, (80, 40, 10), strict=True):
        assert server.answered / total == pytest.approx(speed / 130, rel=0.15), [s.answered for s in servers]
    assert took <= 1.15 * total / 130


@ANYIO
async def test_a_number_is_for_all_together(tmp_path: Path) -> None:
    """rate.concurrency: 5 is five requests in flight, however many servers there are."""
    flight = most = 0

    class Counting(Server):
        async def handle(self, request: web.Request) -> web.StreamResponse:
            nonlocal flight, most
            flight += 1
            most = max(most, flight)
            try:
                return await super().handle(request)
            finally:
                flight -= 1

    servers = Counting(workers=99), Counting(workers=99), Counting(workers=99)
    async with fleet(*servers):
        await run(job_at(tmp_path, *servers, rate={"concurrency": 5}))
    assert most == 5
    shares = sorted(server.answered for server in servers)
    assert shares[0] >= 0.75 * shares[2]


@ANYIO
async def test_one_that_dies_is_replaced_by_the_others_and_comes_back(tmp_path: Path) -> None:
    """Cut off in the middle and started again: no query fails, only what was cut off is asked again, and it is used."""
    servers = Server(latency=0.2), Server(latency=0.2), Server(latency=0.2)
    async with fleet(*servers):
        job = job_at(tmp_path, *servers, queries=150)
        dies = servers[1]
        before = 0

        async def count() -> None:
            nonlocal before
            before = dies.answered
            await dies.start()

        report = await during(job, (2, dies.stop), (6, count))
        assert report.exit_code == 0 and report.data["totals"]["failed"] == 0
        assert paid_twice(*servers) <= report.data["process"]["ambiguous"]
        told = state(report, dies)
        assert told["outs"] >= 1 and told["out"] is None
        assert dies.answered > before + 20
        assert [n for n in report.data["notices"] if told["name"] in n and "came back" in n]
        other = job_at(tmp_path, servers[0], queries=150, out="other")
        await run(other)
        assert outputs(job) == outputs(other)


@ANYIO
@pytest.mark.parametrize("status", [500, 502, 503, 401, 404])
async def test_one_that_is_sick_costs_no_query(tmp_path: Path, status: int) -> None:
    """It fails with all it gets, from the start or from then on: taken out after a few, and the others carry on."""
    sick = Server(fate=lambda q, d, n: reply(status, {"message": "oh"}))
    servers = Server(), sick, Server()
    async with fleet(*servers):
        report = await run(job_at(tmp_path, *servers, queries=60))
    assert report.exit_code == 0 and report.data["totals"]["failed"] == 0, report.reason
    assert report.data["totals"]["lost"] == 0
    assert paid_twice(*servers) == 0 and sick.answered == 0
    scores = [a for a in sick.asked if a[0] != HARMLESS]
    assert len(scores) <= 34  # as many as were in flight at first, by two paths where that may be the fault
    assert state(report, sick)["out"]


@pytest.mark.slow
@ANYIO
async def test_one_that_answers_probes_only_is_left_in_peace(tmp_path: Path) -> None:
    """It answers the harmless request and fails with all else: one request at a time finds out, ever more rarely."""
    sick = Server(latency=0.5, fate=lambda q, d, n: None if q == HARMLESS else reply(500, {"message": "oh"}))
    servers = Server(latency=0.5), sick
    async with fleet(*servers):
        began = anyio.current_time()
        report = await run(job_at(tmp_path, *servers, queries=200))
        assert anyio.current_time() - began > 120
    assert report.exit_code == 0 and report.data["totals"]["failed"] == 0
    assert len([a for a in sick.asked if a[0] != HARMLESS]) <= 40
    assert report.data["spend"]["possibly_billed_tokens"] > 0


@ANYIO
async def test_one_that_hangs_is_taken_out(tmp_path: Path) -> None:
    """It takes requests and never answers: after some time-outs the others do all, and nothing is lost."""
    hangs = Server(latency=10**6, workers=10**6)
    servers = Server(latency=0.25), hangs
    async with fleet(*servers):
        report = await run(job_at(tmp_path, *servers, queries=200, endpoint={"timeout": 5}))
    assert report.exit_code == 0 and report.data["totals"]["failed"] == 0
    assert state(report, hangs)["out"]
    assert report.data["process"]["ambiguous"] <= 60


@ANYIO
async def test_one_with_another_setup_is_not_believed(tmp_path: Path) -> None:
    """It rejects what the others take, for a reason nobody knows: nothing is lost for it."""
    odd = Server(fate=lambda q, d, n: reply(400, {"message": "no such tenant"}))
    servers = Server(), odd, Server()
    async with fleet(*servers):
        report = await run(job_at(tmp_path, *servers, queries=40))
    assert report.exit_code == 0 and report.data["totals"]["lost"] == 0


@ANYIO
async def test_a_bad_document_is_found_as_with_one_server(tmp_path: Path) -> None:
    """What fails everywhere is the document's fault, not the servers'."""

    def fate(q: str, docs: list[str], n: int) -> Any:
        return reply(500, {"message": "oh"}) if any(text.endswith(" 3007") for text in docs) else None

    servers = Server(fate=fate), Server(fate=fate), Server(fate=fate)
    async with fleet(*servers):
        report = await run(job_at(tmp_path, *servers, queries=40))
    assert report.exit_code == 3 and report.data["totals"]["lost"] == 1
    assert report.data["totals"]["failed"] == 0


@ANYIO
async def test_when_all_are_gone_it_is_an_outage_and_goes_on_later(tmp_path: Path) -> None:
    """Exit 75 after retry.outage, no dead letters; with one of them back the run goes on, paying for nothing twice."""
    servers = Server(latency=0.2), Server(latency=0.2), Server(latency=0.2)
    async with fleet(*servers):
        job = job_at(tmp_path, *servers, queries=80, retry={"outage": 60})
        first = await during(job, *((1 + i, server.stop) for i, server in enumerate(servers)))
        assert first.exit_code == 75 and "no request has succeeded for" in str(first.reason)
        assert first.data["totals"]["failed"] == 0
        await servers[2].start()
        second = await run(job)
        assert second.exit_code == 0 and paid_twice(*servers) <= first.data["process"]["ambiguous"]
        other = job_at(tmp_path, servers[2], queries=80, out="other")
        await run(other)
        assert outputs(job) == outputs(other)


@ANYIO
async def test_an_outage_of_all_ends_with_the_first_that_is_back(tmp_path: Path) -> None:
    """All are gone for a while, and another one is back than the last that went: the run goes on by itself."""
    servers = Server(latency=0.2), Server(latency=0.2)
    async with fleet(*servers):
        job = job_at(tmp_path, *servers, queries=80, retry={"outage": 120})
        moments = (1.0, servers[0].stop), (2.0, servers[1].stop), (40.0, servers[0].start)
        report = await during(job, *moments)
    assert report.exit_code == 0 and report.data["totals"]["failed"] == 0
    assert state(report, servers[1])["out"] and not state(report, servers[0])["out"]


@ANYIO
async def test_order_and_number_of_addresses_decide_nothing(tmp_path: Path) -> None:
    """Other order, fewer or more of them: the same run goes on, with the same bytes, and asks nothing again."""
    servers = Server(latency=0.15), Server(latency=0.15), Server(latency=0.15)
    async with fleet(*servers):
        job = job_at(tmp_path, *servers, queries=35)
        first = Run(cut(job, 200))
        async with anyio.create_task_group() as group:

            async def stop() -> None:
                await anyio.sleep(1.5)
                first.stop(StoppedError("enough"))

            group.start_soon(stop)
            report = await first.execute()
        assert report.exit_code == 75
        fewer = job_at(tmp_path, servers[2], servers[0], queries=35)
        second = await run(fewer, part_documents=200)
        assert second.exit_code == 0 and paid_twice(*servers) == 0
        assert any("published parts" in notice for notice in second.data["notices"])
        assert second.data["hashes"]["job"] == report.data["hashes"]["job"]
        other = job_at(tmp_path, servers[1], servers[0], servers[2], queries=35, out="other")
        await run(other, part_documents=200)
        assert outputs(job) == outputs(other)
        ledger = str(tmp_path / "out" / "ledger.sqlite")
        known = job_at(tmp_path, servers[1], queries=35, out="known", ledger=ledger, reuse={"audit": 0})
        assert (await run(known, part_documents=200)).data["process"]["requests"] == 0


@ANYIO
async def test_when_all_refuse_the_key_the_run_stops(tmp_path: Path) -> None:
    """No server lets it in: a few requests tell, exit 1 with the server's words."""
    servers = [Server(fate=lambda q, d, n: reply(401, {"message": "no such key"})) for _ in range(3)]
    async with fleet(*servers):
        report = await run(job_at(tmp_path, *servers))
    assert report.exit_code == 1 and "no such key" in str(report.reason)
    assert sum(len(server.asked) for server in servers) <= 30


@ANYIO
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_servers_that_come_and_go_lose_nothing(tmp_path: Path, seed: int) -> None:
    """Restarts and sickness at random, one server always well: the same bytes, only what was cut off is paid twice."""
    chance = random.Random(seed)
    sick: dict[int, int | None] = {1: None, 2: None, 3: None}
    well = Server(latency=0.2)

    def fate(number: int) -> Callable[[str, list[str], int], Any]:
        return lambda q, d, n: (
            reply(sick[number] or 500, {"message": "oh"}) if sick[number] and chance.random() < 0.7 else None
        )

    others = {number: Server(latency=0.2, fate=fate(number)) for number in sick}
    servers = [well, *others.values()]

    async def worry() -> None:
        while True:
            await anyio.sleep(chance.uniform(0.2, 2))
            number = chance.choice([*sick])
            if chance.random() < 0.5:
                sick[number] = chance.choice([None, 502, 503, 429])  # others halve what meets them often
            else:
                await others[number].stop()
                await anyio.sleep(chance.uniform(0, 1))
                await others[number].start()

    async with fleet(*servers):
        job = job_at(tmp_path, *servers, queries=100)
        async with anyio.create_task_group() as group:
            group.start_soon(worry)
            report = await run(job)
            group.cancel_scope.cancel()
        for server in servers:
            await server.stop()
            await server.start()
        assert (report.exit_code, report.data["totals"]["failed"], report.data["totals"]["lost"]) == (0, 0, 0)
        assert paid_twice(*servers) <= report.data["process"]["ambiguous"]  # answers that a stop cut off
        other = job_at(tmp_path, well, queries=100, out="other")
        await run(other)
        if not report.data["process"]["splits"]:  # the halves of a request have scores of their own
            assert outputs(job) == outputs(other)


@ANYIO
@pytest.mark.slow
@pytest.mark.real_clock
async def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """Killed in the middle, and started again with the addresses in another order: the same bytes as of one server."""
    servers = [Server(latency=0.02), Server(latency=0.01), Server(latency=0.03)]
    async with fleet(*servers):
        job_at(tmp_path, *servers, queries=60, rate={"concurrency": 6})
        command = (sys.executable, "-m", "batchrank", "run", "out.yaml", "--quiet")
        first = await anyio.open_process(command, cwd=tmp_path)
        while sum(server.answered for server in servers) < 60:  # noqa: ASYNC110 another process asks
            await anyio.sleep(0.02)
        first.kill()
        await first.aclose()
        job = job_at(tmp_path, *servers[::-1], queries=60, rate={"concurrency": 6})
        assert (await anyio.run_process(command, cwd=tmp_path)).returncode == 0
        assert paid_twice(*servers) <= 6  # those in flight at the kill
        other = job_at(tmp_path, servers[0], queries=60, out="other")
        await run(other)
        assert outputs(job) == outputs(other)
