"""Lists the merge methods; has ``raw`` and ``rrf``, which prove nothing, and ``full``, all exact."""

from collections.abc import Generator, Sequence
from typing import Protocol

import numpy as np

from batchrank.data import Positions
from batchrank.merge.answers import (
    Answer,
    FirstPass,
    Pool,
    Reply,
    Step,
    ask,
    merged,
)
from batchrank.merge.certificate import rank_of
from batchrank.merge.evidence import Evidence
from batchrank.merge.hub import PATIENCE, gather, hub, longest_fitting
from batchrank.merge.reuse import Memory
from batchrank.merge.scale import by_raw_score
from batchrank.outcomes import Merged, Verdict


def raw(
    pool: Pool, first: FirstPass, verdict: Verdict, *, top_k: int, memory: Memory | None, noise: float | None
) -> Generator[Step, Reply, Merged]:
    """Sort the first pass; the verdict is reported, whatever it says."""
    return by_raw_score(pool, first, verdict)
    yield  # a method is a generator, even one that asks for nothing more


RANK_CONSTANT = 60
"""The k of reciprocal rank fusion, as Cormack, Clarke and Buettcher chose it (SIGIR 2009)."""


def rrf(
    pool: Pool, first: FirstPass, verdict: Verdict, *, top_k: int, memory: Memory | None, noise: float | None
) -> Generator[Step, Reply, Merged]:
    """Score by rank within the answer, as if all answers were as long as the average one."""
    length = len(first.scored) / len(first.answers)
    value = 1 / (RANK_CONSTANT + 0.5 + first.quantile * length)
    order = first.by(value)
    return merged(pool, first, order, value[order], method="rrf", verdict=verdict)
    yield  # a method is a generator, even one that asks for nothing more


MOST = (
    0.95  # this share of documents was misplaced by at most the reach: larger costs documents, smaller rounds
)


def full(
    pool: Pool, first: FirstPass, verdict: Verdict, *, top_k: int, memory: Memory | None, noise: float | None
) -> Generator[Step, Reply, Merged]:
    """The hub first; then windows until every two neighbours of the order were in one request.

    Only then can the order be exact: two neighbours that were never seen together could change places. When answers
    contradict each other there is no exact order, and the hub's ranking is returned.
    """
    known = yield from gather(pool, first, verdict, top_k=top_k, memory=memory, noise=noise)
    if isinstance(known, Merged):
        return known
    result = known.consistent("full")
    reach, stuck = 0, 0
    while result is not None and stuck < PATIENCE:
        order = pool.index(result.order[: len(first.scored)])
        windows = _windows(pool, order, _unseen(order, known, result.certified), reach)
        if not windows:
            break
        answers = yield from ask(pool, [pool.chunk(window, "repair") for window in windows])
        reach = max(reach, _misplaced(order, answers, len(pool)))
        known.extra += answers
        before, result = result.certified, known.consistent("full")
        stuck = 0 if result is not None and result.certified > before else stuck + 1
    return result or known.contradictory("full")


def _unseen(order: Positions, known: Evidence, depth: int) -> Positions:
    """Places whose document was never in one request with the next one, the proven ones left out."""
    seen = np.zeros(max(len(order) - 1, 0), dtype=bool)
    seen[: max(depth - 1, 0)] = True
    member = np.empty(len(known.first), dtype=bool)
    for answer in [*known.first.answers, *known.chains]:
        member[:] = False
        member[answer.docs] = True
        inside = member[order]
        seen |= inside[1:] & inside[:-1]
    return np.flatnonzero(~seen)


def _windows(pool: Pool, order: Positions, unseen: Positions, reach: int) -> list[Positions]:
    """Requests that together hold both sides of every gap and up to ``reach`` documents around each.

    Stretches of the order that lie apart may share a request; a stretch that is too long goes on in the next one, which
    repeats its end.
    """
    reach = min(reach, pool.limit // 4)
    windows = []
    while len(unseen):
        around = unseen[: pool.limit, None] + np.arange(-reach, reach + 2)
        places = np.unique(np.clip(around, 0, len(order) - 1))
        window = longest_fitting(pool, order[places])
        windows.append(window)
        end = int(places[len(window) - 1])
        # Where tokens bind so hard that the first gap lacks its surroundings, its own two documents must do.
        margin = reach if unseen[0] + 1 + reach <= end else 0
        unseen = unseen[max(int(np.searchsorted(unseen, end - margin)), 1) :]
    return windows


def _misplaced(order: Positions, answers: Sequence[Answer], n: int) -> int:
    """How far documents stood from where they belong in their windows."""
    rank = rank_of(order, n)
    shifts = [np.abs(np.argsort(np.argsort(rank[a.docs])) - np.arange(len(a))) for a in answers if len(a)]
    return int(np.quantile(np.concatenate(shifts), MOST)) if shifts else 0


class Build(Protocol):
    """A method after the first pass."""

    def __call__(
        self,
        pool: Pool,
        first: FirstPass,
        verdict: Verdict,
        *,
        top_k: int,
        memory: Memory | None,
        noise: float | None,
    ) -> Generator[Step, Reply, Merged]:
        """Go on from a first pass of at least two answers, or from what earlier runs told."""


METHODS: dict[str, Build] = {"hub": hub, "full": full, "rrf": rrf, "raw": raw}
BLIND = frozenset({"rrf"})  # methods to which the verdict makes no difference
COMPARING = frozenset(
    {"hub", "full"}
)  # methods that ask once more, unless scores can be compared as they are
