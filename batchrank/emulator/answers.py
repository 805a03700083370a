"""How an answer travels: whole, or over a connection that breaks, stalls or never ends."""

import asyncio
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import Protocol
from weakref import WeakSet

from aiohttp import web

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

    def is_stale(self, request: web.Request) -> bool:
        """Whether the request came over a connection whose server end is gone."""
        return request.transport in self._stale

    async def send(
        self, request: web.Request, response: web.Response, fault: str | None
    ) -> web.StreamResponse:
        """Send a response, or what the fault makes of it."""
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

    async def _stream(self, request: web.Request, status: int, body: bytes, fault: str) -> web.StreamResponse:
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


def hang_up(request: web.Request, *, reset: bool = False) -> web.StreamResponse:
    """Close the request's connection, or reset it, and give aiohttp something to return."""
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
