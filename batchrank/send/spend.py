"""What the run may still spend: reserved before a request is sent, settled by what was billed."""

import math

from batchrank.errors import BudgetReachedError
from batchrank.models import Price

_FIRST_GUESS = 1.25
"""How far a bill may exceed the prediction before any bill was seen: hidden tokens per document."""


class Spend:
    """The run's account. A request's fate is one of ``settle``, ``lose`` (perhaps billed) and ``release``.

    Bills can exceed what the documented formula predicts, so a reservation is the prediction times the largest
    ratio seen so far; the cap holds as long as no bill exceeds its prediction by more than any before it.

    Args:
        price: the price of a token, None when unknown.
        max_cost: the cap in the price's currency.
        max_tokens: the cap in tokens.
        spent_tokens: tokens this run has taken already, in earlier processes.
    """

    def __init__(
        self,
        price: Price | None,
        *,
        max_cost: float | None = None,
        max_tokens: int | None = None,
        spent_tokens: int = 0,
    ) -> None:
        self.price = price
        self.max_cost = max_cost
        self.max_tokens = max_tokens
        self.tokens = spent_tokens
        self.lost_tokens = 0
        self.predicted_tokens = 0
        self.billed_tokens = 0
        self.billed_documents = 0
        self._reserved = 0
        self._ratio: float | None = None

    @property
    def capped(self) -> bool:
        """Whether there is a cap at all."""
        return self.max_cost is not None or self.max_tokens is not None

    @property
    def cost(self) -> float | None:
        """What the run has cost so far, None without a price."""
        return None if self.price is None else self.price.cost(self.tokens)

    def reserve(self, predicted: int) -> None:
        """Set aside what a request may cost.

        Raises:
            BudgetReachedError: it could pass the cap.
        """
        ratio = max(1.0, self._ratio or _FIRST_GUESS)
        total = self.tokens + math.ceil((self._reserved + predicted) * ratio)
        price = self.price
        if self.max_tokens is not None and total > self.max_tokens:
            raise BudgetReachedError(
                f"budget.max_tokens: {self.max_tokens:,} would be passed: {self.tokens:,} tokens are spent, "
                f"{total - self.tokens:,} more are in flight or next"
            )
        if self.max_cost is not None and price is not None and price.cost(total) > self.max_cost:
            raise BudgetReachedError(
                f"budget.max_cost: {self.max_cost:g} {price.currency} would be passed: {self.cost:.4f} is spent, "
                f"{price.cost(total - self.tokens):.4f} more is in flight or next"
            )
        self._reserved += predicted

    def settle(self, predicted: int, billed: int | None, documents: int) -> None:
        """Replace a reservation by the bill (by the prediction where the API named none)."""
        self._reserved -= predicted
        self.tokens += predicted if billed is None else billed
        if billed is not None and predicted:
            self._ratio = max(self._ratio or 0.0, billed / predicted)
            self.predicted_tokens += predicted
            self.billed_tokens += billed
            self.billed_documents += documents

    def lose(self, predicted: int) -> None:
        """Count a reservation as spent: the request may have been billed, and gave nothing."""
        self._reserved -= predicted
        self.tokens += predicted
        self.lost_tokens += predicted

    def release(self, predicted: int) -> None:
        """Give a reservation back: the request was rejected."""
        self._reserved -= predicted

    @property
    def drift(self) -> float:
        """How much more was billed than predicted, as a share; 0 before any bill."""
        return self.billed_tokens / self.predicted_tokens - 1 if self.predicted_tokens else 0.0

    @property
    def hidden_tokens(self) -> float:
        """Tokens per document that would explain the drift."""
        excess = self.billed_tokens - self.predicted_tokens
        return excess / self.billed_documents if self.billed_documents else 0.0
