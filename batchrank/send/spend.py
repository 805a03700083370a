"""What the run may still spend: reserved before a request is sent, settled by what was billed. Pure."""

import math
from dataclasses import dataclass

from batchrank.errors import BudgetReachedError
from batchrank.models import Price

_FIRST_RATIO = 1.25
"""How far a bill may exceed the prediction before any bill was seen."""
_FIRST_HIDDEN = 80.0
"""Tokens a document may be billed beyond the prediction before any bill was seen: more than a prompt's template."""


@dataclass(slots=True, eq=False)
class Reservation:
    """What one request in flight may cost, at most as far as is known: ``tokens``."""

    predicted: int
    documents: int
    tokens: int


class Spend:
    """The run's account. A reservation's fate is one of ``settle``, ``lose`` (perhaps billed) and ``release``.

    Bills can exceed what the documented formula predicts: by hidden tokens per document, or in proportion. So a
    reservation assumes the worst of each that any bill has shown. The cap holds as long as no bill is worse than
    all before it; with a cap, the first requests therefore go one at a time (``blind``).

    Args:
        price: the price of a token, None when unknown.
        max_cost: the cap in the price's currency.
        max_tokens: the cap in tokens.
        spent_tokens: tokens this run has taken already, in earlier processes.
        lost_tokens: those of them that may have been billed for nothing.
        ratio: the most billed so far, as a multiple of the prediction; None before any bill.
        hidden: the most tokens so far that a document was billed beyond the prediction.
    """

    def __init__(
        self,
        price: Price | None,
        *,
        max_cost: float | None = None,
        max_tokens: int | None = None,
        spent_tokens: int = 0,
        lost_tokens: int = 0,
        ratio: float | None = None,
        hidden: float | None = None,
    ) -> None:
        self.price = price
        self.max_cost = max_cost
        self.max_tokens = max_tokens
        self._spent = spent_tokens
        self._unbilled = [0, 0]  # predicted tokens and documents of answers that named no usage
        self.lost_tokens = lost_tokens
        self.predicted_tokens = 0
        self.billed_tokens = 0
        self.billed_documents = 0
        self._reserved = 0
        self._open: set[Reservation] = set()
        self._seen = self._answered = ratio is not None
        self._ratio = ratio if ratio is not None else _FIRST_RATIO
        self._hidden = hidden if hidden is not None else _FIRST_HIDDEN

    @property
    def tokens(self) -> int:
        """Tokens spent; answers without usage count as predicted, or as the worst of others' bills."""
        predicted, documents = self._unbilled
        return self._spent + (self._worst(predicted, documents) if self._seen else predicted)

    @property
    def capped(self) -> bool:
        """Whether there is a cap at all."""
        return self.max_cost is not None or self.max_tokens is not None

    @property
    def blind(self) -> bool:
        """Whether there is a cap and no answer has shown yet what requests really cost."""
        return self.capped and not self._answered

    @property
    def in_flight(self) -> int:
        """Reservations whose fate is open."""
        return len(self._open)

    @property
    def cost(self) -> float | None:
        """What the run has cost so far, None without a price."""
        return None if self.price is None else self.price.cost(self.tokens)

    def fits(self, predicted: int, documents: int) -> bool:
        """Whether a request may be sent now without risk of passing the cap."""
        return self._problem(self._worst(predicted, documents)) is None

    def reserve(self, predicted: int, documents: int) -> Reservation:
        """Set aside what a request may cost.

        Raises:
            BudgetReachedError: it could pass the cap.
        """
        worst = self._worst(predicted, documents)
        if problem := self._problem(worst):
            raise BudgetReachedError(problem)
        reservation = Reservation(predicted, documents, worst)
        self._open.add(reservation)
        self._reserved += worst
        return reservation

    def settle(self, reservation: Reservation, billed: int | None, *, exact: bool = True) -> None:
        """Replace a reservation by the bill.

        Args:
            reservation: from ``reserve``.
            billed: tokens billed; None where the API named none.
            exact: whether the prediction was a count, as opposed to an upper bound; only counts tell a drift.
        """
        self.release(reservation)
        predicted, documents = reservation.predicted, reservation.documents
        self._answered = True
        if billed is None:
            self._unbilled[0] += predicted
            self._unbilled[1] += documents
            return
        self._spent += billed
        self._learn(billed / max(predicted, 1), (billed - predicted) / max(documents, 1))
        if exact:
            self.compare(predicted, billed, documents)

    def compare(self, predicted: int, billed: int, documents: int) -> None:
        """Learn how a bill differs from an exact count of the same request."""
        self.predicted_tokens += predicted
        self.billed_tokens += billed
        self.billed_documents += documents

    def lose(self, reservation: Reservation) -> None:
        """Count a reservation as spent: the request may have been billed, and gave nothing."""
        self.release(reservation)
        self._spent += reservation.tokens
        self.lost_tokens += reservation.tokens

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back: the request was rejected."""
        self._open.remove(reservation)
        self._reserved -= reservation.tokens

    @property
    def drift(self) -> float:
        """How much more was billed than predicted, as a share; 0 before any bill."""
        return self.billed_tokens / self.predicted_tokens - 1 if self.predicted_tokens else 0.0

    @property
    def hidden_tokens(self) -> float:
        """Tokens per document that would explain the drift."""
        excess = self.billed_tokens - self.predicted_tokens
        return excess / self.billed_documents if self.billed_documents else 0.0

    def _worst(self, predicted: int, documents: int) -> int:
        """The most a request may be billed, by the worst bills so far."""
        return math.ceil(
            max(predicted * max(1.0, self._ratio), predicted + documents * max(0.0, self._hidden))
        )

    def _learn(self, ratio: float, hidden: float) -> None:
        if self._seen and ratio <= self._ratio and hidden <= self._hidden:
            return
        self._ratio = max(self._ratio, ratio) if self._seen else ratio
        self._hidden = max(self._hidden, hidden) if self._seen else hidden
        self._seen = True
        for other in self._open:
            worst = self._worst(other.predicted, other.documents)
            self._reserved += worst - other.tokens
            other.tokens = worst

    def _problem(self, more: int) -> str | None:
        total = self.tokens + self._reserved + more
        flight = f", {self._reserved:,} may be in flight" if self._reserved else ""
        if self.max_tokens is not None and total > self.max_tokens:
            return (
                f"budget.max_tokens: {self.max_tokens:,} could be passed: {self.tokens:,} tokens are spent{flight}, "
                f"the next request may take {more:,}"
            )
        price = self.price
        if self.max_cost is not None and price is not None and price.cost(total) > self.max_cost:
            return (
                f"budget.max_cost: {self.max_cost:g} {price.currency} could be passed: {price.cost(self.tokens):.4f} "
                f"is spent{flight and f', {price.cost(self._reserved):.4f} may be in flight'}, the next request may "
                f"cost {price.cost(more):.4f}"
            )
        return None
