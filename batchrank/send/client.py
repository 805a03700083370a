"""Asks one request until it has an outcome: an answer, or a rejection after which its halves have to be asked.

After a rejection, a request of several documents is halved, and one of a single document loses it. That is decided
where the rejection says so, or where it comes again and again although the endpoint works. The decision is in the
ledger before it is acted on, so that a resumed run decides alike.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from batchrank.data import Answer, Rejection
from batchrank.errors import BatchrankError, RunStoppedError
from batchrank.ledger.ledger import Ledger
from batchrank.send.encoder import Outgoing
from batchrank.send.exchange import Exchange
from batchrank.send.health import UNREACHABLE, OutageDetector
from batchrank.send.probe import Prober
from batchrank.send.retry import (
    Action,
    advice,
    classify,
    delay,
    gone,
    possibly_billed,
    slows,
    speaks_for_itself,
)
from batchrank.send.stats import Counts

log = logging.getLogger(__name__)

_PART_ATTEMPTS = 2
"""Tries of half a request, if it fails as the whole did: its documents failed with the whole already."""
_MALFORMED_ATTEMPTS = 4
"""Tries of a request whose answers are unusable: each may have been billed."""
_ACCESS_ATTEMPTS = 3
"""Tries of a request that is denied while others aren't: a firewall's mind doesn't change, a rolling deploy is over
soon."""
_TIMEOUT_ATTEMPTS = 3
"""Tries of a request that takes too long: each holds its query up for ``endpoint.timeout``."""
_THROTTLED_ATTEMPTS = 8
"""Tries of a request that is throttled again and again while others are accepted: it may be more than a minute's quota
holds, which no waiting changes."""
_FOR_GOOD = (Action.REJECT, Action.STOP, Action.WAIT)
"""What asking again doesn't change. Words of money may be a text's own that the server repeats: so a probe is asked."""
_RECENT = 10.0
"""Seconds before a request's first try in which a success is reason enough to try again without asking whether the
endpoint works."""


class Client:
    """Asks a request again after each failure, until it has an outcome; shared by all queries of a run.

    Args:
        wire: the wire format, whose words tell what a rejection means.
        attempts: tries per request; being throttled doesn't count as one, nor does meeting an outage.
        max_delay: longest pause between two tries, seconds.
        rng: where the jitter comes from.
        counts: kept up to date.
    """

    def __init__(
        self,
        exchange: Exchange,
        prober: Prober,
        outage: OutageDetector,
        ledger: Ledger,
        *,
        wire: str,
        attempts: int,
        max_delay: float,
        rng: random.Random,
        counts: Counts,
    ) -> None:
        self._exchange = exchange
        self._prober = prober
        self._outage = outage
        self._ledger = ledger
        self._wire = wire
        self._attempts = attempts
        self._max_delay = max_delay
        self._rng = rng
        self._counts = counts

    async def ask(
        self, request: Outgoing, where: Callable[[], str], *, part_of: Rejection | None = None
    ) -> Answer | Rejection:
        """Ask until there is an answer, or a rejection that has to be acted on.

        Args:
            request: what is asked.
            where: tells which request that is, for messages.
            part_of: how the request failed that this is a part of; None for a whole one.

        Raises:
            RunStoppedError: no request of this run can succeed.
            StoppedError: the run has to stop for now.
        """
        tries = _Tries(self._attempts, part_of)
        clock = asyncio.get_running_loop()
        first = clock.time()
        try:
            while True:
                started = clock.time()
                outcome = await self._exchange.send(request)
                if isinstance(outcome, Answer):
                    if tries.last is not None and tries.costly:
                        self._outage.wasted(tries.costly, tries.last)
                    return outcome
                decided = await self._failed(request, outcome, tries, first, started, where)
                if decided is not None:
                    return decided
                if tries.last is None:  # it was the endpoint's fault: the count begins anew
                    first = clock.time()
                self._counts.retries[outcome.code or str(outcome.status)] += 1
                if not tries.elsewhere:
                    await self._exchange.pause(
                        delay(max(1, tries.failures), outcome.retry_after, self._max_delay, self._rng)
                    )
        except BatchrankError as error:
            # Now: other requests of the query, for which this one's task waits, may be waiting too.
            self._exchange.stop(error)
            raise

    async def _failed(
        self,
        request: Outgoing,
        outcome: Rejection,
        tries: "_Tries",
        first: float,
        started: float,
        where: Callable[[], str],
    ) -> Rejection | None:
        """Learn from a failed try; return the rejection if it has to be acted on, None if it is to be asked again.

        Args:
            request: what was asked.
            outcome: what came back.
            tries: what became of its tries; as new where the endpoint was at fault.
            first: when the first of these tries began, seconds.
            started: when this try began.
            where: tells which request it is.
        """
        log.debug("attempt failed: %s", outcome)
        action, costly = classify(outcome, self._wire), possibly_billed(outcome, self._wire)
        tries.elsewhere = self._elsewhere(request, outcome, action)
        if tries.elsewhere and not costly:
            return None
        self._stop_if_hopeless(outcome, action, where)
        if action is Action.REFUSE:
            self._exchange.understood()
        if action in (Action.SPLIT, Action.REFUSE):
            return await self._decided(request, outcome, action, where)
        now = anyio.current_time()
        if request.replica is None or not request.replica.out:  # what is out tells nothing of the endpoint
            self._outage.failed(now, outcome)
        enough = tries.failed(outcome, action, costly=costly)
        if tries.elsewhere and not (enough and action is not Action.REJECT):
            return None
        hung = now - started > _RECENT  # what succeeded before it was sent tells nothing of now
        if enough or not (slows(action) or self._outage.works((now if hung else first) - _RECENT)):
            # Whether it is the request's own fault must be sure before that decides anything.
            since = started if enough else now - _RECENT if hung else first
            # Once an account's quota or money is used up, what is under way is answered all the same.
            account = action in (Action.STOP, Action.WAIT)
            own = await self._prober.verify(now if account else since, outcome, where, sent=account)
            if own and enough:
                return await self._decided(request, outcome, action, where)
            if not own:
                tries.forget()
        return None

    def _elsewhere(self, request: Outgoing, why: Rejection, action: Action) -> bool:
        """Note where a request failed, so that it is asked elsewhere; whether that is to be done at once.

        1. Its server is gone, and there is another one: yes.
        2. It is rejected for a reason that nothing explains: once, as a server may be set up otherwise than the rest.
        """
        fleet, met = self._exchange.fleet, request.met
        if slows(action) or request.replica is None:
            return False
        met.append(request.replica)
        if not fleet.others(met):
            met[:] = [request.replica]
            return False
        return gone(why) or (action is Action.REJECT and len(met) == 1)

    def _stop_if_hopeless(self, outcome: Rejection, action: Action, where: Callable[[], str]) -> None:
        if action is Action.STOP and speaks_for_itself(outcome, self._wire):
            raise RunStoppedError(
                f"the API rejects every request: {where()}: {outcome}. {advice(outcome, self._wire)}"
            )

    async def _decided(
        self, request: Outgoing, outcome: Rejection, action: Action, where: Callable[[], str]
    ) -> Rejection:
        """Keep a rejection that is acted on."""
        with anyio.CancelScope(shield=True):
            await self._ledger.put(request.key, outcome, request.predicted, request.about, request.by)
        if action is Action.SPLIT and request.documents == 1 and not self._outage.accepted:
            # Too large, though nothing could be smaller, and nothing was ever taken: these words mean something else.
            await self._prober.verify(anyio.current_time(), outcome, where)
        return outcome


@dataclass(slots=True)
class _Tries:
    """What became of a request's tries so far, and whether there have been enough.

    Attributes:
        attempts: failures that a request is given in general.
        part_of: how the request failed that this is a part of; None for a whole one.
        failures: tries that failed; the limiter sees to those that were throttled.
        costly: those that may have been billed.
        last: what came back last.
        elsewhere: whether the next try is made at once, at another server.
    """

    attempts: int
    part_of: Rejection | None
    failures: int = 0
    costly: int = 0
    last: Rejection | None = None
    elsewhere: bool = False
    _alike: int = 0
    _kinds: dict[str, int] = field(default_factory=dict)
    _throttled: int = 0

    def forget(self) -> None:
        """Forget the failures so far, because it was the endpoint that failed."""
        self.failures = self.costly = self._alike = self._throttled = 0
        self.last, self._kinds = None, {}

    def failed(self, why: Rejection, action: Action, *, costly: bool) -> bool:
        """Count a failure; whether it was one too many, if it was the request's own."""
        self.last = why
        self.costly += costly
        if slows(action):
            self._throttled += 1
            return self._throttled >= _THROTTLED_ATTEMPTS
        if why.code == UNREACHABLE:
            return False
        self.failures += 1
        self._alike += self.part_of is not None and _alike(why, self.part_of)
        timed_out = why.code == "timeout"
        return (
            action in _FOR_GOOD
            or self._alike >= (1 if timed_out else _PART_ATTEMPTS)
            or self.failures >= self.attempts
            or self._count(why, action) >= _most(why, action)
        )

    def _count(self, why: Rejection, action: Action) -> int:
        """Failures of this kind so far, this one included."""
        kind = "access" if action is Action.ACCESS else why.code
        self._kinds[kind] = self._kinds.get(kind, 0) + 1
        return self._kinds[kind]


def _most(why: Rejection, action: Action) -> int:
    """Failures of this kind that a request is given at most."""
    if action is Action.ACCESS:
        return _ACCESS_ATTEMPTS
    return {"malformed": _MALFORMED_ATTEMPTS, "timeout": _TIMEOUT_ATTEMPTS}.get(why.code, 10**6)


def _alike(one: Rejection, other: Rejection) -> bool:
    """Whether two requests failed in the same way."""
    return (one.status, one.code) == (other.status, other.code)
