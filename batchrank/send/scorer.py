"""Says what ranking asks of sending, because a plan ranks without sending anything."""

from typing import Protocol

from batchrank.data import Rejection
from batchrank.errors import BatchrankError
from batchrank.outcomes import Chunk, Scores
from batchrank.send.encoder import Encoder
from batchrank.send.requests import QueryContext, Recall
from batchrank.send.retry import Action
from batchrank.send.stats import Counts


class Scorer(Protocol):
    """What gives chunks their scores."""

    @property
    def encoder(self) -> Encoder:
        """What makes requests."""

    @property
    def recall(self) -> Recall:
        """What the ledger knows."""

    @property
    def counts(self) -> Counts:
        """What has happened so far."""

    @property
    def gate(self) -> str | None:
        """What holds requests back now; None for nothing."""

    async def score(self, context: QueryContext, chunk: Chunk, number: int, *, turn: int) -> list[Scores]:
        """The scores of a round's chunk, as ``Sender.score`` tells."""

    def meaning(self, why: Rejection) -> Action:
        """What a rejection calls for."""

    def stop(self, reason: BatchrankError) -> None:
        """Send nothing more."""
