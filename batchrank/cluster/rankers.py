"""Keeps processes ranking: starts them, gives them parts, takes what they finish, and replaces those that die.

A process that dies loses nothing: what it had asked is answered into the ledger all the same, and its parts go to
another one, which finds the answers there.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from batchrank.cluster.account import Account
from batchrank.cluster.channel import Handler
from batchrank.cluster.commits import Commits
from batchrank.cluster.handover import Depot
from batchrank.cluster.messages import Finished, Standing, Terms, differing, logged
from batchrank.cluster.processes import Member, NotStartedError, Spawn, Starter
from batchrank.cluster.queue import PartQueue, died_of
from batchrank.cluster.scaling import Scaling
from batchrank.cluster.stage import StagedPart
from batchrank.errors import BatchrankError, RunStoppedError
from batchrank.io.address import Where
from batchrank.pipeline.summary import Totals
from batchrank.send.fleet import Fleet

log = logging.getLogger(__name__)

_PAUSE = 1.0
"""Seconds until another process is started in place of one that could not be, doubled with each in a row."""
_DOUBLINGS = 6
"""How often at most: a machine that is no good is tried, and told of, about once a minute."""
_PATIENCE = 30.0
"""Seconds that part 0 waits for a process in place of the one that died of it: a cluster may have no room for one."""
_BEAT = 0.25
"""Seconds between two looks at how many queries each process may have under way, and whether there are enough."""


class Rankers:
    """The processes that rank.

    Attributes:
        members: those that are there.
        notices: what they say that the user should know.

    Args:
        queue: what is to be ranked.
        stop: stops the run; all else is as ``Crew`` has it.
    """

    def __init__(
        self,
        starter: Starter,
        size: int,
        account: Account,
        fleet: Fleet,
        *,
        queue: PartQueue,
        terms: Terms,
        commits: Commits,
        check: Callable[[], None],
        stop: Callable[[BatchrankError], None],
        folder: Where,
        staging: Path | None = None,
        silence: float | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        self._starter, self._size, self._scaling = starter, size, scaling
        self._account, self._fleet, self._silence = account, fleet, silence
        self._queue, self._terms, self._commits = queue, terms, commits
        self._folder, self._staging = folder, staging
        self._check, self._stop = check, stop
        self._stopped, self._seats, self._refused = False, 0, 0
        self._group: TaskGroup
        self._coming: list[anyio.CancelScope] = []
        self.members: list[Member] = []
        self._before = Standing()
        self.notices: list[str] = []

    @property
    def standing(self) -> Standing:
        """How far all of them have come."""
        return sum((member.standing for member in self.members), self._before)

    def stop(self, reason: BatchrankError, drain: float | None) -> None:
        """Start no more of them, and have them take no more parts."""
        self._stopped = True
        self._give_up(len(self._coming))
        for member in self.members:
            member.channel.tell("stop", reason, drain)

    async def run(self, spawn: Spawn) -> None:
        """Keep them ranking until there is no more to rank."""
        async with anyio.create_task_group() as self._group:
            self._add(self._size, spawn)
            if self._scaling is not None:
                self._group.start_soon(self._scale, self._scaling, spawn)

    def _add(self, count: int, spawn: Spawn) -> None:
        self._seats += count
        for _ in range(count):
            self._group.start_soon(self._rank, spawn)

    def _give_up(self, count: int) -> int:
        """Wait no longer for some that could not be started yet; how many there were of those."""
        given_up = self._coming[max(0, len(self._coming) - count) :]
        for scope in given_up:
            scope.cancel()
        return len(given_up)

    async def _scale(self, scaling: Scaling, spawn: Spawn) -> None:
        """Have as many of them as are needed, until all that is left is in somebody's hands."""
        while not (self._queue.drained or self._stopped):
            staying = [member for member in self.members if not member.hands.released]
            here, account = len(self.members), self._account
            change = scaling.beat(
                anyio.current_time(),
                (len(staying), self._seats - here, here - len(staying)),
                parts=self._queue.waiting,
                gate=account.gate,
                answered=account.answered,
            )
            if change > 0:
                log.info("parts wait, and servers and quota do not limit: %d more will rank", change)
                self._queue.room += change
                self._add(change, spawn)
            elif change < 0:
                log.info("fewer that rank will do: %d get no new part", -change)
                for member in staying[max(1, len(staying) + change + self._give_up(-change)) :]:
                    self._queue.release(member.hands)
            await anyio.sleep(_BEAT)

    async def _rank(self, spawn: Spawn) -> None:
        """Keep one ranking until there is no more for it; where it dies, another one takes its place."""
        try:
            while not self._stopped and not await self._done(spawn):
                pass
        finally:
            self._seats -= 1

    async def _done(self, spawn: Spawn) -> bool:
        """Serve one process; whether none is needed in its place."""
        try:
            member = await self._serve(spawn)
        except NotStartedError as error:
            log.warning("%s", error)
            if not self.members:  # where others rank, a machine was lost, or is no good, which ends no run
                self._too_many(self._queue.died(), str(error))
            return await self._pause()
        if member is None:
            return True
        if member in self.members:
            self.members.remove(member)
        self._before += replace(member.standing, open=Totals(), unfinished=0, trouble=None)
        if not member.ended:
            await self._lost(member)
        return member.ended

    async def _pause(self) -> bool:
        """Wait until the next try, longer each time; whether nobody is needed any more."""
        self._refused += 1
        with self._awaited() as waiting:
            await anyio.sleep(_PAUSE * 2 ** min(self._refused - 1, _DOUBLINGS))
        return waiting.cancelled_caught

    @contextmanager
    def _awaited(self) -> Iterator[anyio.CancelScope]:
        """What is cancelled where one that can't be started yet isn't needed any more."""
        with anyio.CancelScope() as coming:
            self._coming.append(coming)
            try:
                yield coming
            finally:
                self._coming.remove(coming)

    async def _serve(self, spawn: Spawn) -> Member | None:
        """Serve one process for as long as it is there; None where it was given up before it was."""
        handlers = self._account.handlers()
        async with AsyncExitStack() as stack:
            with self._awaited() as coming:
                starting = self._starter.start("ranker", handlers, spawn)
                process, channel = await stack.enter_async_context(starting)
            if coming.cancelled_caught:
                return None
            member = Member(process, channel)
            depot = Depot(self._folder, member.hands.parts, self._staging)
            handlers |= self._handlers(member) | depot.handlers()
            try:
                await channel.serve()
            finally:
                await depot.close()
        return member

    def _begin_anew(self, member: Member) -> None:
        """End one that waits, like all others, for what part 0 comes to, so that one in its place can rank that."""
        log.warning("there was no room in place of one that died, so another one that ranks begins anew")
        member.channel.close()

    async def _lost(self, member: Member) -> None:
        """Give the parts of a process that died to others."""
        numbers = sorted(member.hands.parts)
        killers = self._queue.give_back(member.hands)
        if not self._stopped:
            fate, names = await member.process.fate(), ", ".join(map(str, numbers)) or "none"
            log.warning("a process that ranks died: %s; its parts go to another one: %s", fate, names)
            self._too_many(killers, fate)

    def _too_many(self, parts: Sequence[int], fate: str) -> None:
        """Stop where there is a part that too many processes died of."""
        if parts and not self._stopped:
            self._stop(died_of(parts[0], fate))

    def _handlers(self, member: Member) -> dict[str, Handler]:
        """What one process that ranks may call besides the account's."""

        async def hello(found: dict[str, str]) -> Terms:
            if (other := differing(found)) is not None:
                error = RunStoppedError(other)
                self._stop(error)
                raise error
            member.heard, self._refused = anyio.current_time(), 0
            self.members.append(member)
            return self._terms

        async def part() -> StagedPart | None:
            self._queue.began()
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
                self._stop(error)

        async def stands(standing: Standing) -> None:
            member.standing, member.heard = standing, anyio.current_time()
            self._account.stands(self.standing)
            try:
                self._check()
            except BatchrankError as error:
                self._stop(error)

        async def ended(reason: BatchrankError | None) -> None:
            member.ended = True
            if reason is not None:
                self._stop(reason)

        async def head(told: dict[str, Any]) -> None:
            if self._terms.head is None:
                self._terms.head = told
                for other in self.members:
                    other.channel.tell("head", told)

        async def notice(text: str) -> None:
            if text not in self.notices:
                self.notices.append(text)

        return {
            "hello": hello, "part": part, "finished": finished, "stands": stands, "ended": ended, "head": head,
            "clear": self._commits.clear, "notice": notice, "log": logged,
        }  # fmt: skip

    async def beat(self) -> None:
        """Tell each how many queries it may have under way, as that of all follows the servers; give silent ones up."""
        stuck_since: float | None = None
        while True:
            # One that is only tried to be added may never come; those that are there at first are counted on.
            share = len(self.members) if self._scaling else self._seats
            each = -(-self._fleet.queries // max(1, share)) + 1
            if each != self._terms.room.queries:
                self._terms.room.queries = each
                for member in self.members:
                    member.channel.tell("room", each)
            await anyio.sleep(_BEAT)
            now = anyio.current_time()
            if not self._queue.stuck(member.hands for member in self.members):
                stuck_since = None
            elif stuck_since is None:
                stuck_since = now
            elif self.members and now - stuck_since > _PATIENCE:
                stuck_since = None
                self._begin_anew(min(self.members, key=lambda member: len(member.hands.parts)))
            if self._queue.drained:
                self._give_up(len(self._coming))  # nobody is needed any more but those who are there
            if self._silence is not None:
                late = now - self._silence
                for member in self.members:
                    if member.heard < late:
                        log.warning("a process that ranks has said nothing for %g s", self._silence)
                        member.channel.close()
