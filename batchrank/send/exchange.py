"""Sends one request once: its turn, its reservation, HTTP, and the entry in the ledger of what came of it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import anyio

from batchrank.data import Answer, Rejection
from batchrank.errors import BatchrankError
from batchrank.ledger.ledger import Ledger
from batchrank.limiter.limiter import Kind
from batchrank.send.admission import Dispatcher, Priority, Turn
from batchrank.send.budget import Reservation
from batchrank.send.health import OutageDetector
from batchrank.send.retry import classify, possibly_billed, slows
from batchrank.send.spend import Spend
from batchrank.send.stats import Counts
from batchrank.send.transport import Http

_TRIALS = 5
"""Chunks that are tried before the endpoint has taken any request."""


@dataclass(frozen=True, slots=True, eq=False)
class Outgoing:
    """One request on its way.

    Attributes:
        key: what the ledger knows it by.
        body: what is sent.
        documents: how many it holds.
        predicted: the tokens it is expected to cost; a count if ``exact``, else perhaps an upper bound.
        priority: query, round and chunk; the smallest goes first.
        purpose: why it is sent: a ``probe`` only tells whether the endpoint works.
    """

    key: bytes
    body: bytes
    documents: int
    predicted: int
    priority: Priority
    exact: bool
    purpose: Literal["scores", "probe"] = "scores"


class Exchange:
    """Sends requests; shared by all queries of a run.

    Args:
        wire: the wire format, whose words tell what a rejection means.
        counts: kept up to date.
    """

    def __init__(
        self,
        *,
        http: Http,
        wire: str,
        ledger: Ledger,
        dispatcher: Dispatcher,
        spend: Spend,
        outage: OutageDetector,
        counts: Counts,
    ) -> None:
        self._http = http
        self._wire = wire
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._spend = spend
        self._outage = outage
        self._counts = counts
        self._reason: BatchrankError | None = None
        self._settled = asyncio.Event()
        self._stopping = asyncio.Event()
        self._first = anyio.Lock()
        self._trials: set[tuple[int, int]] = set()

    def stop(self, reason: BatchrankError) -> None:
        """Send nothing more; requests in flight go on, whoever waits gets the reason raised."""
        self._reason = self._reason or reason
        self._dispatcher.close(self._reason)
        self._stopping.set()
        self._notify()

    @property
    def busy(self) -> bool:
        """Whether any request is on its way."""
        return self._dispatcher.places.busy > 0

    def understood(self) -> None:
        """Learn that model, route and format are right: an answer is known, or content was read and refused."""
        if not self._outage.accepted:
            self._outage.accepted = True
            self._notify()

    async def settled(self) -> None:
        """Wait until a request has come to its end.

        Raises:
            BatchrankError: the reason given to ``stop``.
        """
        if self._reason is None:
            await self._settled.wait()
        if self._reason is not None:
            raise self._reason

    async def pause(self, seconds: float) -> None:
        """Wait for so long, or until the run has to stop."""
        with anyio.move_on_after(seconds):
            await self._stopping.wait()

    async def send(self, request: Outgoing) -> Answer | Rejection:
        """One attempt; an answer is durable.

        Raises:
            BudgetReachedError: it could pass a cap.
            BatchrankError: the reason given to ``stop``.
        """
        if not self._outage.accepted:
            await self._try_out(request)
        if self._spend.blind:
            async with self._first:  # until a bill shows what requests cost, they go one at a time
                if self._spend.blind:
                    return await self._send(request)
        return await self._send(request)

    async def _try_out(self, request: Outgoing) -> None:
        """Until the endpoint has taken a request, a few are tried: a wrong model or wire must not cost many."""
        query, _, chunk = request.priority  # which the parts of a chunk share
        while not self._outage.accepted and (query, chunk) not in self._trials and request.purpose != "probe":
            if len(self._trials) < _TRIALS:
                self._trials.add((query, chunk))
            else:
                await self.settled()

    async def _send(self, request: Outgoing) -> Answer | Rejection:
        async with self._turn(request) as turn:
            reservation = await self._reserve(request)
            posted = False
            try:
                turn.announce()
                await self._ledger.sent(request.key, request.predicted, request.documents)
                turn.depart()
                posted, started = True, anyio.current_time()
                outcome = await self._http.post(request.body, request.documents)
            except BaseException:
                self._abandon(request, reservation, posted=posted)
                raise
            self._measure(request, started, outcome)
            try:
                durable = self._settle(request, outcome, reservation, turn, started)
            finally:
                self._notify()
            # The next request in this place is noted as sent after this one's outcome, so no more of them than there
            # are places can ever be without one.
            turn.leave()
            if durable is not None:
                with anyio.CancelScope(shield=True):
                    await durable
        return outcome

    @asynccontextmanager
    async def _turn(self, request: Outgoing) -> AsyncIterator[Turn]:
        """A turn to send something; while the endpoint is down only probes have one."""
        while True:
            async with self._dispatcher.turn(request.priority, request.predicted) as turn:
                if not self._outage.down or request.purpose == "probe":
                    yield turn
                    return
            while self._outage.down:
                await self.settled()

    def _measure(self, request: Outgoing, started: float, outcome: Answer | Rejection) -> None:
        now = anyio.current_time()
        answered = isinstance(outcome, Answer)
        self._counts.requests += 1
        self._counts.latency += 0.1 * (now - started - self._counts.latency)
        if answered:
            self._dispatcher.answered(now - started, request.predicted)
        self._counts.timeline.ended(
            started,
            now,
            documents=request.documents,
            tokens=request.predicted,
            in_flight=self._dispatcher.places.busy,
            answered=answered,
            throttled=isinstance(outcome, Rejection) and slows(classify(outcome, self._wire)),
        )

    async def _reserve(self, request: Outgoing) -> Reservation:
        """Set aside what the request may cost; what is in flight may turn out cheaper than feared, so wait for it."""
        predicted, documents = request.predicted, request.documents
        while self._spend.in_flight and self._reason is None and not self._spend.fits(predicted, documents):
            await self._settled.wait()
        if self._reason is not None:
            raise self._reason
        return self._spend.reserve(predicted, documents)

    def _abandon(self, request: Outgoing, reservation: Reservation, *, posted: bool) -> None:
        """Cut off: if the request may have left, the ledger keeps it as in flight, and so ambiguous."""
        if posted:
            self._spend.lose(reservation)
            self._counts.ambiguous += 1
        else:
            self._spend.release(reservation)
            self._ledger.unsent(request.key)
        self._notify()

    def _settle(
        self,
        request: Outgoing,
        outcome: Answer | Rejection,
        reservation: Reservation,
        turn: Turn,
        sent: float,
    ) -> Coroutine[Any, Any, None] | None:
        """Enter what came back into the ledger, and let everybody learn from it; what to wait for, if anything.

        1. An answer: committed, billed.
        2. A malformed answer, or an unknown fate: committed as possibly billed.
        3. Any other rejection: not billed.
        """
        if isinstance(outcome, Answer):
            turn.settle(outcome.tokens)
            return self._answered(request, outcome, reservation)
        if possibly_billed(outcome, self._wire):
            self._spend.lose(reservation)
            malformed = outcome.code == "malformed"
            self._counts.malformed += malformed
            self._counts.ambiguous += not malformed
            if (
                outcome.status in (None, 504) and request.purpose != "probe"
            ):  # which tells only that it is down
                self._dispatcher.places.struggled(anyio.current_time())
            return self._ledger.put_attempt(
                request.key,
                "malformed" if malformed else "ambiguous",
                outcome,
                request.predicted,
                request.documents,
            )
        turn.unbilled()
        self._spend.release(reservation)
        self._ledger.unsent(request.key)
        action = classify(outcome, self._wire)
        if slows(action):
            self._dispatcher.limiter.throttled(cast(Kind, action.value), outcome.retry_after, sent=sent)
        return None

    def _answered(
        self, request: Outgoing, answer: Answer, reservation: Reservation
    ) -> Coroutine[Any, Any, None]:
        predicted = request.predicted
        tokens = predicted if answer.tokens is None else answer.tokens
        self._outage.succeeded(anyio.current_time())
        if request.purpose == "probe":
            self._spend.settle_probe(reservation, tokens)
            what = Rejection(200, "probe", "asked whether the endpoint works", None, answer.request_id)
            return self._ledger.put_attempt(request.key, "probe", what, tokens, request.documents)
        self._spend.settle(reservation, answer.tokens, searches=answer.searches, exact=request.exact)
        self._counts.documents += request.documents
        self._counts.tokens += tokens
        return self._ledger.put(request.key, answer, predicted)

    def _notify(self) -> None:
        self._settled.set()
        self._settled = asyncio.Event()
