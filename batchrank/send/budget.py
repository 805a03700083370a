"""Counts what was taken from the account in every unit that is billed, and learns how bills differ from predictions.

A request is charged its prediction times what the last bills have been of theirs in total, and what a second's sum
may scatter by. Bills that are far from all others are left out, as one absurd usage must not slow a run. Pure.
"""

import math
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from statistics import median_low
from typing import Literal

from batchrank.models import searches

_FIRST_CHARGE = 10.0
"""How far a bill may exceed the prediction before any was seen; the first answer gives back what was too much."""
_MEMORY = 64
"""Bills that are remembered: enough to average over, few enough to follow a change within seconds."""
_FEW = 8
"""Bills up to which the worst one counts, as their average says little."""
_EVERY = 4
"""Bills after which the average is taken anew: each one would cost more than it tells."""
_SCATTER = 2.0
"""Standard deviations by which a second's requests may exceed what is expected; more would waste what they don't use,
and a bill corrects what its request was charged anyway."""
_ABSURD = 16.0
"""How many times the typical ratio of bill and prediction a bill has to be to be no bill of tokens at all."""
_LEAST_RATIO = 0.01
"""A usage of next to nothing is no reason to send a hundred times as much."""


class Bills:
    """What requests will be billed.

    Args:
        per_second: tokens that the quota allows in a second.
        per_minute: those of a minute; no bill is taken to be more than that.
    """

    def __init__(self, per_second: int, per_minute: int) -> None:
        self._per_second, self._per_minute = per_second, per_minute
        self._recent: deque[tuple[int, int]] = deque(maxlen=_MEMORY)
        self._new = 0
        self._typical = 0.0
        self._ratio: float | None = None
        self.absurd: tuple[int, int] | None = None
        """The first bill that was not believed, and its prediction."""

    def expected(self, predicted: int) -> int:
        """Tokens that a request is charged."""
        ratio = _FIRST_CHARGE if self._ratio is None else self._ratio
        return min(math.ceil(predicted * ratio), max(predicted, self._per_minute))

    def learn(self, predicted: int, billed: int | None) -> int:
        """Learn from an answer, whose API may name no usage; the tokens that it is taken to have cost."""
        if not billed or billed < 0 or predicted <= 0:
            self._ratio = 1.0 if self._ratio is None else self._ratio
            return self.expected(predicted)
        believed = min(billed, self._most(predicted))
        if believed < billed and self.absurd is None:
            self.absurd = billed, predicted
        self._recent.append((predicted, billed))
        self._new += 1
        if len(self._recent) <= _FEW or self._new >= _EVERY:
            self._average()
        return believed

    def _most(self, predicted: int) -> int:
        most = max(predicted, self._per_minute)
        if len(self._recent) < _FEW:
            return most
        return min(most, max(predicted, math.ceil(_ABSURD * self._typical * predicted)))

    def _average(self) -> None:
        self._new = 0
        ratios = [bill / prediction for prediction, bill in self._recent]
        self._typical = median_low(ratios)
        most = _ABSURD * self._typical
        if len(self._recent) < _FEW:
            self._ratio = max(ratio for ratio in ratios if ratio <= most)
            return
        kept: Collection[tuple[int, int]] = self._recent
        if max(ratios) > most:
            kept = [(prediction, bill) for prediction, bill in kept if bill <= most * prediction]
        self._ratio = max(_LEAST_RATIO, self._upper(kept))

    def _upper(self, requests: Collection[tuple[int, int]]) -> float:
        """The ratio that a second's requests hardly exceed in sum."""
        predictions, bills = zip(*requests, strict=True)
        billed: int = sum(bills)
        ratio: float = billed / sum(predictions)
        deviation = math.dist(bills, [ratio * one for one in predictions]) / math.sqrt(len(bills))
        mean = billed / len(bills)
        at_once = max(1.0, self._per_second / mean)
        return ratio * (1 + _SCATTER * deviation / mean * math.sqrt(1 / at_once + 1 / len(bills)))


@dataclass(frozen=True, slots=True)
class Taken:
    """What a run has taken of one unit in earlier processes.

    Attributes:
        billed: units billed for answers.
        unbilled: predicted units and documents of answers that named no usage, in all.
        lost: predicted units and documents of requests that may have been billed without a result, each with how often.
        ratio: the most billed so far, as a multiple of the prediction; None before any bill.
        hidden: the most units so far that a document was billed beyond the prediction.
    """

    billed: int = 0
    unbilled: tuple[int, int] = (0, 0)
    lost: dict[tuple[int, int], int] = field(default_factory=dict)
    ratio: float | None = None
    hidden: float | None = None


class Quantity:
    """What was billed, what may have been, and what a request in flight may be, in one unit.

    Args:
        taken: what earlier processes of the run left.
        ratio: how far a bill may exceed the prediction before any bill was seen.
        hidden: units a document may be billed beyond the prediction before any bill was seen.
    """

    def __init__(self, taken: Taken, *, ratio: float, hidden: float) -> None:
        self.billed = taken.billed
        self._unbilled = list(taken.unbilled)
        self._lost = Counter(taken.lost)
        self.seen = taken.ratio is not None
        self._ratio = ratio if taken.ratio is None else taken.ratio
        self._hidden = hidden if taken.hidden is None else taken.hidden

    @property
    def possible(self) -> int:
        """Units that may have been billed without a result: as predicted, or by the worst bill once there was one."""
        return self._lost_units(worst=self.seen)

    @property
    def spent(self) -> int:
        """Units billed and possibly billed; answers without usage count as predicted, or as the worst bill."""
        predicted, documents = self._unbilled
        return self.billed + self.possible + (self.worst(predicted, documents) if self.seen else predicted)

    @property
    def bound(self) -> int:
        """The most that what has come to an end can have been billed, as far as bills so far tell."""
        return self.billed + self._lost_units(worst=True) + self.worst(*self._unbilled)

    def worst(self, predicted: int, documents: int) -> int:
        """The most a request may be billed, by the worst bills so far."""
        proportional = predicted * max(1.0, self._ratio)
        most = max(proportional, predicted + documents * max(0.0, self._hidden))
        return math.ceil(most - _ROUNDING)

    def bill(self, predicted: int, documents: int, billed: int | None) -> bool:
        """Count an answer, which may have named no usage; whether its bill was worse than all before."""
        if billed is None:
            self._unbilled[0] += predicted
            self._unbilled[1] += documents
            return False
        self.billed += billed
        return self._learn(billed / max(predicted, 1), (billed - predicted) / max(documents, 1))

    def lose(self, predicted: int, documents: int) -> None:
        """Count a request that may have been billed and gave nothing."""
        self._lost[predicted, documents] += 1

    def _lost_units(self, *, worst: bool) -> int:
        return sum(n * (self.worst(*request) if worst else request[0]) for request, n in self._lost.items())

    def _learn(self, ratio: float, hidden: float) -> bool:
        if self.seen and ratio <= self._ratio and hidden <= self._hidden:
            return False
        self._ratio = max(self._ratio, ratio) if self.seen else ratio
        self._hidden = max(self._hidden, hidden) if self.seen else hidden
        self.seen = True
        return True


_ROUNDING = 1e-6
"""Of a unit: what a product may be too large by, so that alike requests together count no more than each alone."""
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
    """What was billed, or may have been: of one run, or of all that a cap holds for.

    Args:
        before: what was taken in earlier processes.
        per_search: whether searches are billed; they are not counted otherwise.
    """

    def __init__(self, before: Before, *, per_search: bool) -> None:
        self._per_search = per_search
        self.tokens = Quantity(before.tokens, ratio=_FIRST_RATIO, hidden=_FIRST_HIDDEN)
        self.searches = Quantity(before.searches, ratio=1.0, hidden=_FIRST_HIDDEN_SEARCHES)
        self.requests = before.requests

    def bill(self, reservation: Reservation, tokens: int | None, searches: int | None) -> bool:
        """Count an answer; whether its bill was worse than all before it."""
        self.requests += 1
        if self._per_search:
            self.searches.bill(reservation.searches, reservation.documents, searches)
        return self.tokens.bill(reservation.predicted, reservation.documents, tokens)

    def bill_probe(self, reservation: Reservation, tokens: int) -> None:
        """Count a probe's answer."""
        self.requests += 1
        self.tokens.billed += tokens
        if self._per_search:
            self.searches.billed += reservation.searches

    def lose(self, reservation: Reservation) -> None:
        """Count a request that may have been billed and gave nothing."""
        self.requests += 1
        self.tokens.lose(reservation.predicted, reservation.documents)
        if self._per_search:
            self.searches.lose(reservation.searches, reservation.documents)
