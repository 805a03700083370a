"""The simple merge methods, without a further request or a guarantee: ``raw`` sorts all scores, ``rrf`` fuses ranks."""

from collections.abc import Generator

import numpy as np

from batchrank.merge.answers import FirstPass, Pool, Reply, Step, drift, merged, overlap
from batchrank.merge.scale import informative, natural
from batchrank.outcomes import Merged, Verdict


def raw(pool: Pool, first: FirstPass, verdict: Verdict, *, top_k: int) -> Generator[Step, Reply, Merged]:
    """Sort the first pass; the verdict is reported, whatever it says."""
    return by_raw_score(pool, first, verdict)
    yield  # a method is a generator, even one that asks for nothing more


def by_raw_score(pool: Pool, first: FirstPass, verdict: Verdict) -> Merged:
    """Sort by score. The order is certified only if the scores were found, or declared, absolute without noise."""
    order = first.by(first.raw)
    twice = overlap(first, first.probes)
    return merged(
        pool,
        first,
        order,
        first.raw[order],
        method="raw",
        certified=len(order) if verdict == "absolute" else 0,
        verdict=verdict,
        drift=None if twice is None else drift(twice.first, twice.second),
    )


def by_standard_score(pool: Pool, first: FirstPass, verdict: Verdict) -> Merged:
    """Sort by the z-score of the logit within each piece: the best guess without any shared document."""
    link = natural(first.raw[first.scored])
    linked = np.full(len(first), np.nan)
    value = linked.copy()
    for piece in first.pieces:
        linked[piece.docs] = link.forward(piece.values)
        inside = informative(piece.values)
        used = linked[piece.docs][inside] if inside.any() else linked[piece.docs]
        spread = used.std()
        value[piece.docs] = (linked[piece.docs] - used.mean()) / (spread if spread > 0 else 1.0)
    order = first.by(value)
    typical = linked[first.scored]
    scores = link.inverse(typical.mean() + value[order] * typical.std())
    return merged(pool, first, order, scores, method="hub (fallback)", verdict=verdict)


RANK_CONSTANT = 60  # Cormack, Clarke and Buettcher, SIGIR 2009


def rrf(pool: Pool, first: FirstPass, verdict: Verdict, *, top_k: int) -> Generator[Step, Reply, Merged]:
    """Score by rank within the piece, as if all pieces were as long as the average one."""
    length = len(first.scored) / len(first.pieces)
    value = 1 / (RANK_CONSTANT + 0.5 + first.quantile * length)
    order = first.by(value)
    return merged(pool, first, order, value[order], method="rrf", verdict=verdict)
    yield  # a method is a generator, even one that asks for nothing more
