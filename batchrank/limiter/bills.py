"""Learns how bills differ from predictions, because a quota of tokens holds for what is billed.

A request is charged its prediction times what the last bills have been of theirs in total, and what a second's sum
may scatter by. Bills that are far from all others are left out, as one absurd usage must not slow a run. Pure.
"""

import math
from collections import deque
from statistics import median_low

_FIRST_RATIO = 10.0
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
        ratio = _FIRST_RATIO if self._ratio is None else self._ratio
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
        self._typical = median_low(bill / prediction for prediction, bill in self._recent)
        most = _ABSURD * self._typical
        kept = [(prediction, bill) for prediction, bill in self._recent if bill <= most * prediction]
        if len(self._recent) < _FEW:
            self._ratio = max(bill / prediction for prediction, bill in kept)
        else:
            self._ratio = max(_LEAST_RATIO, self._upper(kept))

    def _upper(self, bills: list[tuple[int, int]]) -> float:
        """The ratio that a second's requests hardly exceed in sum."""
        billed = sum(bill for _, bill in bills)
        ratio = billed / sum(prediction for prediction, _ in bills)
        deviation = math.sqrt(sum((bill - ratio * one) ** 2 for one, bill in bills) / len(bills))
        mean = billed / len(bills)
        at_once = max(1.0, self._per_second / mean)
        return ratio * (1 + _SCATTER * deviation / mean * math.sqrt(1 / at_once + 1 / len(bills)))
