"""Says what ranking asks of the ledger, because a process that ranks may not be the one that holds it."""

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from batchrank.data import Answer, Rejection
from batchrank.ledger.entries import About, Known, Recollection


class Access(Protocol):
    """What those who rank ask of the ledger; ``Ledger`` tells what each method does.

    Attributes:
        run: the run's number.
        legacy: whether there are entries by the keys of an older batchrank.
    """

    run: int
    legacy: bool

    async def find(self, keys: Sequence[bytes]) -> dict[bytes, Known]:
        """What is known about several requests, by key."""

    async def recollect(
        self, questions: Sequence[int], *, before: int, since: int = 0
    ) -> dict[int, list[Recollection]]:
        """The answers to questions, whatever their documents, by question."""

    async def refused(self, questions: Sequence[int]) -> set[int]:
        """The questions of which a request was ever rejected."""

    def put(
        self, key: bytes, outcome: Answer | Rejection, predicted: int, about: About | None = None
    ) -> Awaitable[None]:
        """Enter what decides about a request; durable once awaited."""

    def adopt(self, old_key: bytes, key: bytes, about: About | None) -> object:
        """Give what is known under an older batchrank's key the key of today."""

    async def load_all(self, prefix: str) -> dict[str, Any]:
        """The stored pieces of state whose names begin alike, by the rest of their names."""

    async def save(self, name: str, value: Any) -> None:
        """Commit a piece of the run's state."""
