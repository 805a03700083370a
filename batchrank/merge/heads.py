"""Tells how many documents of each answer a hub needs: heads, to hold the top, and quantiles, to make a scale."""

from collections.abc import Sequence
from math import exp, lgamma, log

import numpy as np

from batchrank.data import Positions

_DELTA = 0.1
"""How often a hub without repairs may miss the cutoff: fewer misses cost more heads, a miss costs one repair."""
REFERENCES = 8
"""Documents that several hubs share: enough for a line between them, and a small part of a request."""


def heads(lengths: Sequence[int], k: int) -> Positions:
    """How many heads (best documents) of each answer the hub needs.

    For each answer it is the least q for which the answer has q of the k - 1 best documents with a probability of at
    most ``_DELTA`` / answers: P(Binomial(k - 1, its share of the list) >= q). So with probability 1 - ``_DELTA`` no
    answer has so many.
    """
    total, trials = sum(lengths), max(min(k, sum(lengths)) - 1, 0)
    kinds, which = np.unique(lengths, return_inverse=True)
    least = [
        max(int(np.argmax(np.r_[_binomial_tail(trials, length / total), 0] <= _DELTA / len(lengths))), 1)
        for length in kinds.tolist()
    ]
    return np.array(least, dtype=np.intp)[which]


def _binomial_tail(trials: int, share: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """P(Binomial(trials, share) >= q) for q = 0..trials."""
    if share >= 1:
        return np.ones(trials + 1)
    whole, odds, rest = lgamma(trials + 1), log(share), log(1 - share)
    mass = [
        exp(whole - lgamma(q + 1) - lgamma(trials - q + 1) + q * odds + (trials - q) * rest)
        for q in range(trials + 1)
    ]
    return np.cumsum(mass[::-1])[::-1]


def quantiles(lengths: Sequence[int], limit: int) -> Positions:
    """How many quantiles of each answer the hub takes: some for one of mean length, more for a longer one."""
    each = min(max(limit // 60, 3), 8)
    shares = np.asarray(lengths) * (each * len(lengths) / sum(lengths))
    return np.maximum(np.rint(shares), 1).astype(np.intp)


def places(length: int, q: int, t: int, number: int, count: int) -> tuple[int, Positions]:
    """What a hub takes of one answer: how many of its first places, and which later ones.

    Args:
        length: the answer's.
        q: heads wanted; of a short answer quantiles are given up first, then heads; the last document stays.
        t: quantiles wanted; staggered, so that those of several answers lie between each other.
        number: which answer it is, of how many.
        count: how many there are.
    """
    tops, steps = min(q, length), min(t, max(length - q - 1, 0))
    stagger = (np.arange(steps) + (number + 0.5) / count) / max(steps, 1)
    later = np.unique(np.r_[tops + np.floor((length - tops) * stagger).astype(np.intp), length - 1])
    return tops, later[later >= tops]
