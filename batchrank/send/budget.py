"""Counts one unit that an API bills (tokens, or searches), so that a cap on it holds although bills come later.

Bills can exceed what the documented formula predicts: by hidden units per document, or in proportion. So whatever is
not billed yet is taken at the worst of each that any bill has shown. Pure.
"""

import math
from collections import Counter
from dataclasses import dataclass, field


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
        return math.ceil(max(proportional, predicted + documents * max(0.0, self._hidden)))

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
