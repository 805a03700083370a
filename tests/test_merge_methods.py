"""The other methods: single, raw, rrf, full; and what a verdict does to each."""

import numpy as np
import pytest
from merge_measures import kendall
from merge_world import Api, Outcome, drive, stratified, truth, whole

from batchrank.merge.methods import METHODS
from batchrank.merge.start import start
from batchrank.outcomes import Overlap, Verdict


def run(
    method: str,
    family: str,
    *,
    verdict: Verdict = "relative",
    n: int = 2_000,
    probe: bool = False,
    noise: float = 0.0,
) -> Outcome:
    def answer(overlap: Overlap | None) -> Verdict:
        return verdict

    api = Api(truth(n, 0), family, 0, noise)
    return drive(start(method, stratified(n, 500), top_k=10, probe=probe), whole(api), answer)


def tau(outcome: Outcome, n: int = 2_000) -> float:
    rank = np.argsort(np.argsort(-truth(n, 0), kind="stable"), kind="stable")
    return kendall(rank[outcome.merged.order])


@pytest.mark.parametrize("method", sorted(METHODS))
def test_one_chunk_is_one_request_whatever_the_method(method: str) -> None:
    """n within one request: method single, all certified, scores as answered, even on a query that would probe."""
    outcome = run(method, "logistic", n=400, probe=True)
    assert (outcome.merged.method, outcome.requests, outcome.merged.certified) == ("single", 1, 400)
    assert (outcome.merged.scores == outcome.merged.raw_scores).all()


@pytest.mark.parametrize("family", ["logistic", "ordinal", "warped"])
def test_full_proves_the_whole_order(family: str) -> None:
    """Every two neighbours are seen together in the end, at 2.0-3.6 n documents."""
    outcome = run("full", family)
    assert outcome.merged.certified == 2_000
    assert tau(outcome) == 1.0
    assert outcome.documents <= 3.6 * 2_000


def test_full_returns_the_hubs_ranking_when_answers_contradict() -> None:
    """Noise leaves nothing to prove, so no windows are paid for."""
    outcome, hub = run("full", "logistic", noise=0.3), run("hub", "logistic", noise=0.3)
    assert outcome.documents == hub.documents
    assert outcome.merged.order.tolist() == hub.merged.order.tolist()
    assert (outcome.merged.method, outcome.merged.certified) == ("full", 0)


def test_rrf_costs_one_pass_and_promises_nothing() -> None:
    """Reciprocal rank fusion: one round, no verdict, scores 1 / (60 + rank)."""
    outcome = run("rrf", "ordinal", probe=True)
    assert (outcome.requests, outcome.rounds, outcome.merged.certified) == (4, 1, 0)
    assert outcome.merged.scores[0] == pytest.approx(1 / 61)
    assert tau(outcome) > 0.9


@pytest.mark.parametrize("method", ["hub", "full", "raw"])
def test_absolute_scores_are_sorted_raw(method: str) -> None:
    """An absolute verdict skips the hub; the order is certified, the drift is the probe's."""
    outcome = run(method, "identity", verdict="absolute", probe=True)
    assert (outcome.merged.method, outcome.rounds, outcome.documents) == ("raw", 1, 2_012)
    assert outcome.merged.certified == 2_000
    assert outcome.merged.drift == (0.0, 0.0)
    assert tau(outcome) == 1.0


def test_noisy_absolute_scores_are_sorted_raw_without_a_certificate() -> None:
    """Absolute up to numeric noise: no hub is paid for, nothing is proven."""
    outcome = run("hub", "identity", verdict="absolute, noisy", noise=0.01)
    assert (outcome.merged.method, outcome.documents, outcome.merged.certified) == ("raw", 2_000, 0)


def test_raw_reports_that_scores_are_relative() -> None:
    """Asked for by name, raw sorts whatever the verdict says, carries the probe, and certifies nothing."""
    outcome = run("raw", "logistic", probe=True)
    assert outcome.probe is not None
    assert (outcome.merged.method, outcome.merged.verdict, outcome.merged.certified) == ("raw", "relative", 0)
    assert outcome.merged.drift is not None
    assert outcome.merged.drift[1] > 0.05


def test_the_hub_gives_evidence_for_the_pooled_verdict() -> None:
    """Every pair of requests with what the documents scored in both."""
    merged = run("hub", "identity", verdict="unknown").merged
    assert merged.evidence is not None
    assert len(merged.evidence) == 60
    assert np.unique(merged.evidence.pair).tolist() == [0, 1, 2, 3]
    assert np.allclose(merged.evidence.first, merged.evidence.second)
    assert merged.verdict == "unknown"
