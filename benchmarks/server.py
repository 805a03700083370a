"""A rerank endpoint that does as little as one can: a bare protocol on uvloop, in a process of its own.

    python benchmarks/server.py                     # prints its port, then serves until killed

It reads a request in the flat format, counts its documents and answers after a set latency. With a quota it refuses
what would be the (rps + 1)th request, or pass tps tokens, in any sliding second. ``GET /counts`` tells what it saw,
``POST /set`` changes the settings and forgets the counts. Tokens are bytes, so that ``tokenizer: bytes`` is exact.
"""

import argparse
import asyncio
import random
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import orjson
import uvloop

_HEAD = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_REFUSED = {
    "requests": b'{"code":"Throttling.RateQuota","message":"Requests rate limit exceeded"}',
    "tokens": b'{"code":"Throttling.AllocationQuota","message":"Allocated quota exceeded"}',
}


@dataclass
class Settings:
    """How to answer.

    Attributes:
        latency: seconds from the end of a request to its answer.
        rps: requests in any second; None for no quota.
        tps: tokens in any second; None for no quota.
        scores: ``fixed`` answers come from a table; ``text`` takes each document's first 8 characters as its score;
            ``relative`` maps those to 0..1 within the request.
    """

    latency: float = 0.0
    rps: float | None = None
    tps: float | None = None
    scores: str = "fixed"


@dataclass
class Counts:
    """What was seen since the settings were made.

    Attributes:
        requests: accepted ones.
        refused: by a quota.
        duplicates: accepted ones that ask what an earlier one asked.
        arrivals: when each accepted request was complete, seconds on the system's monotonic clock.
        refusals: likewise for those refused.
    """

    requests: int = 0
    documents: int = 0
    tokens: int = 0
    refused: int = 0
    duplicates: int = 0
    most_in_flight: int = 0
    cpu: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)


class Endpoint:
    """What all connections share."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        self.counts = Counts()
        self.in_flight = 0
        self._asked: set[int] = set()
        self._window: deque[tuple[float, int]] = deque()
        self._window_tokens = 0
        self._cpu = time.process_time()

    def answer(self, body: bytes) -> tuple[float, bytes]:
        """Seconds to wait, and the response."""
        asked = orjson.loads(body)
        source = asked.get("input", asked)
        query, documents = source["query"], source["documents"]
        tokens = len(documents) * len(query) + sum(map(len, documents))
        now, counts = time.monotonic(), self.counts
        refusal = self._over(now, tokens)
        if refusal:
            counts.refused += 1
            counts.refusals.append(now)
            return 0.0, response(_REFUSED[refusal], 429)
        self._window.append((now, tokens))
        self._window_tokens += tokens
        counts.requests += 1
        counts.documents += len(documents)
        counts.tokens += tokens
        counts.arrivals.append(now)
        print_ = hash((query, len(documents), documents[0], documents[-1]))
        counts.duplicates += print_ in self._asked
        self._asked.add(print_)
        results = self._results(documents)
        tail = b',"usage":{"total_tokens":%d},"id":"r%d"}' % (tokens, counts.requests)
        if "input" in asked:
            return self.settings.latency, response(b'{"output":{"results":' + results + b"}" + tail)
        return self.settings.latency, response(b'{"results":' + results + tail)

    def _over(self, now: float, tokens: int) -> str | None:
        while self._window and now - self._window[0][0] >= 1:
            self._window_tokens -= self._window.popleft()[1]
        if self.settings.rps is not None and len(self._window) >= self.settings.rps:
            return "requests"
        # A request beyond a whole second's tokens is served alone.
        if (
            self.settings.tps is not None
            and self._window
            and self._window_tokens + tokens > self.settings.tps
        ):
            return "tokens"
        return None

    def _results(self, documents: list[str]) -> bytes:
        if self.settings.scores == "fixed":
            return fixed(len(documents))
        if self.settings.scores == "text":
            pairs = sorted(
                zip([d[:8] for d in documents], _prefixes(len(documents)), strict=True), reverse=True
            )
            return ("[" + ",".join([p + s + "}" for s, p in pairs]) + "]").encode()
        values = [float(d[:8]) for d in documents]
        low, width = min(values), (max(values) - min(values)) or 1.0
        return orjson.dumps(
            [{"index": i, "relevance_score": (v - low) / width} for i, v in enumerate(values)]
        )

    def control(self, method: bytes, body: bytes) -> bytes:
        """Answer a request about the server itself."""
        if method == b"GET":
            self.counts.cpu = time.process_time() - self._cpu
            return response(orjson.dumps(asdict(self.counts)))
        changes: dict[str, Any] = orjson.loads(body)
        keep = changes.pop("keep", False)
        self.settings = Settings(**(asdict(self.settings) | changes))
        if not keep:
            self.reset()
        return response(b"{}")


class Connection(asyncio.Protocol):
    """One client connection; requests on it come one at a time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._parts: list[bytes] = []
        self._head = b""
        self._missing = -1
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Collect a request, and answer it."""
        if self._missing < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data, self._head = self._head[:end], self._head[end + 4 :], self._head[:end]
            self._missing = _content_length(head)
            if b"100-continue" in head and self._transport:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing == 0:
            body, self._parts, self._missing = b"".join(self._parts), [], -1
            head, self._head = self._head, b""
            self._respond(head, body)

    def _respond(self, head: bytes, body: bytes) -> None:
        transport, endpoint = self._transport, self._endpoint
        assert transport is not None
        method, path, _ = head.split(b" ", 2)
        if path in (b"/counts", b"/set"):
            transport.write(endpoint.control(method, body))
            return
        latency, data = endpoint.answer(body)
        if not latency:
            transport.write(data)
            return
        endpoint.in_flight += 1
        endpoint.counts.most_in_flight = max(endpoint.counts.most_in_flight, endpoint.in_flight)
        asyncio.get_running_loop().call_later(latency, self._late, data)

    def _late(self, data: bytes) -> None:
        self._endpoint.in_flight -= 1
        if self._transport and not self._transport.is_closing():
            self._transport.write(data)


def response(body: bytes, status: int = 200) -> bytes:
    """A whole HTTP response."""
    return _HEAD % (status, len(body)) + body


def _content_length(head: bytes) -> int:
    lower = head.lower()
    start = lower.find(b"content-length:")
    return int(lower[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0


@cache
def _prefixes(documents: int) -> list[str]:
    return [f'{{"index":{i},"relevance_score":' for i in range(documents)]


@cache
def fixed(documents: int) -> bytes:
    """Results in falling order of score, for some permutation of so many documents."""
    rng = random.Random(documents)
    order = rng.sample(range(documents), documents)
    scores = sorted((round(rng.random(), 6) for _ in order), reverse=True)
    return orjson.dumps([{"index": i, "relevance_score": s} for i, s in zip(order, scores, strict=True)])


async def serve(port: int) -> None:
    """Serve on loopback until killed."""
    endpoint = Endpoint()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(endpoint), "127.0.0.1", port, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
