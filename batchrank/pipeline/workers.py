"""Backpressure: how much may be between reading and writing."""

import asyncio
from collections import deque
from collections.abc import Callable

ROOM_BYTES = 48 * 2**20
"""Documents between reading and writing: enough to keep hundreds of requests in flight, whatever the input's size."""


class Room:
    """Admits queries while their documents and their number stay within bounds, in the order they come.

    A query larger than the whole room is admitted when the room is empty.

    Args:
        weight: bytes of documents that may be inside.
        queries: queries that may be inside.
        unranked: queries that may be inside without a ranking yet, asked anew each time; None for any number.
    """

    def __init__(self, weight: int, queries: int, unranked: Callable[[], int] | None = None) -> None:
        self._limit = weight
        self._most = queries
        self._most_unranked = unranked
        self.weight = 0
        self.queries = 0
        self.unranked = 0
        self._waiting: deque[asyncio.Event] = deque()

    async def enter(self, weight: int) -> None:
        """Wait until there is room, and take it."""
        while self.queries and self._full(weight):
            event = asyncio.Event()
            self._waiting.append(event)
            await event.wait()
        self.weight += weight
        self.queries += 1
        self.unranked += 1

    def ranked(self, weight: int) -> None:
        """Give back what a query no longer needs now that it is ranked."""
        self.weight -= weight
        self.unranked -= 1
        self._wake()

    def leave(self, weight: int) -> None:
        """Give back the rest."""
        self.weight -= weight
        self.queries -= 1
        self._wake()

    def _full(self, weight: int) -> bool:
        if self._most_unranked is not None and self.unranked >= self._most_unranked():
            return True
        return self.weight + weight > self._limit or self.queries >= self._most

    def _wake(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()
