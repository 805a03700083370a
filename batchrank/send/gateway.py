"""Holds what a run has once between its queries and the endpoint, so that whoever ranks need know nothing of it.

Several processes may rank one run's queries. All of them ask through one gateway, which alone sends: one limiter, one
cap, one outage, whoever asks.
"""

import random
from collections.abc import Callable
from typing import Protocol

import anyio

from batchrank.data import Answer, Rejection
from batchrank.errors import BatchrankError
from batchrank.ledger.ledger import Ledger
from batchrank.send.admission import Scheduler
from batchrank.send.client import Client
from batchrank.send.encoder import Outgoing
from batchrank.send.exchange import Exchange
from batchrank.send.health import OutageDetector
from batchrank.send.probe import Prober, Reviver
from batchrank.send.spend import Spend
from batchrank.send.stats import Counts


class Asking(Protocol):
    """What those who rank ask of the gateway."""

    @property
    def counted(self) -> bool:
        """Whether a cap holds, so that tokens must be predicted by a count."""

    @property
    def gate(self) -> str | None:
        """What holds requests back now; None for nothing."""

    async def ask(
        self, request: Outgoing, where: Callable[[], str], *, part_of: Rejection | None = None
    ) -> Answer | Rejection:
        """Ask until there is an answer, or a rejection that has to be acted on, as ``Client.ask`` tells."""

    def understood(self) -> None:
        """Learn that the endpoint took a request like those of this run before."""

    def answered(self, request: Outgoing, tokens: int) -> None:
        """Learn that a request was answered, now or earlier, and what it cost."""

    def compare(self, predicted: int, billed: int, documents: int) -> None:
        """Learn how a bill differs from an exact count of the same request."""

    def stop(self, reason: BatchrankError) -> None:
        """Send nothing more; requests in flight go on, whoever waits gets the reason raised."""


class Gateway:
    """The run's only way to the endpoint.

    Attributes:
        spend: the run's account.
        counts: what has happened so far.
        counted: whether a cap holds, so that tokens must be predicted by a count.
        reviver: asks servers that were taken out; to be served beside the run.

    Args:
        wire: the wire format, whose words tell what a rejection means.
        harmless: the body of a request that no endpoint has a reason to fail.
        accepted: whether the endpoint has taken a request of this run before.
        attempts: tries per request; being throttled doesn't count as one.
        max_delay: longest pause between two tries, seconds.
        outage: seconds without any success after which the run stops.
        rng: where the jitter comes from.
        note: told of each request that is about to be sent: what it counts as, and its key's name.
    """

    def __init__(
        self,
        *,
        wire: str,
        harmless: bytes,
        ledger: Ledger,
        scheduler: Scheduler,
        spend: Spend,
        attempts: int,
        max_delay: float,
        outage: float,
        accepted: bool,
        rng: random.Random,
        note: Callable[[int, str], None],
    ) -> None:
        self.spend = spend
        self.counts = Counts()
        self._outage = OutageDetector(outage, accepted=accepted)
        self._exchange = Exchange(
            wire=wire, ledger=ledger, scheduler=scheduler, spend=spend, outage=self._outage, counts=self.counts,
            note=note,
        )  # fmt: skip
        prober = Prober(
            self._exchange, self._outage, harmless=harmless, wire=wire, max_delay=max_delay, rng=rng
        )
        self.reviver = Reviver(scheduler.fleet, prober, rng)
        client = Client(
            self._exchange, prober, self._outage, ledger,
            wire=wire, attempts=attempts, max_delay=max_delay, rng=rng, counts=self.counts,
        )  # fmt: skip
        self.counted = spend.capped
        self.ask = client.ask
        self.answered = prober.answered
        self.understood = self._exchange.understood
        self.compare = spend.compare
        self.stop = self._exchange.stop

    @property
    def gate(self) -> str | None:
        """What holds requests back now, as the exchange tells."""
        return self._exchange.gate

    def trouble(self) -> str | None:
        """What is wrong, while nothing succeeds; None while all is well."""
        return self._outage.trouble(anyio.current_time())
