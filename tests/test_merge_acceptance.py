"""The method paper's acceptance cases, in its simulated world, with its exact numbers."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from merge_measures import kendall, ndcg
from merge_world import Api, Outcome, Shards, contiguous, drive, stratified, truth, whole

from batchrank.merge.start import start
from batchrank.merge.verdict import Verdicts
from batchrank.outcomes import Overlap, Verdict


class Case:
    """One query of the simulated world, merged."""

    def __init__(
        self,
        n: int,
        k: int,
        family: str,
        seed: int,
        *,
        method: str = "hub",
        probe: bool = False,
        shards: Shards | None = None,
        noise: float = 0.0,
    ) -> None:
        self.n, self.k = n, k
        relevance = truth(n, seed)
        self.best = np.argsort(-relevance, kind="stable")
        self.rank = np.empty(n, dtype=np.intp)
        self.rank[self.best] = np.arange(n)
        api = Api(relevance, family, seed, noise)
        generator = start(method, shards or stratified(n, 500, seed), top_k=k, probe=probe)
        self.outcome: Outcome = drive(generator, whole(api), self._verdict(probe))
        self.ranks = self.rank[self.outcome.merged.order]

    @staticmethod
    def _verdict(probe: bool) -> Callable[[Overlap | None], Verdict]:
        verdicts = Verdicts("unknown" if probe else "relative")

        def answer(overlap: Overlap | None) -> Verdict:
            verdicts.record_probe(0, 0, overlap)
            verdict = verdicts.at(0, 0)
            assert verdict is not None
            return verdict

        return answer

    @property
    def exact(self) -> bool:
        return bool((self.ranks[: self.k] == np.arange(self.k)).all())

    @property
    def tau(self) -> float:
        return kendall(self.ranks)


@cache
def first_case() -> list[Case]:
    return [Case(2_000, 10, "logistic", seed) for seed in range(10)]


def test_the_world_is_the_papers() -> None:
    """n = 2,000, seed 0 has the true top five 13, 166, 159, 0, 238."""
    assert np.argsort(-truth(2_000, 0), kind="stable")[:5].tolist() == [13, 166, 159, 0, 238]


def test_case_1_top_10_of_2000_is_exact() -> None:
    """Logistic, seeds 0-9: top 10 exact in all, tau >= .9999, at most 2,062 documents and 5 requests on average."""
    cases = first_case()
    assert all(case.exact and case.outcome.merged.certified >= 10 for case in cases)
    assert np.mean([case.tau for case in cases]) >= 0.9999
    assert np.mean([case.outcome.documents for case in cases]) <= 2_062
    requests = [case.outcome.requests for case in cases]
    assert np.median(requests) == 5
    assert max(requests) <= 6


def test_case_1_raw_contiguous_is_wrong() -> None:
    """Sorting raw scores of contiguous chunks on the same: tau .63, nDCG@10 .55."""
    cases = [Case(2_000, 10, "logistic", s, method="raw", shards=contiguous(2_000, 500)) for s in range(10)]
    assert np.mean([case.tau for case in cases]) == pytest.approx(0.63, abs=0.01)
    assert np.mean([ndcg(case.ranks, 10) for case in cases]) == pytest.approx(0.55, abs=0.01)


def test_case_2_top_100_of_10000_is_exact() -> None:
    """Nothing but ranks, seeds 0-4: top 100 exact, tau >= .979, at most 10,675 documents and 22 requests."""
    cases = [Case(10_000, 100, "ordinal", seed) for seed in range(5)]
    assert all(case.exact and case.outcome.merged.certified >= 100 for case in cases)
    assert np.mean([case.tau for case in cases]) >= 0.979
    assert max(case.outcome.documents for case in cases) <= 10_675
    assert max(case.outcome.requests for case in cases) <= 22


def test_case_2_an_adversary_can_not_hide_the_top_in_one_chunk() -> None:
    """Chunk 0 holds the true top 100 and the worst 400: still certified 100, within 23 requests."""
    best = np.argsort(-truth(10_000, 0), kind="stable")
    middle = np.random.default_rng(0).permutation(best[100:-400])
    chunks = [np.sort(np.r_[best[:100], best[-400:]]), *(np.sort(part) for part in np.split(middle, 19))]
    case = Case(10_000, 100, "ordinal", 0, shards=Shards(chunks, 500, np.ones(10_000, dtype=np.int64)))
    assert case.exact
    assert case.outcome.merged.certified >= 100
    assert case.outcome.requests <= 23


def test_case_3_absolute_scores_cost_one_pass_and_the_probe() -> None:
    """Identity, seeds 0-9, probe on: absolute 10 of 10, 2,012 documents, one round, tau 1."""
    for seed in range(10):
        case = Case(2_000, 10, "identity", seed, probe=True)
        assert case.outcome.merged.verdict == "absolute"
        assert (case.outcome.documents, case.outcome.rounds, case.tau) == (2_012, 1, 1.0)


@pytest.mark.parametrize("family", ["minmax", "logistic", "ordinal"])
def test_case_3_relative_scores_are_found_out(family: str) -> None:
    """Relative families, seeds 0-9, probe on: relative 10 of 10 and top 10 exact."""
    for seed in range(10):
        case = Case(2_000, 10, family, seed, probe=True)
        assert case.outcome.merged.verdict == "relative"
        assert case.exact


@pytest.mark.parametrize(
    ("n", "k", "budget"), [(2_000, 10, 1.04), (5_000, 10, 1.04), (2_000, 100, 1.09), (5_000, 100, 1.06)]
)
def test_documents_sent_stay_within_budget(n: int, k: int, budget: float) -> None:
    """Mean over families and seeds: 1.04 n at k = 10; at k = 100 1.09 n (n = 2,000), 1.06 n (n >= 5,000)."""
    sent = [
        Case(n, k, family, seed).outcome.documents
        for family in ("minmax", "softmax", "logistic", "ordinal", "warped")
        for seed in range(4)
    ]
    assert np.mean(sent) <= budget * n


def test_noise_leaves_the_hub_at_least_as_good_as_one_unlimited_request() -> None:
    """With noise (sigma .3) and k = 100, nDCG@10 and tau are at or about what one request of all documents gives."""
    families = ("minmax", "softmax", "logistic", "ordinal", "warped")
    cases = [Case(10_000, 100, family, seed, noise=0.3) for seed in range(4) for family in families]
    everything = contiguous(10_000, 10_000)
    alone = [Case(10_000, 100, "logistic", seed, noise=0.3, shards=everything) for seed in range(4)]
    assert all(case.outcome.merged.method == "single" for case in alone)
    assert all(case.outcome.merged.certified == 0 for case in cases)
    assert np.mean([ndcg(c.ranks, 10) for c in cases]) >= np.mean([ndcg(c.ranks, 10) for c in alone])
    assert np.mean([c.tau for c in cases]) >= np.mean([c.tau for c in alone]) - 0.005


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_noise_is_averaged_at_the_top(noise: float) -> None:
    """What two requests say of a document counts: better than one unlimited request, as the paper's table has it."""
    n, seeds = 2_000, range(30)
    families = ("logistic", "minmax", "warped")
    merged = [ndcg(Case(n, 100, f, seed, noise=noise).ranks, 10) for f in families for seed in seeds]
    alone = []
    for seed in seeds:
        relevance = truth(n, seed)
        rank = np.argsort(np.argsort(-relevance, kind="stable"), kind="stable")
        answer = Api(relevance, "logistic", seed, noise)(np.arange(n))
        alone.append(ndcg(rank[np.argsort(-answer, kind="stable")], 10))
    assert np.mean(merged) > np.mean(alone)
