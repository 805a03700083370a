"""Asks one request until it has an outcome: an answer, or a rejection that its halves have to be asked for.

A rejection decides something (the request is halved; of a single document, that document is lost) when it says so, or
when it comes again and again although the endpoint works. What is decided is in the ledger before it is acted on, so
that a run that goes on decides alike.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import replace

import anyio

from batchrank.errors import BatchrankError, QuotaError, RunStoppedError
from batchrank.ledger import Ledger
from batchrank.records import Answer, Rejection
from batchrank.retry import Action, advice, classify, delay, possibly_billed, resets, slows
from batchrank.send.counts import Counts
from batchrank.send.exchange import Exchange, Outgoing
from batchrank.send.outage import UNREACHABLE, OutageDetector
from batchrank.send.probe import Prober

log = logging.getLogger(__name__)

_PART_ATTEMPTS = 2
"""Tries of a part of a request that failed as a whole: each part's documents failed with the whole already."""
_MALFORMED_ATTEMPTS = 4
"""Tries of a request whose answers are of no use: each may have been billed."""
_ACCESS_ATTEMPTS = 3
"""Tries of a request that is denied while others aren't: a firewall's mind doesn't change, a rolling deploy is over
soon."""
_FOR_GOOD = (Action.REJECT, Action.STOP)
"""What asking again doesn't change. Words of money may be a text's own that the server repeats: so a probe is asked."""
_RECENT = 10.0
"""Seconds before a request's first try in which a success is reason enough to try again without asking whether the
endpoint works."""


class Client:
    """Asks through every failure; shared by all queries of a run.

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
        self, request: Outgoing, where: Callable[[], str], *, part: bool = False
    ) -> Answer | Rejection:
        """An answer, or a rejection that decides something.

        Args:
            request: what is asked.
            where: tells which request that is, for messages.
            part: whether it is a part of a request that failed as a whole.

        Raises:
            RunStoppedError: no request of this run can succeed.
            StoppedError: the run has to stop for now.
        """
        try:
            return await self._ask(request, where, part=part)
        except BatchrankError as error:
            self._exchange.stop(
                error
            )  # now: other requests of the query, for which this one waits, may be waiting too
            raise

    async def _ask(self, request: Outgoing, where: Callable[[], str], *, part: bool) -> Answer | Rejection:
        failures = costly = 0
        first = anyio.current_time()
        last: Rejection | None = None
        while True:
            started = anyio.current_time()
            outcome = await self._exchange.send(request)
            if isinstance(outcome, Answer):
                if last is not None and costly:
                    self._outage.wasted(costly, last)
                return outcome
            log.debug("attempt failed: %s", outcome)
            last, action = outcome, classify(outcome, self._wire)
            self._stop_if_hopeless(outcome, action, where)
            if action is Action.REFUSE:
                self._exchange.understood()
            if action in (Action.SPLIT, Action.REFUSE):
                return await self._decided(request, outcome, action, where)
            self._outage.failed(anyio.current_time(), outcome)
            if not slows(action):
                failures += outcome.code != UNREACHABLE
                costly += possibly_billed(outcome)
                enough = action in _FOR_GOOD or failures >= self._limit(outcome, action, part)
                now = anyio.current_time()
                hung = now - started > _RECENT  # what succeeded before it was sent tells nothing of now
                recent = now - _RECENT if hung else first
                if enough or not self._outage.works(recent if hung else first - _RECENT):
                    # Whether it is the request's own fault must be sure before that decides anything.
                    own = await self._prober.verify(started if enough else recent, outcome, where)
                    if own and enough:
                        return await self._decided(request, outcome, action, where)
                    if not own:
                        failures, first = 0, anyio.current_time()
            self._counts.retries[outcome.code or str(outcome.status)] += 1
            await self._exchange.pause(
                delay(max(1, failures), outcome.retry_after, self._max_delay, self._rng)
            )

    def _limit(self, outcome: Rejection, action: Action, part: bool) -> int:
        """How many failures of its own a request is given."""
        most = self._attempts
        if outcome.code == "malformed":
            most = min(most, _MALFORMED_ATTEMPTS)
        if action is Action.ACCESS:
            most = min(most, _ACCESS_ATTEMPTS)
        return min(most, _PART_ATTEMPTS) if part else most

    def _stop_if_hopeless(self, outcome: Rejection, action: Action, where: Callable[[], str]) -> None:
        if action is Action.WAIT:
            raise QuotaError(f"the quota is used up until {resets(outcome) or 'later'}: {outcome}")
        if action is not Action.STOP:
            return
        plain = replace(outcome, message="")
        if outcome.status in (402, 429) or classify(plain, self._wire) is Action.STOP:
            raise RunStoppedError(
                f"the API rejects every request: {where()}: {outcome}. {advice(outcome, self._wire)}"
            )

    async def _decided(
        self, request: Outgoing, outcome: Rejection, action: Action, where: Callable[[], str]
    ) -> Rejection:
        """Keep a rejection that decides something."""
        with anyio.CancelScope(shield=True):
            await self._ledger.put(request.key, outcome, request.predicted)
        if action is Action.SPLIT and request.documents == 1 and not self._outage.accepted:
            # Too large, though nothing could be smaller, and nothing was ever taken: these words mean something else.
            await self._prober.verify(anyio.current_time(), outcome, where)
        return outcome
