"""The simple merge methods, without a further request or a guarantee: ``raw`` sorts all scores, ``rrf`` fuses ranks."""

from collections.abc import Generator

from batchrank.merge.answers import FirstPass, Pool, Reply, Step, merged
from batchrank.merge.scale import by_raw_score
from batchrank.outcomes import Merged, Verdict


def raw(pool: Pool, first: FirstPass, verdict: Verdict, *, top_k: int) -> Generator[Step, Reply, Merged]:
    """Sort the first pass; the verdict is reported, whatever it says."""
    return by_raw_score(pool, first, verdict)
    yield  # a method is a generator, even one that asks for nothing more


RANK_CONSTANT = 60  # Cormack, Clarke and Buettcher, SIGIR 2009


def rrf(pool: Pool, first: FirstPass, verdict: Verdict, *, top_k: int) -> Generator[Step, Reply, Merged]:
    """Score by rank within the piece, as if all pieces were as long as the average one."""
    length = len(first.scored) / len(first.pieces)
    value = 1 / (RANK_CONSTANT + 0.5 + first.quantile * length)
    order = first.by(value)
    return merged(pool, first, order, value[order], method="rrf", verdict=verdict)
    yield  # a method is a generator, even one that asks for nothing more
