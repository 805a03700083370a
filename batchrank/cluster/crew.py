"""Runs the processes of a run: the one that reads, and those that rank what it lays out in parts.

The one that the user started is their account, and commits what they finish, in order.
"""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio

from batchrank.cluster.account import Account
from batchrank.cluster.channel import Channel, Handler
from batchrank.cluster.commits import Commits
from batchrank.cluster.messages import Standing, Terms, logged
from batchrank.cluster.processes import Spawn, Starter
from batchrank.cluster.queue import PartQueue
from batchrank.cluster.rankers import Rankers
from batchrank.cluster.scaling import Scaling
from batchrank.cluster.stage import Layout, StagedPart
from batchrank.errors import BatchrankError, RunStoppedError
from batchrank.io.address import Where
from batchrank.pipeline.summary import Completed, Totals
from batchrank.read.base import Gauge
from batchrank.send.fleet import Fleet

_AHEAD = 2
"""Parts that are laid out besides one for each process that ranks, so that none waits for the reader."""
_GRACE = 2.0
"""Seconds that processes have to end by themselves after that, before they are ended."""


class Crew:
    """All processes of a run but the one that the user started.

    It can be watched and stopped as ``Flow`` can, and as ``Reader`` tells how much was read.

    Attributes:
        read: items laid out so far, those of earlier processes included.
        reason: why the crew stops before its end.

    Args:
        starter: starts processes.
        size: how many are to rank.
        account: what they ask.
        fleet: tells how many queries may be under way.
        layout: what is to be read.
        terms: what those who rank need to know.
        commits: takes finished parts.
        check: raises where more failed than is allowed.
        drain: seconds that requests in flight are given once the run has to stop.
        gauge: told how far reading has come.
        folder: where parts of processes are put in place that have no folder in common with this one.
        staging: where they are written before, if that is an address.
        silence: seconds after which a process that says nothing is taken for dead; None where the system tells.
        scaling: finds out how many are to rank, from that size on; None where it is fixed.
    """

    def __init__(
        self,
        starter: Starter,
        size: int,
        account: Account,
        fleet: Fleet,
        *,
        layout: Layout,
        terms: Terms,
        commits: Commits,
        check: Callable[[], None],
        drain: float,
        gauge: Gauge,
        folder: Where,
        staging: Path | None = None,
        silence: float | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        self._starter = starter
        self._account = account
        self._layout = layout
        self._drain = drain
        self._queue = PartQueue(size + _AHEAD)
        self._rankers = Rankers(
            starter, size, account, fleet,
            queue=self._queue, terms=terms, commits=commits, check=check, stop=self.stop,
            folder=folder, staging=staging, silence=silence, scaling=scaling,
        )  # fmt: skip
        self._stopping = anyio.Event()
        self._gauge = gauge
        self.read = layout.position
        self.reason: BatchrankError | None = None
        commits.open = self._open

    @property
    def exhausted(self) -> bool:
        """Whether the whole input is laid out."""
        return self._queue.exhausted

    @property
    def standing(self) -> Standing:
        """How far all of them have come."""
        return self._rankers.standing

    @property
    def rankers(self) -> tuple[int, int]:
        """How many processes rank now, and on how many machines."""
        members = self._rankers.members
        return len(members), len({member.channel.machine for member in members})

    @property
    def notices(self) -> list[str]:
        """What processes say that the user should know."""
        return self._rankers.notices

    def _open(self) -> Totals:
        """The sums of parts that processes have at hand."""
        return self.standing.open

    @property
    def admitted(self) -> int:
        """Queries and records taken on so far."""
        return self.standing.admitted

    @property
    def admitted_documents(self) -> int:
        """The documents of these."""
        return self.standing.admitted_documents

    @property
    def unfinished(self) -> int:
        """Queries under way."""
        return self.standing.unfinished

    @property
    def gate(self) -> str | None:
        """What holds requests back now."""
        return self._account.gate

    @property
    def completed(self) -> Completed:
        """What came out of ranking."""
        return self.standing.completed

    def stop(self, reason: BatchrankError, *, drain: float | None = None) -> None:
        """Admit nothing more; what is in flight is drained, then ``run`` returns. The first reason counts.

        Args:
            reason: why.
            drain: seconds that requests in flight are given; None for what this was made with.
        """
        if self.reason is None:
            self.reason = reason
            self._drain = self._drain if drain is None else drain
            self._account.stop(reason)
            self._rankers.stop(reason, drain)
            self._stopping.set()
            self._queue.close()

    async def run(self) -> None:
        """Run until the whole input is ranked and committed, or the run was stopped."""
        async with anyio.create_task_group() as asking, anyio.create_task_group() as helping:

            def spawn(
                handle: Callable[..., Coroutine[Any, Any, None]], number: int, name: str, values: object
            ) -> None:
                # What is asked comes to its end even if who asked is gone, as it is paid for.
                (asking if name == "ask" else helping).start_soon(handle, number, name, values)

            helping.start_soon(self._rankers.beat)
            async with anyio.create_task_group() as crew:
                helping.start_soon(self._deadline, asking.cancel_scope, crew.cancel_scope)
                crew.start_soon(self._read, spawn)
                crew.start_soon(self._rankers.run, spawn)
            helping.cancel_scope.cancel()

    async def _read(self, spawn: Spawn) -> None:
        """Have the input laid out, by a process that is started once: where it dies, the run stops."""
        handlers: dict[str, Handler] = {"hello": self._hello_reader, "staged": self._staged, "log": logged}
        reader = self._starter.start("reader", handlers, spawn)
        async with reader as (process, channel), anyio.create_task_group() as group:
            group.start_soon(self._end_with_run, channel)
            await channel.serve()
            group.cancel_scope.cancel()
        if not self.exhausted and self.reason is None:
            self.stop(RunStoppedError(f"the process that reads the input died: {await process.fate()}"))

    async def _end_with_run(self, channel: Channel) -> None:
        await self._stopping.wait()
        channel.close()

    async def _hello_reader(self, _: dict[str, str]) -> Layout:
        return self._layout

    async def _staged(
        self, part: StagedPart | None, share: float, error: BatchrankError | None = None
    ) -> None:
        """Take a part that was laid out, the end of the input, or why it can't be read; returns once there is room."""
        self._gauge.share = share
        if error is not None:
            self.stop(error)
        elif part is None:
            self._queue.end()
        else:
            self.read = part.position + part.items
            await self._queue.put(part)

    async def _deadline(self, asking: anyio.CancelScope, crew: anyio.CancelScope) -> None:
        await self._stopping.wait()
        await anyio.sleep(self._drain)
        asking.cancel()
        await anyio.sleep(_GRACE)
        crew.cancel()
