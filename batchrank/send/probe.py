"""Finds out whether the endpoint works when nothing else tells, by a tiny request that is known to be good.

Without it a few bad queries could not be told from an outage once nothing but them is left to ask, as ordered output
admits no others then. While the endpoint is down, requests that failed wait here and only the probe is sent: an outage
costs a few tiny requests, and ends for all at once.
"""

import math
import random
import secrets
from collections.abc import Callable

import anyio

from batchrank.data import Answer, Rejection
from batchrank.errors import BatchrankError, QuotaError, RunStoppedError
from batchrank.send.encoder import Outgoing
from batchrank.send.exchange import Exchange
from batchrank.send.fleet import Fleet, Replica
from batchrank.send.health import OutageDetector
from batchrank.send.retry import Action, advice, classify, resets

_FIRST_PAUSE = 1.0
"""Seconds between two probes at first: few, as most outages are over in a moment."""
_LONGEST_PAUSE = 5.0
"""Seconds between two probes at most, as everything waits for them."""
_HANGING = 5.0
"""Seconds after which another probe is sent beside those that hang: an endpoint that is well again answers it at once,
while what it swallowed before is never answered."""
_REFUSALS = 4
"""Probes refused in a row before the run is called off: over some seven seconds, so that a rolling deploy doesn't look
like a revoked key."""
_FIRST_REFUSALS = 2
"""As many where the endpoint has never taken a request: then something is plainly wrong."""
_FIRST_DENIALS = 1
"""As many where it has never taken a request and lets nobody in."""
_DOUBTS = 3
"""Times in a row that the harmless document fails before it is doubted, and something is paid for again to see."""
_IN_VAIN = 3
"""Times that the harmless document fails while something else is answered before it is no longer asked."""
_REJECTED = (Action.REJECT, Action.REFUSE, Action.SPLIT, Action.ACCESS)


class Prober:
    """Asks one tiny request at a time, however many requests wait for the result.

    What is asked is a harmless document of our own. Should that fail, and have never succeeded, the smallest request
    that was ever answered is asked: an endpoint that answers that works, whatever it has against ours.

    Attributes:
        smallest: bytes of the smallest request answered so far.

    Args:
        exchange: sends requests.
        outage: what is known of the endpoint.
        harmless: the body of a request for one harmless document.
        wire: the wire format, whose words tell what a rejection means.
        max_delay: the longest pause that the API may ask for, seconds.
        rng: where the jitter comes from.
    """

    def __init__(
        self,
        exchange: Exchange,
        outage: OutageDetector,
        *,
        harmless: bytes,
        wire: str,
        max_delay: float,
        rng: random.Random,
    ) -> None:
        self._exchange = exchange
        self._outage = outage
        self._harmless = harmless
        self._harmless_works: bool | None = None
        self._in_vain = self._doubts = 0
        self._answered: tuple[bytes, int, int] | None = None
        self._met: list[Replica] = []
        self._smallest = math.inf
        self._wire = wire
        self._max_delay = max_delay
        self._rng = rng
        self._asking = anyio.Lock()
        self._failed_at = self._next_at = float("-inf")
        self._pause = _FIRST_PAUSE
        self._refusals = 0
        self._hopeless: RunStoppedError | QuotaError | None = None

    def answered(self, request: Outgoing, tokens: int) -> None:
        """Learn that a request was answered, now or earlier: the smallest tells later whether the endpoint works."""
        if len(request.body) < self._smallest:
            self._smallest = len(request.body)
            self._answered = request.body, request.documents, tokens

    async def verify(
        self, since: float, why: Rejection, where: Callable[[], str], *, sent: bool = False
    ) -> bool:
        """Wait until something has succeeded since a moment.

        Args:
            since: when an attempt began that failed.
            why: what came back of it.
            where: tells which request that was.
            sent: count only successes of what was sent after that moment.

        Returns:
            Whether the endpoint worked all the time, so that the failure was the request's own.

        Raises:
            RunStoppedError: the endpoint refuses even a harmless request.
            StoppedError: nothing has succeeded for too long, or the run has to stop.
        """
        while not self._outage.works(since, sent=sent):
            self._postpone(why)
            async with self._asking:
                if self._hopeless is not None:
                    raise self._hopeless
                await self._rest(since, sent=sent)
                if not self._outage.works(since, sent=sent):
                    await self._probe(why, where)
        return self._failed_at < since

    async def _rest(self, since: float, *, sent: bool) -> None:
        """Wait until the next probe is due, or something succeeds."""
        with anyio.move_on_after(self._next_at - anyio.current_time()):
            while not self._outage.works(since, sent=sent):
                await self._exchange.settled()

    async def _probe(self, why: Rejection, where: Callable[[], str]) -> None:
        outcome = await self.ask()
        now = anyio.current_time()
        if isinstance(outcome, Answer):
            self._pause, self._refusals = _FIRST_PAUSE, 0
            return
        self._failed_at = now
        self._next_at = now + self._pause * self._rng.uniform(0.8, 1)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        self._postpone(outcome)
        self._judge(outcome, why, where)
        self._outage.failed(now, outcome)

    async def ask(self, only: Replica | None = None) -> Answer | Rejection:
        """Ask, and again every few seconds while nothing comes back; what comes first decides.

        Args:
            only: the one server to ask; None for any in service.

        Raises:
            BatchrankError: the run has to stop, or must not spend any more.
        """
        ended: list[Answer | Rejection | BatchrankError] = []

        async def ask(scope: anyio.CancelScope) -> None:
            try:
                ended.append(await self._ask(only))
            except BatchrankError as error:
                ended.append(error)
            scope.cancel()

        async with anyio.create_task_group() as group:
            while True:
                group.start_soon(ask, group.cancel_scope)
                await anyio.sleep(_HANGING)
        if isinstance(ended[0], BatchrankError):
            raise ended[0]
        return ended[0]

    async def _ask(self, only: Replica | None) -> Answer | Rejection:
        if self._harmless_works is not False:
            # A token is a byte at least.
            outcome = await self._send(only, self._harmless, 1, len(self._harmless))
            self._doubts = 0 if isinstance(outcome, Answer) else self._doubts + 1
            if isinstance(outcome, Answer):
                self._harmless_works = True
            if self._harmless_works or self._answered is None or self._doubts < _DOUBTS:
                return outcome
        assert self._answered is not None
        outcome = await self._send(only, *self._answered)
        if isinstance(outcome, Answer):
            # The endpoint may have come back in between; not so often.
            self._in_vain += 1
            self._harmless_works = False if self._in_vain >= _IN_VAIN else None
        return outcome

    async def _send(
        self, only: Replica | None, body: bytes, documents: int, tokens: int
    ) -> Answer | Rejection:
        # Each probe has a key of its own, as each is billed.
        key = secrets.token_bytes(16)
        request = Outgoing(key, body, documents, tokens, purpose="probe", met=[*self._met], only=only)
        outcome = await self._exchange.send(request)
        if only is None and request.replica is not None:  # the next one asks another server
            others = self._exchange.fleet.others([*self._met, request.replica])
            self._met = [*self._met, request.replica] if others and isinstance(outcome, Rejection) else []
        return outcome

    def _postpone(self, why: Rejection) -> None:
        """Ask no earlier than the API wishes (Retry-After)."""
        if why.retry_after is not None and classify(why, self._wire) is not Action.WAIT:
            self._next_at = max(self._next_at, anyio.current_time() + min(why.retry_after, self._max_delay))

    def _judge(self, outcome: Rejection, why: Rejection, where: Callable[[], str]) -> None:
        """Call the run off where an answer means that no request can succeed."""
        action, accepted = classify(outcome, self._wire), self._outage.accepted
        refused = action in _REJECTED or (outcome.code == "malformed" and not accepted)
        self._refusals = self._refusals + 1 if refused else 0
        first = _FIRST_DENIALS if action is Action.ACCESS else _FIRST_REFUSALS
        each = self._exchange.fleet.serving  # one may be set up otherwise than the rest
        # Among the first requests some may be on their way still, and be accepted.
        enough = self._refusals >= max(_REFUSALS if accepted else first, each) and (
            accepted or not self._exchange.busy
        )
        if action is Action.STOP or enough:
            before = "refuses what it took before" if accepted else "has taken no request so far"
            self._hopeless = RunStoppedError(
                f"the API {before}: {where()}: {why}; a harmless request of one document: {outcome}. "
                f"{advice(outcome, self._wire)}"
            )
        elif action is Action.WAIT:
            self._hopeless = QuotaError(f"the quota is used up ({resets(outcome)}): {outcome}")
        if self._hopeless is not None:
            raise self._hopeless


class Reviver:
    """Sends the harmless request to servers that are out; ``serve`` runs in the run's task group.

    Args:
        fleet: the servers; who is asked and answers is brought back by the exchange, as every answer goes there.
        prober: asks.
        rng: where the jitter comes from.
    """

    def __init__(self, fleet: Fleet, prober: Prober, rng: random.Random) -> None:
        self._fleet = fleet
        self._prober = prober
        self._rng = rng

    async def serve(self) -> None:
        """Watch all servers until cancelled."""
        async with anyio.create_task_group() as group:
            for replica in self._fleet.replicas:
                group.start_soon(self._watch, replica)

    async def _watch(self, replica: Replica) -> None:
        while True:
            await replica.went_out.wait()
            await anyio.sleep(replica.pause * self._rng.uniform(0.8, 1))
            try:
                outcome = await self._prober.ask(replica)
            except BatchrankError:
                return  # the run stops, or may not spend any more; either is told by those who ask for scores
            if isinstance(outcome, Rejection):
                replica.pause = max(replica.pause, min(2 * replica.pause, _LONGEST_PAUSE))
