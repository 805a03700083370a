"""Defines what ranking makes of each query or bad record, and counts it, for whoever moves, writes or sums up."""

from collections.abc import Sequence
from dataclasses import dataclass

from batchrank.errors import Place, QueryError
from batchrank.outcomes import Failure, Ranking
from batchrank.pipeline.prepare import Prepared

LOST = "document-lost"
"""The cause of dead letters about a document that no request was accepted with."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of one query or bad record.

    Attributes:
        position: its place among all that was read.
        result: the ranking or the dead letter.
        part: its part's number, place: its place in it, from 0, and last: whether the part ends with it.
        lost: dead letters of documents in the ranking that could not be sent, or that no request was accepted with.
        truncated: texts of the query that were cut.
        unreadable: whether reading found the fault, so that reading again will find it again.
    """

    position: int
    result: Ranking | Failure
    part: int = 0
    place: int = 0
    last: bool = False
    lost: Sequence[Failure] = ()
    truncated: int = 0
    unreadable: bool = False

    @classmethod
    def of(cls, prepared: Prepared, result: Ranking | Failure, lost: Sequence[Failure] = ()) -> "Outcome":
        """What became of a query that was prepared; a failed one has no texts that were cut."""
        truncated = prepared.truncated if isinstance(result, Ranking) else 0
        return cls(prepared.position, result, prepared.part, prepared.place, prepared.last, lost, truncated)


@dataclass(slots=True)
class Completed:
    """What came out of ranking, written or not: items, their documents, those of rankings, the tokens behind these."""

    items: int = 0
    documents: int = 0
    ranked: int = 0
    tokens: int = 0

    def add(self, outcome: Outcome, documents: int) -> None:
        """Count one item of so many candidates."""
        self.items += 1
        self.documents += documents
        if isinstance(outcome.result, Ranking):
            self.ranked += documents
            self.tokens += outcome.result.cost.tokens

    def __add__(self, other: "Completed") -> "Completed":
        return Completed(
            self.items + other.items, self.documents + other.documents, self.ranked + other.ranked,
            self.tokens + other.tokens,
        )  # fmt: skip


def failure_record(place: Place, query_id: str | None, error: QueryError) -> Failure:
    """The dead letter of a query that can't be ranked."""
    return Failure(place, query_id, error.cause, str(error), error.attempts)
