"""Link functions: scales on which one request's scores may be a line in another's."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from batchrank.arrays import Floats

TINY = 1e-15  # stands for 0, and 1 - TINY for 1, where a logarithm is taken


@dataclass(frozen=True, slots=True)
class Link:
    """A strictly increasing function of scores.

    Attributes:
        name: ``identity``, ``logit`` or ``log``.
        forward: scores -> link scale; saturated scores come out finite.
        inverse: link scale -> scores.
    """

    name: str
    forward: Callable[[Floats], Floats]
    inverse: Callable[[Floats], Floats]


def _logit(scores: Floats) -> Floats:
    inside = np.clip(scores, TINY, 1 - TINY)
    return np.log(inside) - np.log1p(-inside)


def _logistic(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(values, -700, 700)))


IDENTITY = Link("identity", lambda scores: scores, lambda values: values)
LOGIT = Link("logit", _logit, _logistic)
LOG = Link(
    "log", lambda scores: np.log(np.maximum(scores, TINY)), lambda values: np.exp(np.minimum(values, 700))
)


def links(scores: Floats) -> list[Link]:
    """The links that these scores allow: probabilities take all, unbounded scores only the identity."""
    if not len(scores) or scores.min() < 0:
        return [IDENTITY]
    return [LOGIT, IDENTITY, LOG] if scores.max() <= 1 else [IDENTITY, LOG]


def natural(scores: Floats) -> Link:
    """The logit of probabilities, otherwise the identity."""
    return links(scores)[0] if len(scores) and scores.max() <= 1 else IDENTITY


def informative(scores: Floats) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Which scores carry a slope: a probability of exactly 0 or 1 is saturated and carries none."""
    if len(scores) and scores.min() >= 0 and scores.max() <= 1:
        return (scores > 0) & (scores < 1)
    return np.ones(len(scores), dtype=bool)
