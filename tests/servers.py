"""Small servers on loopback that answer as a test says: an API, perhaps over TLS, and a forwarding proxy."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import trustme
from aiohttp import web

from batchrank.send.admission import Priority, Scheduler, Slot
from batchrank.send.concurrency import ConcurrencyLimit
from batchrank.send.fleet import Fleet, Replica
from batchrank.send.transport import Http
from batchrank.wire import CODECS

Reply = Callable[[web.Request, Any], Awaitable[web.Response]]


@dataclass
class Server:
    """What a server was asked: paths, headers and decoded bodies, in order."""

    url: str = ""
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)


def scores(body: Any) -> dict[str, Any]:
    """A good answer in the flat format: the longer a document, the higher its score."""
    documents = body["documents"]
    results = [{"index": i, "relevance_score": len(text) / 1e6} for i, text in enumerate(documents)]
    return {"results": results, "usage": {"total_tokens": len(documents)}, "id": "r"}


async def ranks(request: web.Request, body: Any) -> web.Response:
    """Answer well."""
    return web.json_response(scores(body))


@asynccontextmanager
async def serving(reply: Reply = ranks, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """An API on loopback that answers on every path."""
    server = Server()

    async def answer(request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        server.paths.append(request.path)
        server.headers.append(dict(request.headers))
        server.bodies.append(body)
        return await reply(request, body)

    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
    server.url = f"{scheme}://{host}:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


@dataclass
class Proxy:
    """A forwarding proxy: what it was asked for, line by line, and whom it lets through."""

    address: str = ""
    asked: list[str] = field(default_factory=list)
    user: str | None = None
    refuses: int | None = None


@asynccontextmanager
async def proxying(user: str | None = None, refuses: int | None = None) -> AsyncIterator[Proxy]:
    """A proxy that forwards plain requests and opens tunnels, for a ``user:password`` where one is given."""
    proxy = Proxy(user=user, refuses=refuses)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(task := asyncio.current_task())  # type: ignore[arg-type]  # a callback runs in a task
        try:
            await _forward(proxy, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in [*tasks]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # closed connections are let go of in the loop's next turn


async def _forward(proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    proxy.asked.append(first)
    method, target, version = first.split()
    given = [line.split(": ")[1] for line in lines if line.lower().startswith("proxy-authorization:")]
    wanted = proxy.user and f"Basic {base64.b64encode(proxy.user.encode()).decode()}"
    status = 407 if wanted and given != [wanted] else proxy.refuses
    if status:
        # As many do, this one repeats what it was given.
        writer.write(
            f"HTTP/1.1 {status} No {given}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        return
    host, _, rest = target.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    upstream, out = await asyncio.open_connection(name, int(port))
    if method == "CONNECT":
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    else:
        kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
        out.write("\r\n".join([f"{method} /{rest} {version}", "Connection: close", *kept]).encode())
    try:
        await asyncio.gather(_pump(reader, out), _pump(upstream, writer))
    finally:
        out.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.close()


class Tls:
    """An authority of our own, and what it signed."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.ca, self.cert, self.key = folder / "ca.pem", folder / "client.pem", folder / "client.key"
        self._authority.cert_pem.write_to_path(str(self.ca))
        self._issued = self._authority.issue_cert("localhost")
        mine = self._authority.issue_cert("batchrank@example.com")
        mine.cert_chain_pems[0].write_to_path(str(self.cert))
        mine.private_key_pem.write_to_path(str(self.key))

    def server(self, *, ask: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._issued.configure_cert(context)
        if ask:
            self._authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def alone(places: ConcurrencyLimit) -> Fleet:
    """A fleet of one server, which nobody asks."""
    return Fleet([Replica(Http("http://127.0.0.1:9/", CODECS["dashscope"]), places)])


@asynccontextmanager
async def holding(scheduler: Scheduler, priority: Priority, tokens: int) -> AsyncIterator[Slot]:
    """A scheduler's slot for the length of the block."""
    slot = await scheduler.slot(priority, tokens)
    try:
        yield slot
    finally:
        slot.release()
