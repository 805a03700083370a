"""Several servers of one model: each gets what it copes with, who fails is replaced, and nothing is lost by it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
from aiohttp import web
from jobs import make_job, outputs, rows, run, write_jsonl
from sick_server import PATHS, Api, reply

from batchrank.data import Rejection
from batchrank.errors import JobError, StoppedError
from batchrank.job.config import Job
from batchrank.job.load import load_job
from batchrank.pipeline.run import Options, Run
from batchrank.send.concurrency import ConcurrencyLimit
from batchrank.send.fleet import Fleet, Replica, names
from batchrank.send.retry import Action
from batchrank.send.transport import Http
from batchrank.wire import CODECS

ANYIO = pytest.mark.anyio
PATH = PATHS["dashscope"]
HARMLESS = "copy a file"


@dataclass
class Server(Api):
    """A server with so many workers, which can be cut off in the middle, and be started again at the same address."""

    workers: int = 4
    _runner: web.AppRunner | None = None
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    _port: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        async with self._turn:
            return await super().handle(request)

    async def start(self) -> None:
        self._turn = asyncio.Semaphore(self.workers)
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/{tail:.*}", self.handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}{PATH}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    @property
    def answered(self) -> int:
        return sum(status == 200 and query != HARMLESS for query, _, status in self.asked)


@asynccontextmanager
async def fleet(*servers: Server) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for server in servers:
            await server.start()
            stack.push_async_callback(server.stop)
        yield


def job_at(folder: Path, *servers: Server, queries: int = 40, out: str = "out", **sections: Any) -> Job:
    (folder / "key").write_text("sk-test")
    path = folder / "in.jsonl"
    if not path.exists():  # another time of change is another input
        write_jsonl(path, rows(queries, 24))
    urls = [server.url for server in servers]
    endpoint = {
        "url": None,
        "urls": urls,
        "api_key_file": str(folder / "key"),
        **sections.pop("endpoint", {}),
    }
    rate = {"rpm": 10**7, "tpm": 10**12, **sections.pop("rate", {})}
    return make_job(folder, path, out=out, endpoint=endpoint, rate=rate, **sections)


def paid_twice(*servers: Server) -> int:
    """Requests that were answered more than once, by whichever server; probes apart."""
    paid = Counter(
        (q, docs) for s in servers for q, docs, status in s.asked if status == 200 and q != HARMLESS
    )
    return sum(count - 1 for count in paid.values())


def state(report: Any, server: Server) -> dict[str, Any]:
    found = {one["name"]: one for one in report.data["process"]["replicas"]}
    return found[server.url.split("/")[2]]  # type: ignore[no-any-return]


async def during(job: Job, *moments: tuple[float, Callable[[], Any]], **options: Any) -> Any:
    """Run a job, and do something at some seconds."""

    async def later(seconds: float, do: Callable[[], Any]) -> None:
        await anyio.sleep(seconds)
        await do()

    async with anyio.create_task_group() as group:
        for seconds, do in moments:
            group.start_soon(later, seconds, do)
        report = await run(job, **options)
        group.cancel_scope.cancel()
    return report


@ANYIO
@pytest.mark.parametrize("concurrency", ["auto", 24])
async def test_each_is_used_by_what_it_copes_with(tmp_path: Path, concurrency: Any) -> None:
    """Of three servers at 80, 40 and 10 requests a second each gets its part within 15%, and none stands idle."""
    servers = Server(workers=8, latency=0.1), Server(workers=4, latency=0.1), Server(workers=4, latency=0.4)
    async with fleet(*servers):
        job = job_at(tmp_path, *servers, queries=800, rate={"concurrency": concurrency})
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
    servers = Server(), Server(), Server()
    async with fleet(*servers):
        job = job_at(tmp_path, *servers, queries=600)
        dies = servers[1]
        before = 0

        async def count() -> None:
            nonlocal before
            before = dies.answered
            await dies.start()

        report = await during(job, (2, dies.stop), (6, count))
        assert report.exit_code == 0 and report.data["totals"]["failed"] == 0
        assert paid_twice(*servers) == 0
        told = state(report, dies)
        assert told["outs"] >= 1 and told["out"] is None
        assert dies.answered > before + 20
        assert [n for n in report.data["notices"] if told["name"] in n and "came back" in n]
        other = job_at(tmp_path, servers[0], queries=600, out="other")
        await run(other)
        assert outputs(job) == outputs(other)


@ANYIO
@pytest.mark.parametrize("status", [500, 502, 503, 401, 404])
async def test_one_that_is_sick_costs_no_query(tmp_path: Path, status: int) -> None:
    """It fails with all it gets, from the start or from then on: taken out after a few, and the others carry on."""
    sick = Server(fate=lambda q, d, n: reply(status, {"message": "oh"}))
    servers = Server(), sick, Server()
    async with fleet(*servers):
        report = await run(job_at(tmp_path, *servers, queries=200))
    assert report.exit_code == 0 and report.data["totals"]["failed"] == 0, report.reason
    assert report.data["totals"]["lost"] == 0
    assert paid_twice(*servers) == 0 and sick.answered == 0
    scores = [a for a in sick.asked if a[0] != HARMLESS]
    assert len(scores) <= 34  # as many as were in flight at first, by two paths where that may be the fault
    assert state(report, sick)["out"]


@ANYIO
async def test_one_that_answers_probes_only_is_left_in_peace(tmp_path: Path) -> None:
    """It answers the harmless request and fails with all else: one request at a time finds out, ever more rarely."""
    sick = Server(fate=lambda q, d, n: None if q == HARMLESS else reply(500, {"message": "oh"}))
    servers = Server(), sick
    async with fleet(*servers):
        report = await run(job_at(tmp_path, *servers, queries=2000))
    assert report.exit_code == 0 and report.data["totals"]["failed"] == 0
    assert len([a for a in sick.asked if a[0] != HARMLESS]) <= 40
    assert report.data["spend"]["possibly_billed_tokens"] > 0


@ANYIO
async def test_one_that_hangs_is_taken_out(tmp_path: Path) -> None:
    """It takes requests and never answers: after some time-outs the others do all, and nothing is lost."""
    hangs = Server(latency=10**6, workers=10**6)
    servers = Server(), hangs
    async with fleet(*servers):
        report = await run(job_at(tmp_path, *servers, queries=1000, endpoint={"timeout": 5}))
    assert report.exit_code == 0 and report.data["totals"]["failed"] == 0
    assert state(report, hangs)["out"]
    assert report.data["process"]["ambiguous"] <= 60


@ANYIO
async def test_one_with_another_setup_is_not_believed(tmp_path: Path) -> None:
    """It rejects what the others take, for a reason nobody knows: nothing is lost for it."""
    odd = Server(fate=lambda q, d, n: reply(400, {"message": "no such tenant"}))
    servers = Server(), odd, Server()
    async with fleet(*servers):
        report = await run(job_at(tmp_path, *servers, queries=100))
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
    servers = Server(), Server(), Server()
    async with fleet(*servers):
        job = job_at(tmp_path, *servers, queries=300, retry={"outage": 60})
        first = await during(job, *((1 + i, server.stop) for i, server in enumerate(servers)))
        assert first.exit_code == 75 and "no request has succeeded for" in str(first.reason)
        assert first.data["totals"]["failed"] == 0
        await servers[2].start()
        second = await run(job)
        assert second.exit_code == 0 and paid_twice(*servers) == 0
        other = job_at(tmp_path, servers[2], queries=300, out="other")
        await run(other)
        assert outputs(job) == outputs(other)


@ANYIO
async def test_an_outage_of_all_ends_with_the_first_that_is_back(tmp_path: Path) -> None:
    """All are gone for a while, and another one is back than the last that went: the run goes on by itself."""
    servers = Server(), Server()
    async with fleet(*servers):
        job = job_at(tmp_path, *servers, queries=300, retry={"outage": 120})
        moments = (1.0, servers[0].stop), (2.0, servers[1].stop), (40.0, servers[0].start)
        report = await during(job, *moments)
    assert report.exit_code == 0 and report.data["totals"]["failed"] == 0
    assert state(report, servers[1])["out"] and not state(report, servers[0])["out"]


@ANYIO
async def test_order_and_number_of_addresses_decide_nothing(tmp_path: Path) -> None:
    """Other order, fewer or more of them: the same run goes on, with the same bytes, and asks nothing again."""
    servers = Server(), Server(), Server()
    async with fleet(*servers):
        job = job_at(tmp_path, *servers, queries=100)
        first = Run(job, Options(part_rows=200))
        async with anyio.create_task_group() as group:

            async def stop() -> None:
                await anyio.sleep(1.5)
                first.stop(StoppedError("enough"))

            group.start_soon(stop)
            report = await first.execute()
        assert report.exit_code == 75
        fewer = job_at(tmp_path, servers[2], servers[0], queries=100)
        second = await run(fewer, part_rows=200)
        assert second.exit_code == 0 and paid_twice(*servers) == 0
        assert any("published parts" in notice for notice in second.data["notices"])
        assert second.data["hashes"]["job"] == report.data["hashes"]["job"]
        other = job_at(tmp_path, servers[1], servers[0], servers[2], queries=100, out="other")
        await run(other, part_rows=200)
        assert outputs(job) == outputs(other)
        ledger = str(tmp_path / "out" / "ledger.sqlite")
        known = job_at(tmp_path, servers[1], queries=100, out="known", ledger=ledger, reuse={"audit": 0})
        assert (await run(known)).data["process"]["requests"] == 0


def replica(limit: ConcurrencyLimit, name: str = "") -> Replica:
    return Replica(Http("http://127.0.0.1:9/", CODECS["dashscope"]), limit, name)


def test_the_least_busy_goes_first_by_what_it_may_have() -> None:
    """2 of 10 is less than 1 of 4; of equals one after the other; what a request failed at comes last."""
    large, small = replica(ConcurrencyLimit(10)), replica(ConcurrencyLimit(4))
    both = Fleet([large, small])
    for _ in range(2):
        both.take(large)
    both.take(small)
    assert both.choose() is large and both.choose([large]) is small
    assert both.choose([large, small]) is large
    even = Fleet([replica(ConcurrencyLimit(4)) for _ in range(3)])
    turns = []
    for _ in range(9):
        chosen = even.choose()
        assert chosen is not None
        even.take(chosen)
        turns.append(chosen)
    assert all(turns.count(one) == 3 for one in even.replicas)


def test_the_last_one_is_never_taken_out() -> None:
    """A fleet of one has no state of its own: what becomes of it is the endpoint's."""
    one, two = replica(ConcurrencyLimit(4), "a:1"), replica(ConcurrencyLimit(4), "b:2")
    both, gone = Fleet([one, two], 8), Rejection(None, "unreachable", "refused")
    both.failed(one, gone, Action.RETRY)
    assert one.out and both.limit == 8 and two.limit == 8
    for _ in range(100):
        both.failed(two, gone, Action.RETRY)
    assert not two.out and both.serving == 1
    both.answered(one, 1.0, 0.1, 10, waiting=True, probe=False)
    assert one.out
    both.answered(one, 1.0, 0.1, 10, waiting=True, probe=True)
    assert two.out and not one.out and one.limit == both.limit == 1
    both.answered(one, 2.0, 0.1, 10, waiting=True, probe=False)
    assert one.limit == 8


def test_names_tell_servers_apart_and_no_secret() -> None:
    """Host and port, the path where that is needed, a number at last; never the query."""
    assert names(["http://a:1/rerank?k=s", "http://b:1/rerank"]) == ["a:1", "b:1"]
    assert names(["http://a/x", "http://a/y"]) == ["a/x", "a/y"]
    assert names(["http://a/x?k=s1", "http://a/x?k=s2"]) == ["a/x (1)", "a/x (2)"]


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ({"url": "http://a/r", "urls": ["http://b/r"]}, "endpoint: url and urls exclude each other"),
        ({"urls": ["http://a/r", "http://a/r"]}, "endpoint.urls: http://a/r comes twice"),
        ({"urls": ["http://a/r?canary", "http://a/r?canary"]}, "endpoint.urls: http://a/r comes twice"),
        ({"urls": ["ftp://a/r"]}, "is not an http"),
        ({"urls": ["http://u:canary@a/r"]}, "a user or password in the address"),
        ({"urls": ["emulator"]}, "write endpoint.url: emulator"),
        (
            {"urls": ["https://dashscope.aliyuncs.com/r", "https://dashscope-intl.aliyuncs.com/r"]},
            "endpoint.urls: they are not all in one region",
        ),
    ],
)
def test_what_can_t_be_right_is_told(tmp_path: Path, endpoint: dict[str, Any], said: str) -> None:
    """Before anything is sent, and without repeating a secret."""
    path = tmp_path / "job.yaml"
    job = {"input": "x", "model": "qwen3-rerank", "endpoint": endpoint, "output": {"path": "out"}}
    path.write_bytes(orjson.dumps(job | {"input": {"path": "x"}}))
    with pytest.raises(JobError) as caught:
        load_job(path, environ={})
    assert said in str(caught.value) and "canary" not in str(caught.value)
