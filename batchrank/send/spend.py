"""Tells what the run may still spend: reserved before a request is sent, settled by what was billed. Pure."""

from collections.abc import Iterator

from batchrank.errors import BudgetReachedError
from batchrank.models import Price
from batchrank.send.budget import Account, Before, Budget, Reservation

_NO_CAP, _NOTHING = Budget(), Before()


class Spend:
    """The run's account. A reservation's fate is one of ``settle``, ``lose`` (possibly billed) and ``release``.

    A reservation assumes the worst of what any bill has shown. The cap holds as long as no bill is worse than all
    before it; with a cap, the first requests therefore go one at a time (``blind``).

    Attributes:
        limited: whether there is any cap.
        capped: whether there is a cap that tokens count against.
        blind: whether there is a cap and no answer has shown yet what requests really cost.

    Args:
        price: the price, None when unknown.
        budget: the caps.
        before: what earlier processes of the run have taken.
        counted: what counts against the caps already, where they are not the run's.
    """

    def __init__(
        self,
        price: Price | None,
        budget: Budget = _NO_CAP,
        before: Before = _NOTHING,
        counted: Before | None = None,
    ) -> None:
        self.price = price
        self.budget = budget
        self._per_search = price is not None and price.search is not None
        self._run = Account(before, per_search=self._per_search)
        self._cap = self._run if counted is None else Account(counted, per_search=self._per_search)
        self._accounts = [self._run] if counted is None else [self._run, self._cap]
        self.predicted_tokens = 0
        self.billed_tokens = 0
        self.billed_documents = 0
        self._reserved = 0
        self._open: set[Reservation] = set()
        self.limited = budget != Budget(per=budget.per)
        self.capped = budget.tokens is not None or (budget.cost is not None and not self._per_search)
        self.blind = (budget.cost is not None or budget.tokens is not None) and not self._cap.tokens.seen

    @property
    def tokens(self) -> int:
        """Tokens spent: billed, or possibly billed; answers without usage count as predicted, or by others' bills."""
        return self._run.tokens.spent

    @property
    def bound(self) -> int:
        """The most tokens that can have been billed so far, as far as bills tell: what a cap is held against."""
        return self._cap.tokens.bound

    @property
    def counted_tokens(self) -> int:
        """Tokens spent of all that the caps hold for; the run's own where they hold for it."""
        return self._cap.tokens.spent

    @property
    def counted_cost(self) -> float | None:
        """What all of that has cost; None without a price."""
        return self._cost(self.counted_tokens, self._cap.searches.spent if self._per_search else 0)

    @property
    def possible_tokens(self) -> int:
        """Those of them that may have been billed without a result."""
        return self._run.tokens.possible

    @property
    def searches(self) -> int:
        """Searches spent, where the price is per search."""
        return self._run.searches.spent if self._per_search else 0

    @property
    def requests(self) -> int:
        """Requests that were answered, or may have been billed."""
        return self._run.requests

    @property
    def in_flight(self) -> int:
        """Reservations whose fate is open."""
        return len(self._open)

    @property
    def cost(self) -> float | None:
        """What the run has cost so far, what was possibly billed included; None without a price."""
        return self._cost(self.tokens, self.searches)

    @property
    def possible_cost(self) -> float | None:
        """The part of it that may have been billed without a result."""
        return self._cost(self.possible_tokens, self._run.searches.possible if self._per_search else 0)

    def fits(self, predicted: int, documents: int) -> bool:
        """Whether a request may be sent now without risk of passing a cap."""
        return next(self._problems(self._reservation(predicted, documents)), None) is None

    def reserve(self, predicted: int, documents: int) -> Reservation:
        """Set aside what a request may cost.

        Raises:
            BudgetReachedError: it could pass a cap.
        """
        reservation = self._reservation(predicted, documents)
        if self.limited and (problem := next(self._problems(reservation), None)):
            begun = self._cap.requests > 0 or bool(self._open)  # else no day will do
            raise BudgetReachedError(problem, later=self.budget.per == "day" and begun)
        self._open.add(reservation)
        self._reserved += reservation.tokens
        return reservation

    def settle(
        self, reservation: Reservation, billed: int | None, *, searches: int | None = None, exact: bool = True
    ) -> None:
        """Replace a reservation by the bill.

        Args:
            reservation: from ``reserve``.
            billed: tokens billed; None where the API named none.
            searches: searches billed; None where the API named none.
            exact: whether the prediction was a count, as opposed to an upper bound; only counts tell a drift.
        """
        self.release(reservation)
        self.blind = False
        worse = False
        for account in self._accounts:
            worse |= account.bill(reservation, billed, searches)
        if worse:
            self._reserve_anew()
        if exact and billed is not None:
            self.compare(reservation.predicted, billed, reservation.documents)

    def settle_probe(self, reservation: Reservation, billed: int) -> None:
        """Replace a probe's reservation by its bill, which tells nothing of other requests: it was hardly predicted."""
        self.release(reservation)
        for account in self._accounts:
            account.bill_probe(reservation, billed)

    def compare(self, predicted: int, billed: int, documents: int) -> None:
        """Learn how a bill differs from an exact count of the same request."""
        self.predicted_tokens += predicted
        self.billed_tokens += billed
        self.billed_documents += documents

    def lose(self, reservation: Reservation) -> None:
        """Count a reservation as spent: the request may have been billed, and gave nothing."""
        self.release(reservation)
        for account in self._accounts:
            account.lose(reservation)

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

    def _reservation(self, predicted: int, documents: int) -> Reservation:
        return Reservation(predicted, documents, self._cap.tokens.worst(predicted, documents))

    def _reserve_anew(self) -> None:
        """A bill was worse than all before it: so may those be that are in flight."""
        for other in self._open:
            other.tokens = self._cap.tokens.worst(other.predicted, other.documents)
        self._reserved = sum(other.tokens for other in self._open)

    def _cost(self, tokens: int, searches: int) -> float | None:
        return None if self.price is None else self.price.cost(tokens, searches=searches)

    def _reserved_searches(self, *more: Reservation) -> int:
        return sum(self._cap.searches.worst(one.searches, one.documents) for one in [*self._open, *more])

    def _problems(self, more: Reservation) -> Iterator[str]:
        most, spent, reserved = self.budget, self.bound, self._reserved
        if most.requests is not None and self._cap.requests + len(self._open) >= most.requests:
            yield (
                f"budget.max_requests: {most.requests:,}{most.span} could be passed: {self._cap.requests:,} requests "
                f"were answered or possibly billed, {len(self._open):,} are in flight"
            )
        if most.tokens is not None and spent + reserved + more.tokens > most.tokens:
            flight = f", {reserved:,} may be in flight" if reserved else ""
            yield (
                f"budget.max_tokens: {most.tokens:,}{most.span} could be passed: {spent:,} tokens are spent{flight}, "
                f"the next request may take {more.tokens:,}"
            )
        if most.cost is not None and self.price is not None:
            yield from self._too_dear(self.price, most.cost, more)

    def _too_dear(self, price: Price, most: float, more: Reservation) -> Iterator[str]:
        searches = self._cap.searches.bound if self._per_search else 0
        flight = self._reserved_searches() if self._per_search else 0
        after = self._reserved_searches(more) if self._per_search else 0
        if (
            price.cost(self._cap.tokens.bound + self._reserved + more.tokens, searches=searches + after)
            <= most
        ):
            return
        spent, reserved = (
            price.cost(self._cap.tokens.bound, searches=searches),
            price.cost(self._reserved, searches=flight),
        )
        yield (
            f"budget.max_cost: {most:g} {price.currency}{self.budget.span} could be passed: {spent:.4f} is spent"
            f"{f', {reserved:.4f} may be in flight' if reserved else ''}, the next request may cost "
            f"{price.cost(more.tokens, searches=after - flight):.4f}"
        )
