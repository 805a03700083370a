"""How alike two rankings of the same query are. Pure."""

from collections.abc import Sequence

import numpy as np


def rbo(first: Sequence[str], second: Sequence[str], p: float = 0.9) -> float:
    """Rank-biased overlap, extrapolated from what is seen: RBO_ext of Webber, Moffat and Zobel (2010), equation 32.

    A reader goes on from one rank to the next with probability ``p``: the top weighs most. The agreement at the last
    rank is taken to go on for ever.

    Args:
        first: document ids, best first, none twice.
        second: likewise; the lengths may differ.
        p: between 0 and 1; 0.9 puts 86% of the weight on the first ten ranks.

    Returns:
        0 for nothing in common, 1 for the same ranking.
    """
    short, long = sorted((first, second), key=len)
    s, n = len(short), len(long)
    if list(first) == list(second):
        return 1.0
    if not s:
        return 0.0
    overlap = _overlaps(short, long)
    total = sum(overlap[d] / d * p**d for d in range(1, n + 1))
    total += sum(overlap[s] * (d - s) / (s * d) * p**d for d in range(s + 1, n + 1))
    return (1 - p) / p * total + ((overlap[n] - overlap[s]) / n + overlap[s] / s) * p**n


def _overlaps(short: Sequence[str], long: Sequence[str]) -> list[int]:
    """How many documents the first d ranks have in common, for each d from 0."""
    found, seen = [0], set[str]()
    for d, name in enumerate(long):
        new = [name, short[d]] if d < len(short) else [name]
        count = found[-1]
        for other in new:
            count += other in seen
            seen.add(other)
        found.append(count)
    return found


def kendall_tau(first: Sequence[str], second: Sequence[str]) -> float:
    """Kendall's tau-b over the documents of both rankings; one that a ranking lacks is tied with others below its end.

    Args:
        first: document ids, best first, none twice.
        second: likewise.

    Returns:
        1 for the same ranking, -1 for the reverse; 0 where nothing can be told.
    """
    if list(first) == list(second):
        return 1.0
    names = list(dict.fromkeys([*first, *second]))
    ranks = []
    for ranking in (first, second):
        at = {name: rank for rank, name in enumerate(ranking)}
        ranks.append(np.array([at.get(name, len(ranking)) for name in names]))
    upper = np.triu_indices(len(names), 1)
    one, two = (np.sign(rank[:, None] - rank[None, :])[upper] for rank in ranks)
    ties = float(np.sqrt(np.count_nonzero(one) * float(np.count_nonzero(two))))
    return float(one @ two) / ties if ties else 0.0
