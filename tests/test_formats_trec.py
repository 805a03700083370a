"""The TREC run format."""

import io
from itertools import pairwise
from typing import BinaryIO, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.data import Query
from batchrank.errors import OutputError
from batchrank.outcomes import Merged, QueryCost, Ranking
from batchrank.write.formats import TrecWriter, decreasing

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def ranking(query_id: str, ids: list[str], scores: list[float]) -> Ranking:
    order, values = np.arange(len(scores)), np.array(scores)
    merged = Merged(order, values, values, 0, "raw")
    query = Query(query_id, "text", ids, ["a"] * len(ids))
    return Ranking.of(query, merged, QueryCost(1, 1, len(ids), 10, None))


def run(*rankings: Ranking) -> str:
    files = io.BytesIO(), io.BytesIO()
    writer = TrecWriter(cast(tuple[BinaryIO, ...], files))
    for one in rankings:
        writer.add(one)
    writer.finish()
    return files[0].getvalue().decode()


@given(
    st.lists(FLOATS | st.sampled_from([0.0, -0.0, 1.0, 1e-45, -1e-40, 1e300]), max_size=40), st.integers(0, 5)
)
def test_scores_are_strictly_decreasing_in_either_precision(scores: list[float], unscored: int) -> None:
    """Read as 32-bit or 64-bit floats, ties and missing scores included, the order is kept."""
    values = np.array(sorted(scores, reverse=True) + [np.nan] * unscored)
    texts = [f"{value:.9g}" for value in decreasing(values).tolist()]
    for dtype in (np.float32, np.float64):
        read = np.array([float(text) for text in texts]).astype(dtype).tolist()
        assert np.isfinite(read).all()
        assert all(later < earlier for earlier, later in pairwise(read))


def test_scores_that_need_no_change_are_kept() -> None:
    """Only ties are moved, and by no more than they must be."""
    scores = np.array([3.5, 2.25, 2.25, 2.0, -1.0])
    changed = decreasing(scores)
    assert changed[[0, 1, 3, 4]].tolist() == [3.5, 2.25, 2.0, -1.0]
    assert changed[2] == np.nextafter(np.float32(2.25), np.float32(-np.inf))


def test_trec_eval_sorts_into_the_order_given() -> None:
    """Sorted as trec_eval does, by score and then by document id, both falling, the run keeps its order."""
    ids = ["a", "z", "b", "y", "c"]
    lines = [line.split() for line in run(ranking("q", ids, [1.0, 1.0, 1.0, 0.0])).splitlines()]
    resorted = sorted(lines, key=lambda row: (np.float32(row[4]), row[2]), reverse=True)
    assert [row[2] for row in resorted] == ids
    assert [row[3] for row in lines] == ["1", "2", "3", "4", "5"]
    assert {(row[0], row[1], row[5]) for row in lines} == {("q", "Q0", "batchrank")}


@pytest.mark.parametrize(("query_id", "doc_id"), [("a b", "d"), ("q", "d\t1"), ("q", ""), ("q", "d\u3000e")])
def test_an_id_with_white_space_is_refused(query_id: str, doc_id: str) -> None:
    """No reader of a run could tell its columns apart; the message says what to do."""
    with pytest.raises(OutputError, match=r"white space.*output.format: parquet or jsonl"):
        run(ranking(query_id, [doc_id], [1.0]))
