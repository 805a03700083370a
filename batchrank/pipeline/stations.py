"""Says what a run asks of what moves its queries, reads and writes them, as that may be in other processes."""

from typing import Protocol

from batchrank.errors import BatchrankError
from batchrank.outcomes import Failure
from batchrank.pipeline.checkpoint import Checkpoint
from batchrank.pipeline.summary import Completed, Totals


class Moving(Protocol):
    """What moves queries through the stages, as ``Flow`` does in this process."""

    @property
    def reason(self) -> BatchrankError | None:
        """Why it stops early."""

    @property
    def admitted_documents(self) -> int:
        """Documents of queries taken on so far."""

    @property
    def admitted(self) -> int:
        """Queries and records taken on so far."""

    @property
    def unfinished(self) -> int:
        """Queries under way."""

    @property
    def gate(self) -> str | None:
        """What holds queries back now."""

    @property
    def completed(self) -> Completed:
        """What came out of ranking so far."""

    def stop(self, reason: BatchrankError, *, drain: float | None = None) -> None:
        """Admit nothing more; None for the usual drain."""


class Reading(Protocol):
    """What tells how far the input was read."""

    @property
    def read(self) -> int:
        """Items so far."""

    @property
    def exhausted(self) -> bool:
        """Whether that is all."""


class Writing(Protocol):
    """What writes rankings, as ``Sink`` does in this process."""

    @property
    def totals(self) -> Totals:
        """The sums so far."""

    @property
    def held(self) -> int:
        """Rankings since the last part that was published."""

    @property
    def first_failure(self) -> Failure | None:
        """The first query or record that could not be ranked."""

    async def close(self, *, complete: bool) -> list[Checkpoint]:
        """End the part at hand."""
