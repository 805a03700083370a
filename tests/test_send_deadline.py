"""When an attempt is given up: not before what has arrived is read, and not much later than its time."""

import asyncio
import os
import signal
import socket
import sys
from typing import Any

import anyio
import orjson
import pytest
from aiohttp import web
from servers import ranks, scores, serving
from virtual_time import VirtualTimeLoop

from batchrank.data import Answer, Rejection
from batchrank.send.transport import Http
from batchrank.wire import CODECS

pytestmark = pytest.mark.anyio
BODY = orjson.dumps({"query": "q", "documents": ["a", "b"]})


async def ask(url: str, seconds: float = 30) -> Answer | Rejection:
    async with Http(url, CODECS["dashscope"], timeout=seconds) as http:
        return await http.post(BODY, 2)


@pytest.mark.parametrize("suspended", [29.95, 31, 4000])
async def test_an_answer_that_came_while_the_process_was_suspended_is_read(suspended: float) -> None:
    """Time jumps past the time-out while the answer is in the socket: it is read, not given up and paid again."""

    async def answer(request: web.Request, body: Any) -> web.Response:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.advance(suspended)
        return web.json_response(scores(body))

    async with serving(answer) as server:
        assert isinstance(await ask(server.url), Answer)
        assert len(server.bodies) == 1


async def test_the_rest_of_an_answer_is_waited_for_after_a_suspension() -> None:
    """Half of the answer had arrived, the rest comes within a second of waking."""

    async def answer(request: web.Request, body: Any) -> web.Response:
        data = orjson.dumps(scores(body))
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        await stream.write(data[:20])
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.advance(100)
        await asyncio.sleep(1)
        await stream.write(data[20:])
        return stream  # type: ignore[return-value]  # aiohttp takes any response

    async with serving(answer) as server:
        assert isinstance(await ask(server.url), Answer)


@pytest.mark.parametrize("busy", [0.0, 50.0])
async def test_silence_is_given_up(busy: float) -> None:
    """Without an answer an attempt ends at its time, or a moment after the loop has woken up."""

    async def silence(request: web.Request, body: Any) -> web.Response:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.advance(busy)
        await asyncio.sleep(1000)
        return await ranks(request, body)

    async with serving(silence) as server:
        began = asyncio.get_running_loop().time()
        outcome = await ask(server.url)
        took = asyncio.get_running_loop().time() - began
    code = "held-up" if busy else "timeout"
    assert isinstance(outcome, Rejection) and (outcome.status, outcome.code) == (None, code)
    assert max(30, busy) <= took < max(30, busy) + 3


async def test_a_server_that_takes_no_connection_was_not_asked() -> None:
    """Connecting that never ends is unreachable: nothing was sent, so nothing can be billed."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listening.getsockname())
            outcome = await ask(f"http://127.0.0.1:{listening.getsockname()[1]}", seconds=7.5)
        finally:
            for filler in fillers:
                filler.close()
    assert isinstance(outcome, Rejection) and outcome.code == "unreachable"


CLIENT = """
import asyncio, sys, uvloop
from batchrank.send.transport import Http
from batchrank.wire import CODECS

async def main():
    async with Http(sys.argv[1], CODECS["dashscope"], timeout=1) as http:
        print(type(await http.post(bytes.fromhex(sys.argv[3]), 2)).__name__)

factory = uvloop.new_event_loop if sys.argv[2] == "uvloop" else asyncio.new_event_loop
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
"""


@pytest.mark.slow
@pytest.mark.real_clock
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_stopped_process_reads_its_answer_when_it_goes_on(loop: str) -> None:
    """SIGSTOP while a request is in flight, the answer, SIGCONT long after the time-out: the answer is read."""
    pytest.importorskip("uvloop")
    asked, answered = anyio.Event(), anyio.Event()

    async def answer(request: web.Request, body: Any) -> web.Response:
        asked.set()
        await answered.wait()
        return await ranks(request, body)

    async with asyncio.timeout(60), serving(answer) as server:
        process = await anyio.open_process(
            [sys.executable, "-c", CLIENT, server.url, loop, BODY.hex()], stderr=None
        )
        await asked.wait()
        os.kill(process.pid, signal.SIGSTOP)
        answered.set()
        await anyio.sleep(3)  # the time that is suspended is real: the process's clock goes on
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdout is not None
        said = b"".join([part async for part in process.stdout])
        await process.wait()
        assert said.strip() == b"Answer"
        assert len(server.bodies) == 1
        await process.aclose()
