"""An answer is bounded by what its documents can need: on the wire, decompressed, decoded, and all answers together."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import orjson
import pytest
from aiohttp import web
from peak_memory import LINUX, Peak
from servers import scores

from batchrank.data import Answer, Rejection
from batchrank.send.health import FREE, Bound, Room
from batchrank.send.transport import Http
from batchrank.wire import CODECS

pytestmark = pytest.mark.anyio
Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]
BODY = orjson.dumps({"model": "qwen3-rerank", "query": "q", "documents": ["a", "b"]})
GOOD = orjson.dumps(scores(orjson.loads(BODY)))


@asynccontextmanager
async def asking(reply: Reply) -> AsyncIterator[Http]:
    """What asks a server that answers so."""
    app = web.Application(client_max_size=2**28)
    app.router.add_post("/rerank", reply)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with Http(
            f"http://127.0.0.1:{runner.addresses[0][1]}/rerank", CODECS["dashscope"], key="k"
        ) as http:
            yield http
    finally:
        await runner.cleanup()


def whole(data: bytes, encoding: str | None = None, status: int = 200) -> Reply:
    async def reply(request: web.Request) -> web.Response:
        await request.read()
        headers = {"Content-Type": "application/json"} | ({"Content-Encoding": encoding} if encoding else {})
        return web.Response(body=data, headers=headers, status=status)

    return reply


def bomb(size: int, wrapping: int) -> bytes:
    """A good beginning, and so many blanks: compressed a thousandfold."""
    packed = zlib.compressobj(9, zlib.DEFLATED, wrapping)
    good = packed.compress(GOOD) + packed.flush(zlib.Z_FULL_FLUSH)
    blank = packed.compress(b" " * 2**20) + packed.flush(zlib.Z_FULL_FLUSH)
    return good + blank * (size // 2**20)  # after a full flush the same bytes mean the same again


@LINUX
@pytest.mark.parametrize(("encoding", "wrapping"), [("gzip", 31), ("deflate", 15), ("deflate", -15)])
async def test_a_small_compressed_answer_takes_no_gigabytes(encoding: str, wrapping: int) -> None:
    """Half a gigabyte in half a megabyte: given up after the first parts, so that memory hardly grows."""
    data = bomb(2**29, wrapping)
    async with asking(whole(data, encoding)) as http:
        peak = Peak()
        outcome = await http.post(BODY, 2)
    assert isinstance(outcome, Rejection) and outcome.code == "malformed"
    assert "no answer can be" in outcome.message or "can need" in outcome.message
    assert peak.grown() < 32


async def test_many_small_members_are_as_bounded() -> None:
    """Gzip allows members one after the other: together they are one answer."""
    async with asking(whole(gzip.compress(b" " * 2**20) * 500, "gzip")) as http:
        outcome = await http.post(BODY, 2)
    assert isinstance(outcome, Rejection) and outcome.code in ("malformed", "connection")


@pytest.mark.parametrize("status", [200, 400, 503])
async def test_no_answer_is_longer_than_its_documents_can_need(status: int) -> None:
    """Also a refusal's page; the size of the request decides, and what is allowed is said."""
    async with asking(whole(b" " * (Bound(BODY, 2, 2**26).bytes + 1), status=status)) as http:
        outcome = await http.post(BODY, 2)
    assert isinstance(outcome, Rejection) and outcome.status == status
    assert "more than its documents can need" in outcome.message


async def test_an_api_may_repeat_the_documents() -> None:
    """Megabytes of them, each letter as an escape, compressed well: a good answer."""
    texts = ["語" * 100_000 + str(i) for i in range(20)]
    body = orjson.dumps({"model": "qwen3-rerank", "query": "q", "documents": texts})
    results = [{"index": i, "relevance_score": 0.5, "document": {"text": t}} for i, t in enumerate(texts)]
    escapes = str({"results": results}).encode("ascii", "backslashreplace").replace(b"'", b'"')
    async with asking(whole(escapes)) as http:
        assert isinstance(await http.post(body, 20), Answer)


async def test_brackets_are_counted_before_they_are_decoded() -> None:
    """Each empty object would take twenty times its bytes; texts that hold brackets, as programs do, are no objects."""
    async with asking(whole(b'{"results":[' + b"{}," * 300_000 + b"{}]}")) as http:
        outcome = await http.post(BODY, 2)
    assert isinstance(outcome, Rejection) and "lists and objects" in outcome.message
    texts = ["{" * 300_000, "[" * 300_000]
    body = orjson.dumps({"model": "qwen3-rerank", "query": "q", "documents": texts})
    results = [{"index": i, "relevance_score": 0.5, "document": {"text": t}} for i, t in enumerate(texts)]
    async with asking(whole(orjson.dumps({"results": results}))) as http:
        assert isinstance(await http.post(body, 2), Answer)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 5_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"results":[{"index":0,"relevance_score":1e999},{"index":1,"relevance_score":0}]}',
        b'{"results":[{"index":0,"relevance_score":'
        + b"9" * 100_000
        + b'},{"index":1,"relevance_score":0}]}',
        b'{"results":[{"index":' + b"1" * 5_000 + b',"relevance_score":1},{"index":1,"relevance_score":0}]}',
        b'{"code":' + b"9" * 20_000 + b"}",
    ],
)
async def test_depth_and_giant_numbers_are_malformed(data: bytes) -> None:
    """Neither an error of ours, nor a score."""
    async with asking(whole(data)) as http:
        outcome = await http.post(BODY, 2)
    assert isinstance(outcome, Rejection) and len(outcome.message) < 1000


async def test_a_giant_bill_is_no_bill() -> None:
    """Usage of a hundred digits doesn't count, and its answer does."""
    data = orjson.dumps(orjson.loads(GOOD) | {"usage": {"total_tokens": 7}})
    async with asking(whole(data.replace(b":7}", b":" + b"9" * 100 + b"}"))) as http:
        outcome = await http.post(BODY, 2)
    assert isinstance(outcome, Answer) and outcome.tokens is None


async def test_answers_in_flight_share_one_room() -> None:
    """Who finds it full waits for its turn; what is larger than all of it gets all of it; nobody is passed by."""
    room, order = Room(10), []
    busy = most = 0

    async def read(name: str, size: int) -> None:
        nonlocal busy, most
        async with room.taken(size):
            order.append(name)
            busy += min(size, 10)
            most = max(most, busy)
            await asyncio.sleep(1)
            busy -= min(size, 10)

    await asyncio.gather(
        *(read(name, size) for name, size in zip("abcdef", (6, 4, 99, 1, 9, 5), strict=True))
    )
    assert most == 10 and order == list("abcdef")


async def test_large_answers_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through HTTP as well: all are read in the end, although there is room for one of them at a time."""
    texts = ["x" * 100_000 + str(i) for i in range(10)]
    body = orjson.dumps({"model": "qwen3-rerank", "query": "q", "documents": texts})
    results = [{"index": i, "relevance_score": 0.5, "document": {"text": t}} for i, t in enumerate(texts)]
    data = orjson.dumps({"results": results})
    assert len(data) > FREE
    async with asking(whole(data)) as http:
        monkeypatch.setattr(http, "_room", Room(2**20))
        outcomes = await asyncio.gather(*(http.post(body, 10) for _ in range(8)))
    assert all(isinstance(outcome, Answer) for outcome in outcomes)
