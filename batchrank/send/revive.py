"""Asks each server that was taken out every few seconds whether it works again, while the others carry on."""

import random

import anyio

from batchrank.data import Rejection
from batchrank.errors import BatchrankError
from batchrank.send.fleet import Fleet, Replica
from batchrank.send.probe import Prober

_LONGEST_PAUSE = 5.0
"""Seconds between two probes at most, as for a whole endpoint that is down."""


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
