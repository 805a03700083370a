"""Backpressure: how much may be between reading and writing."""

import asyncio
from collections import deque

ROOM_BYTES = 48 * 2**20
"""Documents between reading and writing: enough to keep hundreds of requests in flight, whatever the input's size."""


class Room:
    """Admits queries while their documents and their number stay within bounds, in the order they come.

    A query larger than the whole room is admitted when the room is empty.

    Args:
        weight: bytes of documents that may be inside.
        queries: queries that may be inside.
    """

    def __init__(self, weight: int, queries: int) -> None:
        self._limit = weight
        self._most = queries
        self.weight = 0
        self.queries = 0
        self._waiting: deque[asyncio.Event] = deque()

    async def enter(self, weight: int) -> None:
        """Wait until there is room, and take it."""
        while self.queries and (self.weight + weight > self._limit or self.queries >= self._most):
            event = asyncio.Event()
            self._waiting.append(event)
            await event.wait()
        self.weight += weight
        self.queries += 1

    def leave(self, weight: int) -> None:
        """Give room back."""
        self.weight -= weight
        self.queries -= 1
        if self._waiting:
            self._waiting.popleft().set()
