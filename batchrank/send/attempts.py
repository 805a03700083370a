"""One request until it has an outcome: turn, reservation, HTTP, retries; what comes back is durable first."""

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any

import anyio

from batchrank.errors import BatchrankError, QueryError, RunStoppedError
from batchrank.ledger import Ledger
from batchrank.records import Answer, Rejection
from batchrank.retry import Action, advice, classify, delay, slows
from batchrank.send.counts import Counts
from batchrank.send.dispatch import Dispatcher, Priority
from batchrank.send.health import UNREACHABLE, Health
from batchrank.send.http import Http
from batchrank.send.spend import Reservation, Spend

log = logging.getLogger(__name__)


class Attempts:
    """Asks the API, through every failure; shared by all queries of a run.

    Args:
        attempts: tries per request; being throttled doesn't count as one, nor does meeting an outage.
        max_delay: longest pause between two tries, seconds.
        rng: where the jitter comes from.
        counts: kept up to date.
    """

    def __init__(
        self,
        *,
        http: Http,
        ledger: Ledger,
        dispatcher: Dispatcher,
        spend: Spend,
        health: Health,
        attempts: int,
        max_delay: float,
        rng: random.Random,
        counts: Counts,
    ) -> None:
        self._http = http
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._spend = spend
        self._health = health
        self._attempts = attempts
        self._max_delay = max_delay
        self._rng = rng
        self._counts = counts
        self._reason: BatchrankError | None = None
        self._stopping = asyncio.Event()
        self._settled = asyncio.Event()
        self._first = anyio.Lock()

    def stop(self, reason: BatchrankError) -> None:
        """Send nothing more; requests in flight go on, whoever waits gets the reason raised."""
        self._reason = self._reason or reason
        self._dispatcher.close(self._reason)
        self._stopping.set()
        self._notify()

    async def ask(
        self, key: bytes, body: bytes, documents: int, predicted: int, priority: Priority, *, exact: bool
    ) -> Answer | Rejection:
        """An answer, or a rejection that calls for the request's halves; both durable.

        Raises:
            QueryError: no usable answer in all attempts, or a rejection of this request.
            RunStoppedError: no request of this run can succeed.
            StoppedError: the run has to stop for now.
        """
        attempts = tries = 0
        while True:
            outcome = await self._attempt(key, body, documents, predicted, priority, exact=exact)
            if isinstance(outcome, Answer):
                return outcome
            action = classify(outcome)
            if action in (Action.STOP, Action.ACCESS, Action.WAIT):
                raise RunStoppedError(f"the API rejects every request: {outcome}. {advice(outcome)}")
            if action in (Action.SPLIT, Action.REFUSE):
                return outcome
            if action is Action.REJECT:
                raise QueryError("rejected", f"the API rejected a request: {outcome}", attempts=attempts + 1)
            now = anyio.current_time()
            if slows(action):
                self._health.throttled(now, outcome)
            else:
                tries += 1
                attempts += self._health.failed(priority[0], now, outcome, costly=_costly(outcome))
            if attempts >= self._attempts:
                raise QueryError(
                    "no-answer",
                    f"no usable answer in {attempts} attempts; the last: {outcome}",
                    attempts=attempts,
                )
            self._counts.retries[outcome.code or str(outcome.status)] += 1
            with anyio.move_on_after(delay(max(1, tries), outcome.retry_after, self._max_delay, self._rng)):
                await self._stopping.wait()

    async def _attempt(
        self, key: bytes, body: bytes, documents: int, predicted: int, priority: Priority, *, exact: bool
    ) -> Answer | Rejection:
        if self._spend.blind:
            async with self._first:  # until a bill shows what requests cost, they go one at a time
                if self._spend.blind:
                    return await self._send(key, body, documents, predicted, priority, exact)
        return await self._send(key, body, documents, predicted, priority, exact)

    async def _send(
        self, key: bytes, body: bytes, documents: int, predicted: int, priority: Priority, exact: bool
    ) -> Answer | Rejection:
        async with self._dispatcher.turn(priority, predicted) as turn:
            reservation = await self._reserve(predicted, documents)
            posted = False
            try:
                await self._ledger.sent(key, reservation.tokens)
                turn.depart()
                posted, started = True, anyio.current_time()
                outcome = await self._http.post(body, documents)
            except BaseException:
                self._abandon(key, reservation, posted=posted)
                raise
            self._counts.requests += 1
            latency = anyio.current_time() - started
            self._counts.latency += 0.1 * (latency - self._counts.latency)
            if isinstance(outcome, Answer):
                self._dispatcher.answered(latency, predicted)
            self._measure(started, documents, predicted, outcome)
            try:
                durable = self._settle(key, outcome, reservation, started, exact=exact)
            finally:
                self._notify()
            # The next request in this place is noted as sent after this one's outcome, so no more of them than there
            # are places can ever be without one.
            turn.leave()
            if durable is not None:
                with anyio.CancelScope(shield=True):
                    await durable
        return outcome

    def _measure(self, started: float, documents: int, predicted: int, outcome: Answer | Rejection) -> None:
        self._counts.timeline.ended(
            started,
            anyio.current_time(),
            documents=documents,
            tokens=predicted,
            in_flight=self._dispatcher.places.busy,
            answered=isinstance(outcome, Answer),
            throttled=isinstance(outcome, Rejection) and slows(classify(outcome)),
        )

    async def _reserve(self, predicted: int, documents: int) -> Reservation:
        """Set aside what the request may cost; what is in flight may turn out cheaper than feared, so wait for it."""
        while self._spend.in_flight and self._reason is None and not self._spend.fits(predicted, documents):
            await self._settled.wait()
        if self._reason is not None:
            raise self._reason
        return self._spend.reserve(predicted, documents)

    def _abandon(self, key: bytes, reservation: Reservation, *, posted: bool) -> None:
        """Cut off: if the request may have left, the ledger keeps it as in flight, and so ambiguous."""
        if posted:
            self._spend.lose(reservation)
            self._counts.ambiguous += 1
        else:
            self._spend.release(reservation)
            self._ledger.unsent(key)
        self._notify()

    def _settle(
        self, key: bytes, outcome: Answer | Rejection, reservation: Reservation, sent: float, *, exact: bool
    ) -> Coroutine[Any, Any, None] | None:
        """Enter what came back into the ledger, and let everybody learn from it; what to wait for, if anything.

        1. An answer: committed, billed.
        2. A rejection that decides something: committed, not billed.
        3. A malformed answer, or an unknown fate: committed as perhaps billed.
        4. Any other rejection: not billed.
        """
        predicted = reservation.predicted
        if isinstance(outcome, Answer):
            tokens = predicted if outcome.tokens is None else outcome.tokens
            self._spend.settle(reservation, outcome.tokens, exact=exact)
            self._dispatcher.limiter.settle(predicted, tokens)
            self._health.succeeded()
            self._counts.documents += reservation.documents
            self._counts.tokens += tokens
            return self._ledger.put(
                key, outcome, predicted if outcome.tokens is not None else reservation.tokens
            )
        log.debug("attempt failed: %s", outcome)
        action = classify(outcome)
        if action in (Action.SPLIT, Action.REFUSE):
            self._spend.release(reservation)
            self._health.succeeded()
            return self._ledger.put(key, outcome, predicted)
        if outcome.code == "malformed":
            self._spend.lose(reservation)
            self._counts.malformed += 1
            return self._ledger.put_attempt(key, "malformed", outcome, reservation.tokens)
        if _costly(outcome):
            self._spend.lose(reservation)
            self._counts.ambiguous += 1
            self._dispatcher.places.struggled(anyio.current_time())
            return self._ledger.put_attempt(key, "ambiguous", outcome, reservation.tokens)
        self._spend.release(reservation)
        self._ledger.unsent(key)
        if slows(action):
            assert action.value in ("requests", "tokens", "growth")
            self._dispatcher.limiter.throttled(action.value, outcome.retry_after, sent=sent)
        return None

    def _notify(self) -> None:
        self._settled.set()
        self._settled = asyncio.Event()


def _costly(outcome: Rejection) -> bool:
    """Whether an attempt may have been billed: an unusable answer, or a fate unknown."""
    unknown = outcome.status is None and outcome.code not in (UNREACHABLE, "certificate")
    return unknown or outcome.code == "malformed"
