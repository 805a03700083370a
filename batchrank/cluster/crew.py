"""Starts the processes that rank, gives them parts, and carries on when one of them dies.

One process reads and lays the input out in parts, several rank a part each, the one that the user started is their
account and commits what they finish, in order. A process that dies loses nothing: what it had asked is answered into
the ledger all the same, and its parts go to another one, which finds the answers there.
"""

import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from batchrank.cluster.account import Account
from batchrank.cluster.channel import Channel, Handler
from batchrank.cluster.commits import Commits
from batchrank.cluster.handover import Depot
from batchrank.cluster.processes import NotStartedError, Process, Spawn, Starter
from batchrank.cluster.queue import DEATHS, NO_PART, Hands, PartQueue
from batchrank.cluster.rank import Finished, Standing, Terms, versions
from batchrank.cluster.stage import Layout, StagedPart
from batchrank.errors import BatchrankError, RunStoppedError
from batchrank.io.address import Where
from batchrank.pipeline.summary import Completed, Totals
from batchrank.read.base import Gauge
from batchrank.send.fleet import Fleet

log = logging.getLogger(__name__)

_AHEAD = 2
"""Parts that are laid out besides one for each process that ranks, so that none waits for the reader."""
_PAUSE = 1.0
"""Seconds until another process is started in place of one that could not be."""
_GRACE = 2.0
"""Seconds that processes have to end by themselves after that, before they are ended."""
_BEAT = 0.25
"""Seconds between two looks at how many queries each process may have under way."""


@dataclass(slots=True, eq=False)
class Member:
    """A process that ranks.

    Attributes:
        process: the process.
        channel: what it is talked to by.
        hands: what it has to rank.
        standing: how far it has come, as it told last.
        ended: whether it has said that it is done.
        heard: when it said something last.
    """

    process: Process
    channel: Channel
    hands: Hands = field(default_factory=Hands)
    standing: Standing = field(default_factory=Standing)
    ended: bool = False
    heard: float = 0.0


class Crew:
    """All processes of a run but the one that the user started.

    It can be watched and stopped as ``Flow`` can, and as ``Reader`` tells how much was read.

    Attributes:
        read: items laid out so far, those of earlier processes included.
        reason: why the crew stops before its end.
        notices: what processes say that the user should know.

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
    ) -> None:
        self._folder, self._staging = folder, staging
        self._silence = silence
        self._starter = starter
        self._size = size
        self._account = account
        self._fleet = fleet
        self._layout = layout
        self._terms = terms
        self._commits = commits
        self._check = check
        self._drain = drain
        self._queue = PartQueue(size + _AHEAD)
        self._members: list[Member] = []
        self._before = Standing()
        self._stopping = anyio.Event()
        self._gauge = gauge
        self.read = layout.position
        self.reason: BatchrankError | None = None
        self.notices: list[str] = []
        commits.open = self._open

    @property
    def exhausted(self) -> bool:
        """Whether the whole input is laid out."""
        return self._queue.exhausted

    @property
    def standing(self) -> Standing:
        """How far all of them have come."""
        return sum((member.standing for member in self._members), self._before)

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
            for member in self._members:
                member.channel.tell("stop", reason, drain)
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

            helping.start_soon(self._beat)
            async with anyio.create_task_group() as crew:
                helping.start_soon(self._deadline, asking.cancel_scope, crew.cancel_scope)
                crew.start_soon(self._read, spawn)
                for _ in range(self._size):
                    crew.start_soon(self._rank, spawn)
            helping.cancel_scope.cancel()

    async def _read(self, spawn: Spawn) -> None:
        """Have the input laid out, by a process that is started once: where it dies, the run stops."""
        handlers: dict[str, Handler] = {"hello": self._hello_reader, "staged": self._staged, "log": _logged}
        reader = self._starter.start("reader", handlers, spawn)
        async with reader as (process, channel), anyio.create_task_group() as group:
            group.start_soon(self._end_with_run, channel)
            await channel.serve()
            group.cancel_scope.cancel()
        if not self.exhausted and self.reason is None:
            self.stop(RunStoppedError(f"the process that reads the input died: {process.fate}"))

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

    async def _rank(self, spawn: Spawn) -> None:
        """Keep one process ranking until it says that there is no more; where it dies, another one takes its place."""
        while self.reason is None:
            try:
                member = await self._serve(spawn)
            except NotStartedError as error:
                log.warning("%s", error)
                self._too_many(self._queue.died(), str(error))
                await anyio.sleep(_PAUSE)
                continue
            if member in self._members:
                self._members.remove(member)
            self._before += replace(member.standing, open=Totals(), unfinished=0)
            if member.ended:
                break
            self._lost(member)

    async def _serve(self, spawn: Spawn) -> Member:
        """Serve one process for as long as it is there."""
        handlers = self._account.handlers()
        async with self._starter.start("ranker", handlers, spawn) as (process, channel):
            member = Member(process, channel)
            handlers |= self._handlers(member)
            depot = Depot(self._folder, member.hands.parts, self._staging)
            handlers |= depot.handlers()
            try:
                await channel.serve()
            finally:
                depot.close()
        return member

    def _lost(self, member: Member) -> None:
        """Give the parts of a process that died to others."""
        numbers = sorted(member.hands.parts)
        killers = self._queue.give_back(member.hands)
        if self.reason is None:
            fate = member.process.fate
            names = ", ".join(map(str, numbers)) or "none"
            log.warning("a process that ranks died: %s; its parts go to another one: %s", fate, names)
            self._too_many(killers, fate)

    def _too_many(self, parts: Sequence[int], fate: str) -> None:
        """Stop where there is a part that too many processes died of."""
        if parts and self.reason is None:
            what = "before they began" if parts[0] == NO_PART else f"of part {parts[0]} of the input"
            self.stop(
                RunStoppedError(
                    f"{DEATHS} processes died {what}; the last: {fate}. Run the job in one process "
                    "(engine.processes: 1) to see why, or give each more memory"
                )
            )

    def _handlers(self, member: Member) -> dict[str, Handler]:
        """What one process that ranks may call besides the account's."""

        async def hello(found: dict[str, str]) -> Terms:
            if found != (wanted := versions()):
                error = RunStoppedError(
                    "a process that ranks has other versions than this one, so it might write other bytes: "
                    + ", ".join(
                        f"{k} {found.get(k)}, not {wanted[k]}" for k in wanted if found.get(k) != wanted[k]
                    )
                )
                self.stop(error)
                raise error
            member.heard = anyio.current_time()
            self._queue.began()
            self._members.append(member)
            return self._terms

        async def part() -> StagedPart | None:
            return await self._queue.take(member.hands)

        async def finished(result: Finished) -> None:
            # Before it is committed: should this process die now, the part stands.
            given = member.hands.parts.pop(result.number, None)
            if given is None:
                return  # it was taken for dead, and another one has the part
            await anyio.to_thread.run_sync(given.path.unlink)
            try:
                await self._commits.take(result)
            except BatchrankError as error:
                self.stop(error)

        async def stands(standing: Standing) -> None:
            member.standing, member.heard = standing, anyio.current_time()
            self._account.stands(self.standing)
            try:
                self._check()
            except BatchrankError as error:
                self.stop(error)

        async def ended(reason: BatchrankError | None) -> None:
            member.ended = True
            if reason is not None:
                self.stop(reason)

        async def head(told: dict[str, Any]) -> None:
            if self._terms.head is None:
                self._terms.head = told
                for other in self._members:
                    other.channel.tell("head", told)

        async def notice(text: str) -> None:
            if text not in self.notices:
                self.notices.append(text)

        return {
            "hello": hello, "part": part, "finished": finished, "stands": stands, "ended": ended, "head": head,
            "clear": self._commits.clear, "notice": notice, "log": _logged,
        }  # fmt: skip

    async def _beat(self) -> None:
        """Tell each process how many queries it may have under way, as that of all follows the servers."""
        while True:
            each = -(-self._fleet.queries // self._size) + 1
            if each != self._terms.room.queries:
                self._terms.room.queries = each
                for member in self._members:
                    member.channel.tell("room", each)
            await anyio.sleep(_BEAT)
            if self._silence is not None:
                late = anyio.current_time() - self._silence
                for member in self._members:
                    if member.heard < late:
                        log.warning("a process that ranks has said nothing for %g s", self._silence)
                        member.channel.close()

    async def _deadline(self, asking: anyio.CancelScope, crew: anyio.CancelScope) -> None:
        await self._stopping.wait()
        await anyio.sleep(self._drain)
        asking.cancel()
        await anyio.sleep(_GRACE)
        crew.cancel()


async def _logged(name: str, level: int, message: str) -> None:
    logging.getLogger(name).log(level, "%s", message)
