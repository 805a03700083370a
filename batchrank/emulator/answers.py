"""Makes the emulator's answers, and spoils their content, their body or their delivery where a fault asks for it.

aiohttp is imported by what sends them: the names of the faults are options of a command, whose help comes at once.
"""

import random
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    import asyncio

    from aiohttp import web


Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """The content of an answer, whichever shape it gets.

    Attributes:
        results: ``index``, ``relevance_score`` and perhaps ``document`` of each result, best first.
        usage: ``total_tokens``; None leaves usage out.
    """

    results: Any
    usage: dict[str, Any] | None


def _edit(change: Callable[[list[Result], random.Random], Any]) -> Callable[[Answer, random.Random], Answer]:
    """Changes the results; leaves alone what another fault made of them that is no results any more."""

    def edit(answer: Answer, rng: random.Random) -> Answer:
        results = answer.results
        if not isinstance(results, list) or not results or not isinstance(results[0], dict):
            return answer
        return replace(answer, results=change([dict(r) for r in results], rng))

    return edit


def _put(key: str, value: Any) -> Callable[[Answer, random.Random], Answer]:
    """Puts a value into one result."""

    def change(results: list[Result], rng: random.Random) -> list[Result]:
        rng.choice(results)[key] = value
        return results

    return _edit(change)


def _missing_index(results: list[Result], rng: random.Random) -> list[Result]:
    rng.choice(results).pop("index", None)
    return results


def _duplicate_index(results: list[Result], rng: random.Random) -> list[Result]:
    """One index twice, another not at all; with one result it comes twice."""
    if len(results) == 1:
        return results * 2
    one, other = rng.sample(range(len(results)), 2)
    results[one]["index"] = results[other].get("index", 0)
    return results


def _fewer(results: list[Result], rng: random.Random) -> list[Result]:
    results.pop(rng.randrange(len(results)))
    return results


def _more(results: list[Result], rng: random.Random) -> list[Result]:
    return [*results, {**rng.choice(results), "index": len(results)}]


def _usage(usage: dict[str, Any] | None) -> Callable[[Answer, random.Random], Answer]:
    return lambda answer, _: replace(answer, usage=usage)


RESULT_FAULTS: dict[str, Callable[[Answer, random.Random], Answer]] = {
    "score-nan": _put("relevance_score", float("nan")),
    "score-infinite": _put("relevance_score", float("inf")),
    "score-null": _put("relevance_score", None),
    "score-string": _put("relevance_score", "high"),
    "score-bool": _put("relevance_score", True),
    "index-missing": _edit(_missing_index),
    "index-duplicate": _edit(_duplicate_index),
    "index-out-of-range": _put("index", 1_000_000),
    "index-negative": _put("index", -1),
    "index-string": _put("index", "0"),
    "results-fewer": _edit(_fewer),
    "results-more": _edit(_more),
    "results-empty": _edit(lambda results, rng: []),
    "results-null": _edit(lambda results, rng: None),
    "results-object": _edit(lambda results, rng: {"0": results[0]}),
    "results-strings": _edit(lambda results, rng: ["result"] * len(results)),
    "usage-missing": _usage(None),
    "usage-negative": _usage({"total_tokens": -1}),
    "usage-string": _usage({"total_tokens": "many"}),
}
"""Wrong content: the answer is JSON of the right shape, more or less. Each takes an answer of one result or more."""

_DEPTH = 100_000
"""Levels of nesting, far more than any parser's stack holds."""

BODY_FAULTS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "json-truncated": lambda body, rng: body[: rng.randrange(1, max(2, len(body)))],
    "json-empty": lambda body, rng: b"",
    "json-list": lambda body, rng: b"[]",
    "json-null": lambda body, rng: b"null",
    "json-garbage": lambda body, rng: rng.randbytes(200),
    "json-deep": lambda body, rng: b'{"results": ' + b"[" * _DEPTH + b"]" * _DEPTH + b"}",
    "html-200": lambda body, rng: b"<!DOCTYPE html><html><body><h1>200 OK</h1></body></html>",
}
"""Broken bodies, sent with status 200."""


DELIVERY_FAULTS: dict[str, str] = {
    "reset-before-headers": "the connection is reset, nothing was computed",
    "answer-dropped": "the answer was computed and billed, then the connection is reset",
    "close-before-headers": "the connection is closed in good order, nothing was computed",
    "silence": "nothing comes, until the client gives up",
    "reset-mid-body": "half of the body comes, then a reset",
    "close-mid-body": "half of the body comes, then the connection is closed",
    "silence-after-headers": "headers come and then nothing",
    "slow-loris": "the body comes a byte at a time",
    "json-huge": "the body is padded to hundreds of megabytes",
    "gzip-bomb": "the same, compressed to almost nothing",
    "stale-keep-alive": "this answer is good; the next request on the same connection is dropped unread",
}
"""Broken connections, and what each does."""

UNBILLED_DELIVERIES = frozenset({"reset-before-headers", "close-before-headers", "silence"})
_PAD = b" " * 65536


class DeliverySettings(Protocol):
    """The switches that delivery follows; ``Settings`` tells what they mean."""

    @property
    def silence(self) -> float: ...  # noqa: D102
    @property
    def drip(self) -> float: ...  # noqa: D102
    @property
    def huge_bytes(self) -> int: ...  # noqa: D102


class Delivery:
    """Sends answers; remembers the connections that went stale."""

    def __init__(self, settings: DeliverySettings) -> None:
        self._settings = settings
        self._stale: WeakSet[asyncio.BaseTransport] = WeakSet()

    def is_stale(self, request: "web.Request") -> bool:
        """Whether the request came over a connection whose server end is gone."""
        return request.transport in self._stale

    async def send(
        self, request: "web.Request", response: "web.Response", fault: str | None
    ) -> "web.StreamResponse":
        """Send a response, or what the fault makes of it."""
        import asyncio

        body = response.body if isinstance(response.body, bytes) else b""
        if fault is None:
            return response
        if fault == "stale-keep-alive":
            if request.transport is not None:
                self._stale.add(request.transport)
            return response
        if fault in ("reset-before-headers", "answer-dropped"):
            return hang_up(request, reset=True)
        if fault == "close-before-headers":
            return hang_up(request)
        if fault == "silence":
            await asyncio.sleep(self._settings.silence)
            return hang_up(request)
        return await self._stream(request, response.status, body, fault)

    async def _stream(
        self, request: "web.Request", status: int, body: bytes, fault: str
    ) -> "web.StreamResponse":
        import asyncio

        from aiohttp import web

        stream = web.StreamResponse(status=status, headers={"Content-Type": "application/json"})
        if fault == "gzip-bomb":
            stream.headers["Content-Encoding"] = "gzip"
        if fault not in ("json-huge", "gzip-bomb"):
            stream.content_length = len(body)
        await stream.prepare(request)
        if fault in ("reset-mid-body", "close-mid-body"):
            await stream.write(body[: len(body) // 2])
            hang_up(request, reset=fault == "reset-mid-body")
        elif fault == "silence-after-headers":
            await asyncio.sleep(self._settings.silence)
            hang_up(request)
        elif fault == "slow-loris":
            for at in range(len(body)):
                await stream.write(body[at : at + 1])
                await asyncio.sleep(self._settings.drip)
        else:
            pieces = _padded(body, self._settings.huge_bytes)
            for piece in _gzipped(pieces) if fault == "gzip-bomb" else pieces:
                await stream.write(piece)
        return stream


def hang_up(request: "web.Request", *, reset: bool = False) -> "web.StreamResponse":
    """Close the request's connection, or reset it, and give aiohttp something to return."""
    from aiohttp import web

    transport = request.transport
    if transport is not None:
        if reset:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort() if reset else transport.close()
    return web.Response()


def _padded(body: bytes, size: int) -> Iterator[bytes]:
    """The body with blanks before its last byte, so that it stays good JSON."""
    yield body[:-1]
    for _ in range((size - len(body)) // len(_PAD)):
        yield _PAD
    yield body[-1:]


def _gzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    squeeze = zlib.compressobj(wbits=31)
    for piece in pieces:
        if data := squeeze.compress(piece):
            yield data
    yield squeeze.flush()
