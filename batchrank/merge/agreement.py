"""Counts the pairs of documents that several answers order, and how many of them they order alike.

A certificate rests on no answer's contradicting another: the pairs that could have and did not are its evidence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from batchrank.merge.answers import Answer
from batchrank.outcomes import Agreement

_ROWS = 1_024
"""Documents that a block of pairs is made of: a whole list of 10,000 would take 100 MB at once."""


@dataclass(frozen=True, slots=True)
class Discord:
    """Pairs of documents that answers of two kinds both order.

    Attributes:
        pairs: how many there are.
        against: how many they order differently.
    """

    pairs: int = 0
    against: int = 0

    def __add__(self, other: "Discord") -> "Discord":
        return Discord(self.pairs + other.pairs, self.against + other.against)

    @property
    def share(self) -> float:
        """The share that is ordered differently; 0 of none."""
        return self.against / self.pairs if self.pairs else 0.0


def discord(one: Answer, two: Answer) -> Discord:
    """The pairs that two answers order; a pair that either ties is not ordered."""
    _, here, there = np.intersect1d(one.docs, two.docs, return_indices=True)
    if len(here) < 2:
        return Discord()
    first, second = one.values[here], two.values[there]
    pairs = against = 0
    for start in range(0, len(first), _ROWS):
        rows = slice(start, start + _ROWS)
        product = np.sign(first[rows, None] - first) * np.sign(second[rows, None] - second)
        pairs += int(np.count_nonzero(product))
        against += int(np.count_nonzero(product < 0))
    return Discord(pairs // 2, against // 2)


def total(pairs: Iterable[tuple[Answer, Answer]]) -> Discord:
    """The sum over pairs of answers."""
    return sum((discord(one, two) for one, two in pairs), Discord())


def agreement(answers: Sequence[Answer]) -> Agreement | None:
    """How far all answers to one query agree; None if no two order the same documents."""
    answers = [answer for answer in answers if answer.whole is None]
    if len(answers) < 2:
        return None
    found = total(_meeting(answers))
    return Agreement(found.pairs - found.against, found.pairs) if found.pairs else None


def _meeting(answers: Sequence[Answer]) -> Iterable[tuple[Answer, Answer]]:
    """Pairs of answers with at least two documents in common."""
    size = 1 + max(int(answer.docs.max(initial=0)) for answer in answers)
    member = np.zeros((len(answers), size), dtype=np.float32)
    for row, answer in enumerate(answers):
        member[row, answer.docs] = 1
    common = np.triu(member @ member.T, 1)
    for one, two in np.argwhere(common >= 2).tolist():
        yield answers[one], answers[two]
