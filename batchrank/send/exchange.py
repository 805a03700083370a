"""Sends one request once: waits for its slot, reserves its cost, speaks HTTP, and notes the outcome in the ledger."""

import asyncio
from collections.abc import Callable
from typing import cast

import anyio

from batchrank.data import Answer, Rejection
from batchrank.errors import BatchrankError
from batchrank.ledger.entries import Kind
from batchrank.ledger.groups import Group
from batchrank.ledger.ledger import Ledger
from batchrank.send.admission import Scheduler, Slot
from batchrank.send.budget import Reservation
from batchrank.send.connections import Key
from batchrank.send.encoder import Outgoing
from batchrank.send.fleet import Fleet
from batchrank.send.health import OutageDetector
from batchrank.send.rate import Kind as Throttled
from batchrank.send.retry import classify, possibly_billed, slows
from batchrank.send.spend import Spend
from batchrank.send.stats import Counts

_TRIALS = 5
"""Chunks that are tried before the endpoint has taken any request."""


class Exchange:
    """Sends requests; shared by all queries of a run.

    Args:
        wire: the wire format, whose words tell what a rejection means.
        counts: kept up to date.
        note: as in ``Gateway``.
    """

    def __init__(
        self,
        *,
        wire: str,
        ledger: Ledger,
        scheduler: Scheduler,
        spend: Spend,
        outage: OutageDetector,
        counts: Counts,
        note: Callable[[int, str], None],
    ) -> None:
        self._wire = wire
        self._note = note
        self._ledger = ledger
        self._scheduler = scheduler
        self._spend = spend
        self._outage = outage
        self._counts = counts
        self._reason: BatchrankError | None = None
        self._settled: asyncio.Event | None = None  # while somebody waits
        self._stopping = asyncio.Event()
        self._first = anyio.Lock()
        self._trials: set[tuple[int, int]] = set()
        self._unaffordable = 0

    def stop(self, reason: BatchrankError) -> None:
        """Send nothing more; requests in flight go on, whoever waits gets the reason raised."""
        self._reason = self._reason or reason
        self._scheduler.close(self._reason)
        self._stopping.set()
        self._notify()

    @property
    def gate(self) -> str | None:
        """What holds requests back now: ``outage``, ``budget``, ``rate`` or ``concurrency``; None for nothing."""
        if self._outage.down:
            return "outage"
        return "budget" if self._unaffordable else self._scheduler.gate

    @property
    def busy(self) -> bool:
        """Whether any request is on its way."""
        return self._scheduler.fleet.busy > 0

    @property
    def fleet(self) -> Fleet:
        """The servers that requests are sent to."""
        return self._scheduler.fleet

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
            self._settled = self._settled or asyncio.Event()
            await self._settled.wait()
        if self._reason is not None:
            raise self._reason

    async def pause(self, seconds: float) -> None:
        """Wait for so long, or until the run has to stop."""
        with anyio.move_on_after(seconds):
            await self._stopping.wait()

    async def send(self, request: Outgoing) -> Answer | Rejection:
        """One attempt; an answer is durable. Where only a key is refused, another one is used, once for each.

        Raises:
            BudgetReachedError: it could pass a cap.
            BatchrankError: the reason given to ``stop``.
        """
        refused = set[Key]()
        while True:
            outcome, key = await self._send(request)
            if key is None or key in refused:
                return outcome
            refused.add(key)

    async def _send(self, request: Outgoing) -> tuple[Answer | Rejection, Key | None]:
        """One attempt by one key; that if only the key was refused, and there is another one."""
        if not self._outage.accepted:
            await self._try_out(request)
        alone = self._spend.blind  # until a bill shows what requests cost, they go one at a time
        if alone:
            await self._first.acquire()
        slot: Slot | None = None
        try:
            if alone and not self._spend.blind:
                self._first.release()
                alone = False
            while True:
                slot = await self._scheduler.slot(
                    request.priority, request.predicted, request.met, request.only
                )
                if not self._outage.down or request.purpose == "probe":
                    break
                slot.release()  # while the endpoint is down only probes are sent
                while self._outage.down:
                    await self.settled()
            if self._spend.limited:
                await self._affordable(request)
            reservation = self._spend.reserve(request.predicted, request.documents)
            started: float | None = None
            try:
                admission, replica = slot.admission, slot.replica
                key_name = admission.key.name if admission.key else replica.key_name
                self._note(admission.charged, key_name)
                request.by = by = self._ledger.servers[replica.url, key_name]
                await (group := self._ledger.sent(request.key, request.predicted, request.documents, by))
                if request.key in group.answered:
                    known = (await self._ledger.find([request.key]))[request.key].outcome
                    self._spend.release(reservation)
                    self._notify()
                    return known, None
                self._scheduler.limiter.departed(admission)
                started = asyncio.get_running_loop().time()
                request.replica = replica
                outcome = await replica.http.post(request.body, request.documents, admission.key)
            except BaseException:
                self._abandon(request, reservation, posted=started is not None)
                raise
            durable = self._ended(request, outcome, reservation, slot, started)
            # The next request in this slot is noted as sent after this one's outcome, so no more of them than there
            # are slots can ever be without one.
            slot.release()
            if durable is not None:
                try:
                    await durable
                except asyncio.CancelledError:  # what is paid for is kept before this ends
                    with anyio.CancelScope(shield=True):
                        await durable
                    raise
            return outcome, slot.refused
        finally:
            if slot is not None and not slot.left:
                slot.release()
            if alone:
                self._first.release()

    async def _try_out(self, request: Outgoing) -> None:
        """Until the endpoint has taken a request, a few are tried: a wrong model or wire must not cost many."""
        query, _, chunk = request.priority  # which the parts of a chunk share
        while not self._outage.accepted and (query, chunk) not in self._trials and request.purpose != "probe":
            if len(self._trials) < _TRIALS:
                self._trials.add((query, chunk))
            else:
                await self.settled()

    def _ended(
        self,
        request: Outgoing,
        outcome: Answer | Rejection,
        reservation: Reservation,
        slot: Slot,
        started: float,
    ) -> Group | None:
        """Let everybody learn from what came back; what to wait for, if anything."""
        now = asyncio.get_running_loop().time()
        self._counts.requests += 1
        self._counts.latency += 0.1 * (now - started - self._counts.latency)
        answered, throttled = isinstance(outcome, Answer), False
        if isinstance(outcome, Answer):
            self._scheduler.answered(slot, now, now - started, probe=request.purpose == "probe")
        else:
            action = classify(outcome, self._wire)
            throttled = slows(action)
            slot.refused = self._scheduler.failed(slot, outcome, action, started, self._wire)
        self._counts.timeline.ended(
            started,
            now,
            documents=request.documents,
            tokens=request.predicted,
            in_flight=self._scheduler.fleet.busy,
            answered=answered,
            throttled=throttled,
        )
        try:
            if isinstance(outcome, Answer):
                self._scheduler.limiter.settle(slot.admission, outcome.tokens)
                return self._answered(request, outcome, reservation, now, started)
            return self._rejected(request, outcome, reservation, slot, started)
        finally:
            self._notify()

    async def _affordable(self, request: Outgoing) -> None:
        """Wait while the request could pass a cap, as those in flight may be billed less than was reserved."""
        self._unaffordable += 1
        try:
            while self._spend.in_flight and not self._spend.fits(request.predicted, request.documents):
                await self.settled()
        finally:
            self._unaffordable -= 1

    def _abandon(self, request: Outgoing, reservation: Reservation, *, posted: bool) -> None:
        """Cut off: if the request may have left, the ledger keeps it as in flight, and so ambiguous."""
        if posted:
            self._spend.lose(reservation)
            self._counts.ambiguous += 1
        else:
            self._spend.release(reservation)
            self._ledger.unsent(request.key)
        self._notify()

    def _answered(
        self, request: Outgoing, answer: Answer, reservation: Reservation, now: float, sent: float
    ) -> Group:
        """An answer: committed, billed."""
        tokens = request.predicted if answer.tokens is None else answer.tokens
        self._outage.succeeded(now, sent)
        if request.purpose == "probe":
            self._spend.settle_probe(reservation, tokens)
            what = Rejection(200, "probe", "asked whether the endpoint works", None, answer.request_id)
            return self._ledger.put_attempt(request.key, "probe", what, tokens, request.documents, request.by)
        self._spend.settle(reservation, answer.tokens, searches=answer.searches, exact=request.exact)
        self._counts.documents += request.documents
        self._counts.tokens += tokens
        return self._ledger.put(request.key, answer, request.predicted, request.about, request.by)

    def _rejected(
        self, request: Outgoing, why: Rejection, reservation: Reservation, slot: Slot, sent: float
    ) -> Group | None:
        """Anything else.

        1. A malformed answer, or an unknown fate: committed as possibly billed.
        2. Any other rejection: not billed, and nothing to wait for.
        """
        if possibly_billed(why, self._wire):
            self._spend.lose(reservation)
            malformed = why.code == "malformed"
            self._counts.malformed += malformed
            self._counts.ambiguous += not malformed
            # A probe tells only that the endpoint is down.
            if why.status in (None, 504) and request.purpose != "probe":
                self._scheduler.fleet.struggled(slot.replica, asyncio.get_running_loop().time())
            kind: Kind = "malformed" if malformed else "ambiguous"
            facts = request.predicted, request.documents, request.by
            return self._ledger.put_attempt(request.key, kind, why, *facts)
        self._scheduler.limiter.unbilled(slot.admission)
        self._spend.release(reservation)
        self._ledger.unsent(request.key)
        action = classify(why, self._wire)
        if slows(action):
            kind_of_429, by = cast(Throttled, action.value), slot.admission.key
            self._scheduler.limiter.throttled(kind_of_429, why.retry_after, sent=sent, by=by)
        return None

    def _notify(self) -> None:
        if self._settled is not None:
            self._settled.set()
            self._settled = None
