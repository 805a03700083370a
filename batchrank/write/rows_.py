"""A ranking as the rows that every output format has: one a document, and one a query."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchrank.arrays import taken
from batchrank.outcomes import Ranking

RANKING = ("doc_id", "rank", "score", "raw_score", "first_stage_rank", "first_stage_score", "certified")


def top(ranking: Ranking, n: int | None) -> Ranking:
    """The first n documents; copies, so that the rest can be forgotten."""
    if n is None or n >= len(ranking):
        return ranking
    return replace(
        ranking,
        doc_ids=taken(ranking.doc_ids, np.arange(n)),
        scores=ranking.scores[:n].copy(),
        raw_scores=ranking.raw_scores[:n].copy(),
        first_stage_ranks=ranking.first_stage_ranks[:n].copy(),
        first_stage_scores=ranking.first_stage_scores[:n].copy(),
        documents=None if ranking.documents is None else ranking.documents[:n],
    )


def certified(ranking: Ranking) -> NDArray[np.bool_]:
    """For each document whether its rank is proven."""
    return np.arange(len(ranking)) < ranking.merge.certified


def ranking_rows(ranking: Ranking) -> list[dict[str, Any]]:
    """One row a document, best first; a missing number is NaN, which orjson writes as null."""
    columns = (
        ranking.doc_ids,
        range(1, len(ranking) + 1),
        ranking.scores.tolist(),
        ranking.raw_scores.tolist(),
        ranking.first_stage_ranks.tolist(),
        ranking.first_stage_scores.tolist(),
        certified(ranking).tolist(),
    )
    return [dict(zip(RANKING, row, strict=True)) for row in zip(*columns, strict=True)]


def merge_row(ranking: Ranking) -> dict[str, Any]:
    """How the ranking was made and what it took; ``documents`` counts those sent, repeats included."""
    merge, cost = ranking.merge, ranking.cost
    median, largest = merge.drift or (None, None)
    return {
        "documents": cost.documents,
        "chunks": cost.chunks,
        "requests": cost.requests,
        "tokens": cost.tokens,
        "cost": cost.cost,
        "method": merge.method,
        "certified": merge.certified,
        "verdict": merge.verdict,
        "drift": median,
        "drift_max": largest,
    }
