"""What was taken from the account, in every unit that is billed: of one run, or of all that a cap holds for. Pure."""

from dataclasses import dataclass, field
from typing import Literal

from batchrank.models import searches
from batchrank.send.budget import Quantity, Taken

_FIRST_RATIO = 1.25
"""How far a bill may exceed the prediction before any bill was seen."""
_FIRST_HIDDEN = 80.0
"""Tokens a document may be billed beyond the prediction before any bill was seen: more than a prompt's template."""
_FIRST_HIDDEN_SEARCHES = 0.09
"""Searches a document may take beyond its own hundredth before any bill was seen: as a document of 4,096 tokens counts
once for each 500 of them."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The caps: a cost in the price's currency, tokens, requests; None for none; and what they hold ``per``."""

    cost: float | None = None
    tokens: int | None = None
    requests: int | None = None
    per: Literal["run", "day", "total"] = "run"

    @property
    def span(self) -> str:
        """What the caps hold for, in a message."""
        return {"run": "", "day": " a day (UTC)", "total": " in all"}[self.per]


@dataclass(frozen=True, slots=True)
class Before:
    """What was taken in earlier processes, in tokens, searches and requests that may have been billed."""

    tokens: Taken = field(default_factory=Taken)
    searches: Taken = field(default_factory=Taken)
    requests: int = 0


@dataclass(slots=True, eq=False)
class Reservation:
    """What one request in flight may cost, at most as far as is known: ``tokens``."""

    predicted: int
    documents: int
    tokens: int

    @property
    def searches(self) -> int:
        """Searches that the request is expected to be billed as, where those are billed."""
        return searches(self.documents)


class Account:
    """What was billed, or may have been: of one run, or of all that a cap holds for."""

    def __init__(self, before: Before) -> None:
        self.tokens = Quantity(before.tokens, ratio=_FIRST_RATIO, hidden=_FIRST_HIDDEN)
        self.searches = Quantity(before.searches, ratio=1.0, hidden=_FIRST_HIDDEN_SEARCHES)
        self.requests = before.requests

    def bill(self, reservation: Reservation, tokens: int | None, searches: int | None) -> bool:
        """Count an answer; whether its bill was worse than all before it."""
        self.requests += 1
        self.searches.bill(reservation.searches, reservation.documents, searches)
        return self.tokens.bill(reservation.predicted, reservation.documents, tokens)

    def bill_probe(self, reservation: Reservation, tokens: int) -> None:
        """Count a probe's answer."""
        self.requests += 1
        self.tokens.billed += tokens
        self.searches.billed += reservation.searches

    def lose(self, reservation: Reservation) -> None:
        """Count a request that may have been billed and gave nothing."""
        self.requests += 1
        self.tokens.lose(reservation.predicted, reservation.documents)
        self.searches.lose(reservation.searches, reservation.documents)
