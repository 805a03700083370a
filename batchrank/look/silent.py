"""Gives chunks their scores from the ledger alone, and notes which requests they are from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio

from batchrank.data import Answer, Positions, Purpose, Query, Rejection
from batchrank.errors import BatchrankError, QueryError
from batchrank.job.config import Job
from batchrank.ledger.entries import Known
from batchrank.ledger.glance import Glance
from batchrank.outcomes import Chunk, Scores
from batchrank.pipeline.endpoint import codec, encoder
from batchrank.send.encoder import Outgoing
from batchrank.send.requests import QueryContext, Recall
from batchrank.send.retry import Action
from batchrank.send.sender import Sender
from batchrank.send.stats import Counts


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A request of the query, and what the ledger knows of it.

    Attributes:
        round: its round, from 1.
        chunk: its chunk in that round, from 1.
        purpose: why it was sent.
        documents: positions of its documents, in request order.
        key: what the ledger knows it by.
        known: its answer or rejection.
    """

    round: int
    chunk: int
    purpose: Purpose
    documents: Positions
    key: bytes
    known: Known


class _Mute:
    """A gateway that asks nothing: an answer that the ledger lacks fails the query."""

    counted = False
    gate = None

    async def ask(
        self, request: Outgoing, where: Callable[[], str], *, part_of: Rejection | None = None
    ) -> Answer | Rejection:
        """Nothing can be asked."""
        raise QueryError("not-asked", where())

    def understood(self) -> None:
        """Nothing is learned of the endpoint."""

    def answered(self, request: Outgoing, tokens: int) -> None:
        """Likewise."""

    def compare(self, predicted: int, billed: int, documents: int) -> None:
        """Likewise."""

    def stop(self, reason: BatchrankError) -> None:
        """Nothing is under way."""


class Silent(Sender):
    """A sender that sends nothing, and notes what it looked up."""

    recall: "_Witness"

    def __init__(self, job: Job, ledger: Glance) -> None:
        make = encoder(job, codec(job), legacy=ledger.legacy)
        super().__init__(encoder=make, wire=job.wire, ledger=ledger, gateway=_Mute(), counts=Counts())
        self.recall = _Witness(ledger, make, (), lambda why: self.meaning(why) is Action.SPLIT)
        self._turn = anyio.Lock()

    @property
    def asked(self) -> list[Asked]:
        """The requests that the ledger knows."""
        return self.recall.asked

    async def score(self, context: QueryContext, chunk: Chunk, number: int, *, turn: int) -> list[Scores]:
        """The scores of a chunk; one chunk at a time, so that each request can be told to be its."""
        async with self._turn:
            self.recall.at = (context, turn, number)
            return await super().score(context, chunk, number, turn=turn)


class _Witness(Recall):
    """Notes what was looked up and found."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked: list[Asked] = []
        self.at: tuple[QueryContext, int, int] | None = None
        self._purpose: Purpose = "pass"

    def request(self, context: QueryContext, documents: Positions, purpose: Purpose) -> Outgoing:
        """As ever."""
        self._purpose = purpose
        return super().request(context, documents, purpose)

    async def known(
        self, query: Query, documents: Positions, request: Outgoing, *, aside: bool = False
    ) -> Known | None:
        """As ever."""
        purpose = self._purpose
        found = await super().known(query, documents, request, aside=aside)
        if found is not None and self.at is not None:
            context, turn, number = self.at
            if query is context.query:  # not the harmless one that tells whether it is the query that fails
                self.asked.append(Asked(turn + 1, number + 1, purpose, documents, request.key, found))
        return found
