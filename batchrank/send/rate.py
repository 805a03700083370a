"""Defines what admits requests at a rate, as a run may have one quota, one a key, or a part of an account's.

``limiter`` keeps one quota, ``keyring`` one for each of several keys, ``account`` asks the process that keeps it for
all jobs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from batchrank.data import Rejection

if TYPE_CHECKING:
    from batchrank.send.connections import Key

Kind = Literal["requests", "tokens", "growth"]


@dataclass(frozen=True, slots=True)
class Stats:
    """What a limiter has done so far.

    Attributes:
        requests: requests admitted.
        tokens: tokens admitted, as predicted.
        requests_used: the part of the request quota used in the last minute.
        tokens_used: the part of the token quota used in the last minute.
        waited: seconds that callers waited.
        throttled: how many answers refused a request, by kind.
        speed: the part of the quota that is asked for now, after slow start and refusals.
    """

    requests: int
    tokens: int
    requests_used: float
    tokens_used: float
    waited: float
    throttled: dict[Kind, int]
    speed: float


@dataclass(slots=True, eq=False)
class Admission:
    """What one request was charged.

    Attributes:
        at: when it counts from, seconds by the event loop's clock.
        predicted: tokens that it was expected to take.
        charged: tokens that it counts as.
        key: the key that it goes by; None for the only one.
    """

    at: float
    predicted: int
    charged: int
    key: "Key | None" = None


def refused_keys(states: Sequence[Mapping[str, Any]]) -> list[str]:
    """What to tell of keys that the API refused."""
    return [
        f"the key in {one['name']} was refused, and the others were used instead; the last refusal: {one['out']}"
        for one in states
        if one["out"]
    ]


class RateLimiter(Protocol):
    """Grants admissions one after another, in the order of the calls."""

    @property
    def ahead(self) -> int:
        """How many admissions are to be asked for at a time, so that the way to who grants them costs no rate."""

    async def acquire(self, tokens: int) -> Admission:
        """Wait until a request of so many expected tokens may be sent; cancelled while waiting, it takes nothing."""

    def departed(self, admission: Admission) -> None:
        """Tell that a request is sent only now, so that it counts from now on."""

    def settle(self, admission: Admission, billed: int | None) -> None:
        """Tell that a request was answered, and what it was billed; None where the answer doesn't say."""

    def unbilled(self, admission: Admission) -> None:
        """Tell that a request was rejected: an API may count its prediction even so, the rest is given back."""

    def throttled(
        self,
        kind: Kind,
        retry_after: float | None = None,
        *,
        sent: float | None = None,
        by: "Key | None" = None,
    ) -> None:
        """Slow down because the API refused a request that was sent at a time, by a key."""

    def refused(self, admission: Admission, why: Rejection, *, certain: bool) -> bool:
        """Learn that the API refused the request's key; whether there is another one to ask with.

        Args:
            admission: the request's.
            why: how it was refused.
            certain: whether it was surely the key, and will be for a while; else it may have been the request.
        """

    def pace(self, tokens: int) -> float:
        """Requests a second that may be sent at most if each takes so many tokens, slowed down as they are now."""

    def stats(self) -> Stats:
        """What happened so far."""

    def states(self) -> list[dict[str, Any]]:
        """How each of several keys stands, as plain data; nothing where there is one."""

    def serving(self) -> list[str]:
        """The names of those of several keys that the API doesn't refuse."""

    @property
    def notices(self) -> Sequence[str]:
        """What the user should know of the quota, and of keys."""
