"""Calibration: each family's link is found, noise is shrunk away, and nothing breaks an answer's own order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from merge_measures import kendall
from merge_world import Api, stratified, truth

from batchrank.merge.answers import Answer, FirstPass, Pool
from batchrank.merge.calibration import Estimate, calibrate
from batchrank.merge.hub import hubs
from batchrank.merge.scale import falling, informative, links, scale


def calibrated(
    family: str, *, noise: float = 0.0, n: int = 2_000, w: int = 500, k: int = 10
) -> tuple[Estimate, float]:
    """The chosen model, and tau of the order by its values alone."""
    y = truth(n, 0)
    api, shards = Api(y, family, 0, noise), stratified(n, w, 0)
    first = FirstPass(n, [Answer.of(chunk, api(chunk)) for chunk in shards.chunks])
    parts = hubs(Pool(shards), first, k)
    estimate = calibrate(first, scale(first, [Answer.of(part, api(part)) for part in parts]))
    rank = np.argsort(np.argsort(-y, kind="stable"), kind="stable")
    return estimate, kendall(rank[first.by(estimate.value)])


@pytest.mark.parametrize(
    ("family", "models"),
    [
        ("logistic", {"line (logit)"}),
        ("minmax", {"line (identity)"}),
        ("softmax", {"line (log)", "line (identity)"}),
    ],
)
def test_families_that_are_lines_are_put_right_exactly(family: str, models: set[str]) -> None:
    """Leave-one-out finds the link, and the order by value is the true one."""
    estimate, tau = calibrated(family)
    assert estimate.model in models
    assert estimate.error == pytest.approx(0, abs=1e-6)
    assert tau == pytest.approx(1, abs=1e-6)


def test_scores_that_are_only_ranks_take_a_model_of_ranks() -> None:
    """No line fits ranks; counting better documents does."""
    estimate, tau = calibrated("ordinal", n=10_000, k=100)
    assert estimate.model == "ranks"
    assert tau > 0.978


@pytest.mark.parametrize("family", ["logistic", "minmax", "ordinal", "warped"])
def test_noise_is_shrunk_away(family: str) -> None:
    """With sigma .3 the tail is about as good as one request of all documents would be (tau .825)."""
    _, tau = calibrated(family, noise=0.3, n=5_000, k=100)
    assert tau > 0.81


@pytest.mark.parametrize("family", ["logistic", "minmax", "softmax"])
def test_several_hubs_make_one_scale(family: str) -> None:
    """Hubs that share references are aligned exactly where one is a line of the other."""
    _, tau = calibrated(family, w=100, k=100)
    assert tau > 0.9999


def test_answers_with_little_overlap_take_the_rank_model() -> None:
    """Under four informative pairs no line is fitted; values stay within those of the answer's neighbours."""
    y = np.arange(60, 0, -1).astype(float)
    answers = [Answer.of(np.arange(0, 30), y[:30]), Answer.of(np.arange(30, 60), y[30:])]
    first = FirstPass(60, answers)
    docs = np.array([0, 5, 10, 15, 20, 29, 30, 45, 59])
    estimate = calibrate(first, scale(first, [Answer.of(docs, y[docs] / 100)]))
    own = estimate.value[30:]
    assert np.isfinite(estimate.value).all()
    assert (np.diff(own) <= 1e-12).all()


def test_saturated_scores_are_not_informative() -> None:
    """Probabilities of exactly 0 and 1 carry no slope; unbounded scores always do."""
    assert informative(np.array([0.0, 0.5, 1.0])).tolist() == [False, True, False]
    assert informative(np.array([0.0, 5.0, 1.0])).all()


def test_links_follow_the_range_of_scores() -> None:
    """Logits of unbounded scores don't exist."""
    assert [link.name for link in links(np.array([0.1, 0.9]))] == ["logit", "identity", "log"]
    assert [link.name for link in links(np.array([0.1, 9.0]))] == ["identity", "log"]
    assert [link.name for link in links(np.array([-0.1, 0.9]))] == ["identity"]


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(1, 3)), min_size=1, max_size=12))
def test_isotonic_regression_is_the_nearest_falling_sequence(pairs: list[tuple[int, int]]) -> None:
    """It falls, keeps the weighted mean, and satisfies the min-max formula."""
    values = np.array([value for value, _ in pairs], dtype=float)
    weights = np.array([weight for _, weight in pairs], dtype=float)
    fitted = falling(values, weights)
    assert (np.diff(fitted) <= 1e-12).all()

    def mean(i: int, j: int) -> float:
        return float(np.average(values[i : j + 1], weights=weights[i : j + 1]))

    n = len(values)
    expected = [min(max(mean(i, j) for j in range(at, n)) for i in range(at + 1)) for at in range(n)]
    assert fitted == pytest.approx(expected)
