"""Effectiveness of a merged order against the true one, from the true ranks (from 0) of its documents, best first."""

import numpy as np
from numpy.typing import NDArray

CUTS, TOP_GRADE = np.array([2, 5, 10, 50, 200]), 5


def ndcg(ranks: NDArray[np.intp], k: int) -> float:
    """nDCG@k with grades 5/4/3/2/1 for true rank < 2/5/10/50/200 and gain 2^grade - 1."""
    gains = 2.0 ** (TOP_GRADE - np.searchsorted(CUTS, ranks[:k], side="right")) - 1
    ideal = 2.0 ** (TOP_GRADE - np.searchsorted(CUTS, np.arange(len(gains)), side="right")) - 1
    discount = 1 / np.log2(np.arange(len(gains)) + 2)
    return float(gains @ discount / (ideal @ discount))


def recall(ranks: NDArray[np.intp], k: int) -> float:
    """How much of the true top k stands in the top k."""
    return float((ranks[:k] < k).mean())


def kendall(ranks: NDArray[np.intp]) -> float:
    """Kendall's tau, by counting inversions in a merge sort."""
    n = len(ranks)
    return 1 - 4 * _inversions(ranks)[0] / (n * (n - 1)) if n > 1 else 1.0


def _inversions(ranks: NDArray[np.intp]) -> tuple[int, NDArray[np.intp]]:
    if len(ranks) <= 64:
        return int(np.triu(ranks[:, None] > ranks, 1).sum()), np.sort(ranks)
    middle = len(ranks) // 2
    (left, upper), (right, lower) = _inversions(ranks[:middle]), _inversions(ranks[middle:])
    across = len(upper) * len(lower) - int(np.searchsorted(upper, lower, side="right").sum())
    return left + right + across, np.sort(ranks)
