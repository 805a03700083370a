"""Foretells what a merge method sends for a list, by the list's shape alone, as if nothing were known of it."""

from dataclasses import dataclass
from typing import Any

from batchrank.merge.answers import Round
from batchrank.merge.start import start
from batchrank.models import searches
from batchrank.outcomes import Scores
from batchrank.planning.madeup import scrambled
from batchrank.shard.chunks import QueryShards


@dataclass(slots=True)
class Bill:
    """What one merge method would send; tokens and searches as predicted, seconds at the full quota."""

    requests: int = 0
    documents: int = 0
    tokens: int = 0
    searches: int = 0
    cost: float | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class Net(Bill):
    """What tonight's run would send, given what the ledger knows.

    Attributes:
        reused: documents that get a score although nothing is asked about them tonight.
        saved_tokens: tokens less than without the ledger.
        saved_cost: cost less than without it; None without a price.
    """

    reused: int = 0
    saved_tokens: int = 0
    saved_cost: float | None = None


class Forecast:
    """Requests, documents and searches of each merge method, by the shape of the list."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, tuple[int, ...]], tuple[int, int, int]] = {}

    def of(self, method: str, shards: QueryShards, top_k: int) -> tuple[int, int, int]:
        """Requests, documents and searches that a list would take."""
        lengths = tuple(len(chunk) for chunk in shards.chunks)
        if len(lengths) == 1:
            return 1, lengths[0], searches(lengths[0])
        key = method, top_k, lengths
        if key not in self._known:
            self._known[key] = self._drive(method, shards, top_k)
        return self._known[key]

    def _drive(self, method: str, shards: QueryShards, top_k: int) -> tuple[int, int, int]:
        requests = documents = searched = 0
        merging = start(method, shards, top_k=top_k)
        reply: Any = None
        while True:
            try:
                step = merging.send(reply)
            except StopIteration:
                return requests, documents, searched
            reply = "relative"
            if isinstance(step, Round):
                requests += len(step.chunks)
                documents += sum(map(len, step.chunks))
                searched += sum(searches(len(chunk)) for chunk in step.chunks)
                reply = [Scores(c.documents, scrambled(c.documents), i) for i, c in enumerate(step.chunks)]
