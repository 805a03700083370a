"""Serves the processes that rank: asks the endpoint and the ledger for them, a request that two of them ask once."""

import asyncio
from typing import Any

from batchrank.cluster.channel import Handler
from batchrank.cluster.messages import Standing
from batchrank.data import Answer, Rejection
from batchrank.errors import BatchrankError
from batchrank.ledger.entries import About, Recollection
from batchrank.ledger.ledger import Ledger
from batchrank.send.encoder import Outgoing
from batchrank.send.gateway import Gateway
from batchrank.send.stats import Counts

_COUNTED = ("reused_requests", "recalled", "saved_tokens", "saved_searches", "spared_tokens", "splits")
"""What is counted where it happens; the rest is counted here."""


class Account:
    """What all processes of a run share: the gateway and the ledger."""

    def __init__(self, gateway: Gateway, ledger: Ledger, counts: Counts) -> None:
        self._gateway = gateway
        self._ledger = ledger
        self._counts = counts
        self._asked: dict[bytes, asyncio.Event] = {}

    @property
    def gate(self) -> str | None:
        """What holds requests back now; None for nothing."""
        return self._gateway.gate

    @property
    def answered(self) -> int:
        """What those who rank have got so far: requests that came to an end, and what the ledger knew."""
        return self._counts.requests + self._counts.reused_requests + self._counts.recalled

    def stop(self, reason: BatchrankError) -> None:
        """Send nothing more; requests in flight go on, whoever waits gets the reason raised."""
        self._gateway.stop(reason)

    def stands(self, standing: Standing) -> None:
        """Count what processes that rank count themselves."""
        for name in _COUNTED:
            setattr(self._counts, name, getattr(standing, name))

    def handlers(self) -> dict[str, Handler]:
        """What a process that ranks may call."""
        return {
            "ask": self._ask,
            "understood": self._understood,
            "answered": self._answered,
            "compare": self._compare,
            "ranked": self._ranked,
            "find": self._ledger.find,
            "recollect": self._recollect,
            "refused": self._ledger.refused,
            "put": self._put,
            "adopt": self._adopt,
            "load_all": self._ledger.load_all,
            "save": self._ledger.save,
        }

    async def _ask(self, sent: tuple[Any, ...], where: str, part_of: Rejection | None) -> Answer | Rejection:
        key, body, documents, predicted, exact, priority, about = sent
        while (under_way := self._asked.get(key)) is not None:
            # By another process, or for one that died: its answer is on disk before the event is set.
            await under_way.wait()
            known = (await self._ledger.find([key])).get(key)
            if known is not None:
                return known.outcome
        self._asked[key] = done = asyncio.Event()
        request = Outgoing(
            key, body, documents, predicted=predicted, exact=exact, priority=priority, about=about
        )
        try:
            return await self._gateway.ask(request, lambda: where, part_of=part_of)
        finally:
            del self._asked[key]
            done.set()

    async def _understood(self) -> None:
        self._gateway.understood()

    async def _answered(self, body: bytes, documents: int, tokens: int) -> None:
        self._gateway.answered(Outgoing(b"", body, documents), tokens)

    async def _compare(self, predicted: int, billed: int, documents: int) -> None:
        self._gateway.compare(predicted, billed, documents)

    async def _ranked(self, query_id: str, seconds: float, requests: int, documents: int) -> None:
        self._counts.timeline.ranked(query_id, seconds, requests, documents)

    async def _recollect(
        self, questions: list[int], before: int, since: int
    ) -> dict[int, list[Recollection]]:
        return await self._ledger.recollect(questions, before=before, since=since)

    async def _put(
        self, key: bytes, outcome: Answer | Rejection, predicted: int, about: About | None
    ) -> None:
        await self._ledger.put(key, outcome, predicted, about)

    async def _adopt(self, old_key: bytes, key: bytes, about: About | None) -> None:
        self._ledger.adopt(old_key, key, about)
