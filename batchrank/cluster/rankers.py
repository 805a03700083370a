"""Keeps processes ranking: starts them, gives them parts, takes what they finish, and replaces those that die.

A process that dies loses nothing: what it had asked is answered into the ledger all the same, and its parts go to
another one, which finds the answers there.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from batchrank.cluster.account import Account
from batchrank.cluster.channel import Channel, Handler
from batchrank.cluster.commits import Commits
from batchrank.cluster.handover import Depot
from batchrank.cluster.messages import Finished, Standing, Terms, differing
from batchrank.cluster.processes import NotStartedError, Process, Spawn, Starter
from batchrank.cluster.queue import DEATHS, NO_PART, Hands, PartQueue
from batchrank.cluster.stage import StagedPart
from batchrank.errors import BatchrankError, RunStoppedError
from batchrank.io.address import Where
from batchrank.pipeline.summary import Totals
from batchrank.send.fleet import Fleet

log = logging.getLogger(__name__)

_PAUSE = 1.0
"""Seconds until another process is started in place of one that could not be."""
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


class Rankers:
    """The processes that rank.

    Attributes:
        notices: what they say that the user should know.

    Args:
        starter: starts them.
        size: how many there are to be.
        account: what they ask.
        fleet: tells how many queries may be under way.
        queue: what is to be ranked.
        terms: what they need to know.
        commits: takes finished parts.
        check: raises where more failed than is allowed.
        stop: stops the run.
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
        queue: PartQueue,
        terms: Terms,
        commits: Commits,
        check: Callable[[], None],
        stop: Callable[[BatchrankError], None],
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
        self._queue = queue
        self._terms = terms
        self._commits = commits
        self._check = check
        self._stop = stop
        self._stopped = False
        self._members: list[Member] = []
        self._before = Standing()
        self.notices: list[str] = []

    @property
    def standing(self) -> Standing:
        """How far all of them have come."""
        return sum((member.standing for member in self._members), self._before)

    def stop(self, reason: BatchrankError, drain: float | None) -> None:
        """Start no more of them, and have them take no more parts."""
        self._stopped = True
        for member in self._members:
            member.channel.tell("stop", reason, drain)

    async def run(self, spawn: Spawn) -> None:
        """Keep so many of them ranking until there is no more to rank."""
        async with anyio.create_task_group() as group:
            for _ in range(self._size):
                group.start_soon(self._rank, spawn)

    async def _rank(self, spawn: Spawn) -> None:
        """Keep one process ranking until it says that there is no more; where it dies, another one takes its place."""
        while not self._stopped:
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
        if not self._stopped:
            fate = member.process.fate
            names = ", ".join(map(str, numbers)) or "none"
            log.warning("a process that ranks died: %s; its parts go to another one: %s", fate, names)
            self._too_many(killers, fate)

    def _too_many(self, parts: Sequence[int], fate: str) -> None:
        """Stop where there is a part that too many processes died of."""
        if parts and not self._stopped:
            what = "before they began" if parts[0] == NO_PART else f"of part {parts[0]} of the input"
            self._stop(
                RunStoppedError(
                    f"{DEATHS} processes died {what}; the last: {fate}. Run the job in one process "
                    "(engine.processes: 1) to see why, or give each more memory"
                )
            )

    def _handlers(self, member: Member) -> dict[str, Handler]:
        """What one process that ranks may call besides the account's."""

        async def hello(found: dict[str, str]) -> Terms:
            if (other := differing(found)) is not None:
                error = RunStoppedError(other)
                self._stop(error)
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
                for other in self._members:
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


async def logged(name: str, level: int, message: str) -> None:
    """Log what a process tells."""
    logging.getLogger(name).log(level, "%s", message)
