"""Decides which request goes next, once one more may be in flight and the limiter allows it."""

import asyncio
import heapq
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import count

import anyio

from batchrank.data import Rejection
from batchrank.errors import BatchrankError
from batchrank.send.connections import Key
from batchrank.send.fleet import Fleet, Replica
from batchrank.send.rate import Admission, RateLimiter
from batchrank.send.retry import Action, about_key

Priority = tuple[int, int, int]
"""Query position, round, chunk: the smallest goes first."""


@dataclass(slots=True, eq=False)
class Slot:
    """A request's place in the queue; once it is granted, one of those in flight.

    Attributes:
        tokens: what the request is predicted to take.
        met: servers that it failed at, which are asked again only once there is no other in service.
        only: the one server that it is for, perhaps one that is out; None for any.
        admission: what the limiter charged it; set when the slot is granted.
        replica: the server that it is sent to; set then too.
        refused: the key, if that was refused and there is another one.
    """

    scheduler: "Scheduler"
    tokens: int
    granted: asyncio.Future[None]
    met: Collection[Replica] = ()
    only: Replica | None = None
    left: bool = False
    held: bool = False
    refused: Key | None = None
    admission: Admission = field(init=False)
    replica: Replica = field(init=False)

    def grant(self) -> None:
        """Let its request go on, if that still waits."""
        if not self.granted.done():
            self.granted.set_result(None)

    def release(self) -> None:
        """Let another request have it. Whoever waits for it, or holds it, must call this; again does no harm."""
        self.left = True
        if self.held:
            self.held = False
            self.scheduler.leave(self.replica)


class Scheduler:
    """Gives slots to requests, those of the oldest query first; ``serve`` runs in the run's task group.

    Attributes:
        limiter: decides when, and by which key.
        fleet: decides where, and how many at a time.
    """

    def __init__(self, limiter: RateLimiter, fleet: Fleet) -> None:
        self.limiter = limiter
        self.fleet = fleet
        self._waiting: list[tuple[Priority, int, Slot]] = []
        self._asking: list[Slot] = []
        self._order = count()
        self._changed = asyncio.Event()
        self._closed: BatchrankError | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    @property
    def gate(self) -> str | None:
        """What the next request waits for: ``concurrency``, or ``rate``; None where none waits."""
        if self._asking:
            return "rate"
        return "concurrency" if self._waiting and not self.fleet.room else None

    async def slot(
        self, priority: Priority, tokens: int, met: Collection[Replica] = (), only: Replica | None = None
    ) -> Slot:
        """Wait for a slot; whoever gets it has to ``release`` it.

        Args:
            priority: whose turn it is.
            tokens: what the request is predicted to take.
            met: servers that it failed at.
            only: the one server that it is for.

        Raises:
            BatchrankError: the one given to ``close``.
        """
        if self._closed is not None:
            raise self._closed
        slot = Slot(self, tokens, asyncio.get_running_loop().create_future(), met, only)
        heapq.heappush(self._waiting, (priority, next(self._order), slot))
        self._changed.set()
        try:
            await slot.granted
            if self._closed is not None:
                raise self._closed
        except BaseException:
            slot.release()
            raise
        return slot

    def answered(self, slot: Slot, now: float, latency: float, *, probe: bool = False) -> None:
        """Learn that the answer to a slot's request took so many seconds; a probe's tells that its server works."""
        rate = self.limiter.pace(slot.tokens) if slot.replica.places.adapts else 0.0
        self.fleet.answered(slot.replica, now, latency, rate, waiting=bool(self._waiting), probe=probe)

    def failed(self, slot: Slot, why: Rejection, action: Action, sent: float, wire: str) -> Key | None:
        """Learn how a slot's request failed; the key if only that was refused, and there is another one to ask with."""
        key, doubt = slot.admission.key, about_key(why, wire)
        again = doubt is not None and self.limiter.refused(slot.admission, why, certain=doubt == "surely")
        self.fleet.failed(slot.replica, why, action, sent, excused=again)
        return key if again else None

    def close(self, reason: BatchrankError) -> None:
        """Give no more slots: whoever waits, or comes later, gets the reason raised."""
        self._closed = self._closed or reason
        for slot in [*(slot for _, _, slot in self._waiting), *self._asking]:
            slot.grant()  # those too which may have a long pause of the limiter before them
        self._waiting.clear()
        self._changed.set()

    async def serve(self) -> None:
        """Give slots until cancelled or closed."""
        async with anyio.create_task_group() as group:
            while self._closed is None:
                self._changed = asyncio.Event()
                ahead = self.limiter.ahead
                free = self._waiting and len(self._asking) < ahead
                if not free or (chosen := self._choose()) is None:
                    await self._changed.wait()
                    continue
                slot, replica = chosen
                self.fleet.take(replica)
                self._asking.append(slot)
                if ahead == 1:
                    await self._admit(slot, replica)
                else:
                    group.start_soon(self._admit, slot, replica)

    async def _admit(self, slot: Slot, replica: Replica) -> None:
        """Have the limiter admit a slot, and grant it."""
        try:
            slot.admission = await self.limiter.acquire(slot.tokens)
        except BaseException:
            self.leave(replica)
            raise
        finally:
            self._asking.remove(slot)
        if slot.left:
            self.leave(replica)
            return
        slot.replica = self._moved(slot, replica) if replica.out else replica
        slot.held = True
        slot.grant()
        self._changed.set()

    def leave(self, replica: Replica) -> None:
        """One request less is in flight there."""
        self.fleet.leave(replica)
        self._changed.set()

    def _choose(self) -> tuple[Slot, Replica] | None:
        """The first who waits and may go on, and where to; one that waits for other servers is passed over."""
        passed = []
        found = None
        while found is None and self._waiting and self.fleet.room:
            entry = heapq.heappop(self._waiting)
            slot = entry[2]
            if slot.left:
                continue
            replica = slot.only or self.fleet.choose(slot.met)
            if replica is None:
                passed.append(entry)
            else:
                found = slot, replica
        for entry in passed:
            heapq.heappush(self._waiting, entry)
        return found

    def _moved(self, slot: Slot, replica: Replica) -> Replica:
        """Another server than the one that was taken out while the slot waited for the rate."""
        other = slot.only or self.fleet.choose(slot.met, full=True) or replica
        self.fleet.leave(replica)
        self.fleet.take(other)
        return other
