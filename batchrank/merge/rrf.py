"""``rrf``: reciprocal rank fusion. No further request, no guarantee."""

from collections.abc import Generator

from batchrank.merge.answers import FirstPass, Pool, Reply, merged
from batchrank.merge.rounds import Step
from batchrank.merging import Merged, Verdict

RANK_CONSTANT = 60  # Cormack, Clarke and Buettcher, SIGIR 2009


def rrf(pool: Pool, first: FirstPass, verdict: Verdict, *, top_k: int) -> Generator[Step, Reply, Merged]:
    """Score by rank within the piece, as if all pieces were as long as the average one."""
    length = len(first.scored) / len(first.pieces)
    value = 1 / (RANK_CONSTANT + 0.5 + first.quantile * length)
    order = first.by(value)
    return merged(pool, first, order, value[order], method="rrf", verdict=verdict)
    yield  # a method is a generator, even one that asks for nothing more
