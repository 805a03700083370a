"""Bounds answers by what their documents can need, one by one and together, because a server may send anything.

A small compressed answer can stand for gigabytes, and a few megabytes of brackets for a hundred times as much once they
are decoded. What an answer needs is known before: a result for each document, which may repeat the document.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

FREE = 2**18
"""Bytes that every answer may have without asking anybody; most have a few thousand."""
_BASE = 2**20
"""Whatever a gateway puts around an answer, and pages that tell of errors."""
_A_RESULT = 2**12
"""Bytes of one result besides the document: two numbers, and what an API may add to them."""
_REPEATED = 3
"""Bytes of a document that comes back, for one that was sent: as escapes, a letter of two bytes takes six."""
_RATIO = 500
"""Beyond ``FREE`` no answer is made so small by compression; deflate's limit is 1,032, others have none."""
_VALUES = 64
"""Lists and objects in one result."""
_IN_FLIGHT = 2**28
"""Bytes of all answers that are being read, ``FREE`` ones apart."""


class Bound:
    """What the answer to one request can need.

    Args:
        body: the request's body.
        documents: how many it holds.
        most: what no answer may pass, whatever its documents.
    """

    def __init__(self, body: bytes, documents: int, most: int) -> None:
        self._body = body
        self._documents = documents
        self.bytes = min(_BASE + _A_RESULT * documents + _REPEATED * len(body), most)

    def passed(self, size: int, compressed: int) -> str | None:
        """Why no answer is so large.

        Args:
            size: decompressed bytes so far.
            compressed: bytes on the wire so far; 0 where it isn't compressed.
        """
        if max(size, compressed) > self.bytes:
            return f"the answer is larger than {self.bytes:,} bytes, more than its documents can need"
        if compressed and size > max(FREE, _RATIO * compressed):
            return f"the answer is compressed to less than a {_RATIO}th, which no answer can be"
        return None

    def crowded(self, data: bytes) -> str | None:
        """Why an answer isn't decoded: each list and object in it takes many times the bytes that it is written in."""
        if len(data) <= FREE:
            return None
        own = sum(self._body.count(bracket) for bracket in (b"{", b"["))
        if sum(data.count(bracket) for bracket in (b"{", b"[")) > own + _VALUES * (self._documents + _VALUES):
            return "the answer holds more lists and objects than its documents can need"
        return None


class Room:
    """Bytes that the answers being read may have together; who comes first is served first."""

    def __init__(self, size: int = _IN_FLIGHT) -> None:
        self._size = self._left = size
        self._turn = anyio.Lock()
        self._freed = anyio.Event()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Have so many bytes, or all there are, until the context is left; waits until they are free."""
        size = min(size, self._size)
        async with self._turn:
            while self._left < size:
                self._freed = anyio.Event()
                await self._freed.wait()
            self._left -= size
        try:
            yield
        finally:
            self._left += size
            self._freed.set()
