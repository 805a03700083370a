"""Stands for the gateway and the ledger in a process that ranks, which has neither: each call goes to who has them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from batchrank.cluster.channel import Channel
from batchrank.data import Answer, Rejection
from batchrank.errors import BatchrankError
from batchrank.ledger.entries import About, Known, Recollection
from batchrank.send.encoder import Outgoing


@dataclass(slots=True)
class Room:
    """How many queries a process that ranks may have under way, as its share of what the fleet needs.

    Attributes:
        queries: those without a ranking.
        most: what that may ever be.
    """

    queries: int
    most: int


class RemoteGateway:
    """The gateway, asked through a channel.

    Attributes:
        counted: whether a cap holds, so that tokens must be predicted by a count.
        gate: None, as who has the gateway knows what holds requests back.
    """

    gate = None

    def __init__(self, channel: Channel, *, counted: bool) -> None:
        self.counted = counted
        self._channel = channel
        self._reason: BatchrankError | None = None
        self._understood = False
        self._smallest: float | None = None

    async def ask(
        self, request: Outgoing, where: Callable[[], str], *, part_of: Rejection | None = None
    ) -> Answer | Rejection:
        """Ask until there is an answer, or a rejection that has to be acted on.

        Raises:
            BatchrankError: as ``Client.ask`` does, or the reason given to ``stop``.
        """
        if self._reason is not None:
            raise self._reason
        sent = (
            request.key, request.body, request.documents, request.predicted, request.exact, request.priority,
            request.about,
        )  # fmt: skip
        return cast(Answer | Rejection, await self._channel.call("ask", sent, where(), part_of))

    def understood(self) -> None:
        """Learn that the endpoint took a request like those of this run before; told once."""
        if not self._understood:
            self._understood = True
            self._channel.tell("understood")

    def answered(self, request: Outgoing, tokens: int) -> None:
        """Learn that a request was answered; the smallest is worth telling."""
        size = len(request.body)
        if self._smallest is None or size < self._smallest:
            self._smallest = size
            self._channel.tell("answered", request.body, request.documents, tokens)

    def compare(self, predicted: int, billed: int, documents: int) -> None:
        """Learn how a bill differs from an exact count of the same request."""
        self._channel.tell("compare", predicted, billed, documents)

    def stop(self, reason: BatchrankError) -> None:
        """Ask nothing more; what is asked already comes to its end where it is sent."""
        self._reason = self._reason or reason


class RemoteLedger:
    """The ledger, asked through a channel.

    Args:
        run: as in ``Ledger``.
        legacy: as in ``Ledger``.
    """

    def __init__(self, channel: Channel, *, run: int, legacy: bool) -> None:
        self._channel = channel
        self.run = run
        self.legacy = legacy

    async def find(self, keys: Sequence[bytes]) -> dict[bytes, Known]:
        """What is known about several requests, by key."""
        return cast(dict[bytes, Known], await self._channel.call("find", list(keys)))

    async def recollect(
        self, questions: Sequence[int], *, before: int, since: int = 0
    ) -> dict[int, list[Recollection]]:
        """The answers to questions, whatever their documents, by question."""
        found = await self._channel.call("recollect", list(questions), before, since)
        return cast(dict[int, list[Recollection]], found)

    async def refused(self, questions: Sequence[int]) -> set[int]:
        """The questions of which a request was ever rejected."""
        return cast(set[int], await self._channel.call("refused", list(questions)))

    def put(
        self, key: bytes, outcome: Answer | Rejection, predicted: int, about: About | None = None
    ) -> Awaitable[None]:
        """Enter what decides about a request; durable once awaited."""
        return self._channel.call("put", key, outcome, predicted, about)

    def adopt(self, old_key: bytes, key: bytes, about: About | None) -> None:
        """Give what is known under an older batchrank's key the key of today."""
        self._channel.tell("adopt", old_key, key, about)

    async def load_all(self, prefix: str) -> dict[str, Any]:
        """The stored pieces of state whose names begin alike, by the rest of their names."""
        return cast(dict[str, Any], await self._channel.call("load_all", prefix))

    async def save(self, name: str, value: Any) -> None:
        """Commit a piece of the run's state."""
        await self._channel.call("save", name, value)
