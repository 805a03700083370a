"""Servers with so many workers that can be cut off and started again, and jobs that ask several of them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import orjson
from aiohttp import web
from jobs import make_job, rows, run, write_jsonl
from sick_server import PATHS, Api

from batchrank.job.config import Job

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
        if not orjson.loads(await request.read())["documents"]:  # as check asks
            return self.fate("", [], 1) or web.json_response({"message": "no documents"}, status=400)
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
