"""Whether a difference between two means could be chance: Fisher's paired randomisation test.

If reranking did nothing, each query's two values could as well be swapped. The p-value is the share of all such swaps
that give a mean difference at least as large as the one seen (two-sided): of all there are when they are few, of a
seeded sample of them otherwise. It assumes nothing about how values are distributed.
"""

from collections.abc import Sequence

import numpy as np

_EXACT = 16
"""Queries with a difference up to which all swaps are looked at: 2 ** 16."""
_SAMPLES = 20_000
_CHUNK = 2_000_000


def p_value(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> float:
    """The probability of a mean difference at least this large if the two were the same.

    Args:
        before: one value a query.
        after: aligned with ``before``.
        seed: of the sample.

    Returns:
        1 where no query differs; at least 1 / 20,001 where a sample was taken.
    """
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    # Sums of the same numbers in another order differ in their last digits; that is no difference.
    seen = abs(differences.sum()) - 1e-9 * np.abs(differences).sum()
    if len(differences) <= _EXACT:
        signs = 1 - 2 * ((np.arange(2 ** len(differences))[:, None] >> np.arange(len(differences))) & 1)
        return float((np.abs(signs @ differences) >= seen).mean())
    random = np.random.default_rng(seed)
    as_large, left, rows = 0, _SAMPLES, max(1, _CHUNK // len(differences))
    while left:
        signs = 1 - 2 * random.integers(0, 2, (min(rows, left), len(differences)), dtype=np.int8)
        as_large += int((np.abs(signs @ differences) >= seen).sum())
        left -= len(signs)
    return (as_large + 1) / (_SAMPLES + 1)
