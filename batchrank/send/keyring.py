"""Sends each request by whichever of several API keys may send it first, because each key has a quota of its own.

A key that the API refuses rests, and the others go on: a second at first, twice as long each time that one request
finds it still refused, ten minutes at most. What is surely the key's fault (an unpaid bill, a quota that comes back
tomorrow) rests ten minutes at once. The last key that is left never rests: what becomes of it is the run's.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from batchrank.data import Rejection
from batchrank.send.connections import Key
from batchrank.send.limiter import Limiter
from batchrank.send.rate import Admission, Kind, Stats, refused_keys

log = logging.getLogger(__name__)

_FIRST_REST, _LONGEST_REST = 1.0, 600.0
"""Seconds: a rolling deploy that lets nobody in is over soon; an account that is paid again is used again."""
_BELIEVED = 3
"""Refusals in a row after which a key is told to be refused: one or two may be a firewall's dislike of a document."""


class _Member:
    """One key, its quota, and how it stands.

    Attributes:
        refused: how often the API refused it.
        refusals: in a row, of requests sent one after the other; 0 while it is in service.
        rests_until: when one request may try it again, seconds.
        told: whether the user was told that it is out.
    """

    def __init__(self, key: Key, limiter: Limiter) -> None:
        self.key = key
        self.limiter = limiter
        self.requests = self.refused = self.refusals = 0
        self.refused_at = self.rests_until = -math.inf
        self.rest = _FIRST_REST
        self.told = False
        self.why: Rejection | None = None

    async def ready(self, tokens: int) -> None:
        """Wait until it may send a request of so many tokens."""
        await asyncio.sleep(self.rests_until - asyncio.get_running_loop().time())
        await self.limiter.turn(tokens)


class Keyring:
    """Admits requests in the order of the calls, each by the key that can send it first.

    Args:
        limiters: what keeps the quota of each key; several.
    """

    ahead = 1

    def __init__(self, limiters: Mapping[Key, Limiter]) -> None:
        self._members = [_Member(key, limiter) for key, limiter in limiters.items()]
        self._of = {member.key: member for member in self._members}
        self._order = asyncio.Lock()
        self._changed = asyncio.Event()

    async def acquire(self, tokens: int) -> Admission:
        """Wait until a request of so many expected tokens may be sent by any key."""
        async with self._order:
            member = await self._first(tokens)
            admission = await member.limiter.acquire(tokens)
        if member.refusals:  # one request at a time finds out
            member.rests_until = admission.at + member.rest
        member.requests += 1
        admission.key = member.key
        self._members.remove(member)
        self._members.append(member)  # of several that are ready, the one that was used longest ago is next
        return admission

    def departed(self, admission: Admission) -> None:
        """As ``Limiter.departed``."""
        self._member(admission).limiter.departed(admission)

    def settle(self, admission: Admission, billed: int | None) -> None:
        """As ``Limiter.settle``; a key that was refused is in service again."""
        member = self._member(admission)
        member.limiter.settle(admission, billed)
        if member.refusals and admission.at > member.refused_at:
            if member.told:
                log.warning("the key in %s is accepted again", member.key.name)
            member.refusals, member.rest, member.told = 0, _FIRST_REST, False
            member.rests_until = -math.inf
            self._change()

    def unbilled(self, admission: Admission) -> None:
        """As ``Limiter.unbilled``."""
        self._member(admission).limiter.unbilled(admission)

    def throttled(
        self,
        kind: Kind,
        retry_after: float | None = None,
        *,
        sent: float | None = None,
        by: Key | None = None,
    ) -> None:
        """As ``Limiter.throttled``: only that key slows down."""
        assert by is not None
        self._of[by].limiter.throttled(kind, retry_after, sent=sent)

    def refused(self, admission: Admission, why: Rejection, *, certain: bool) -> bool:
        """Have a key rest that the API refused, unless it is the last one; whether there is another one."""
        member = self._member(admission)
        member.refused += 1
        others = any(not other.refusals for other in self._members if other is not member)
        if not others and not member.refusals:
            return False
        now = asyncio.get_running_loop().time()
        member.why = why
        if not member.refusals or admission.at > member.refused_at:  # not what was on its way already
            member.refusals += 1
            longer = _FIRST_REST if member.refusals == 1 else min(2 * member.rest, _LONGEST_REST)
            member.rest = _LONGEST_REST if certain else longer
            member.refused_at, member.rests_until = now, now + member.rest
        if not member.told and (certain or member.refusals >= _BELIEVED):
            member.told = True
            left = sum(not one.refusals for one in self._members)
            log.warning(
                "the key in %s is refused, and the run goes on with %d of %d: %s",
                member.key.name, left, len(self._members), why,
            )  # fmt: skip
        self._change()
        return others

    def pace(self, tokens: int) -> float:
        """Requests a second that the keys in service may send together if each request takes so many tokens."""
        return sum(one.limiter.pace(tokens) for one in self._members if not one.refusals)

    def stats(self) -> Stats:
        """What happened so far, by all keys; of the quota what those in service use."""
        found = [one.limiter.stats() for one in self._members]
        serving = [one.limiter.stats() for one in self._members if not one.refusals]
        throttled = Counter[Kind]()
        for stats in found:
            throttled.update(stats.throttled)
        return Stats(
            requests=sum(one.requests for one in found),
            tokens=sum(one.tokens for one in found),
            requests_used=sum(one.requests_used for one in serving) / len(serving),
            tokens_used=sum(one.tokens_used for one in serving) / len(serving),
            waited=sum(one.waited for one in found),
            throttled=dict(throttled),
            speed=sum(one.speed for one in serving) / len(serving),
        )

    def states(self) -> list[dict[str, Any]]:
        """How each key stands, by the name of its variable or file."""
        return [
            {
                "name": one.key.name,
                "requests": one.requests,
                "failures": one.refused,
                "out": str(one.why) if one.told else None,
            }
            for one in sorted(self._members, key=lambda one: one.key.name)
        ]

    def serving(self) -> list[str]:
        """The names of the keys that are not refused."""
        return [one.key.name for one in self._members if not one.refusals]

    @property
    def notices(self) -> Sequence[str]:
        """What the user should know of quotas and keys."""
        found = dict.fromkeys(notice for one in self._members for notice in one.limiter.notices)
        return [*found, *refused_keys(self.states())]

    async def _first(self, tokens: int) -> _Member:
        """Wait for the first key that may send a request of so many tokens."""
        while True:
            now = asyncio.get_running_loop().time()
            for one in self._members:
                if one.rests_until <= now and one.limiter.delay(now, tokens) <= 0:
                    return one
            self._changed = asyncio.Event()
            waits = {asyncio.ensure_future(one.ready(tokens)): one for one in self._members}
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait([*waits, changed], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in [*waits, changed]:
                    task.cancel()
                await asyncio.gather(*waits, changed, return_exceptions=True)

    def _change(self) -> None:
        self._changed.set()

    def _member(self, admission: Admission) -> _Member:
        assert admission.key is not None
        return self._of[admission.key]
