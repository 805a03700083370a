"""Reuse of earlier answers, in the simulated world: what is asked, what is exact, what is noticed."""

from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from merge_measures import kendall, ndcg
from merge_nights import Night, World
from merge_world import FAMILIES, stratified

from batchrank.merge.agreement import agreement, discord
from batchrank.merge.answers import Answer
from batchrank.merge.trust import Standing, Trust
from batchrank.outcomes import Agreement, Finding

FAMILY = ("logistic", "minmax", "ordinal")
MOST = {(400, 10): 0.10, (400, 100): 0.33, (2_000, 10): 0.07, (2_000, 100): 0.14, (10_000, 100): 0.08}
"""The share of documents that may be asked the second night, by number of candidates and depth."""


@cache
def second(n: int, k: int, family: str, seed: int, share: float = 0.02) -> Night:
    world = World(n, family, seed)
    world.night(k)
    world.replace(share)
    return world.night(k)


@pytest.mark.parametrize(("n", "k"), MOST)
@pytest.mark.parametrize("family", FAMILY)
def test_a_second_night_is_exact_and_asks_little(n: int, k: int, family: str) -> None:
    """2% of the documents are new, the order is shuffled: top k exact and certified, few documents asked."""
    for seed in range(2 if n < 10_000 else 1):
        night = second(n, k, family, seed)
        assert night.exact and night.certified >= k
        assert night.share <= MOST[n, k]


@pytest.mark.parametrize(("n", "k"), [(400, 10), (2_000, 10), (10_000, 100)])
def test_absolute_scores_are_never_asked_again(n: int, k: int) -> None:
    """Declared absolute: only new documents are asked, by any method, under any chunking."""
    for method in ("hub", "full", "raw"):
        world = World(n, "identity")
        world.night(k, declared="absolute", method=method)
        world.replace(0.02)
        night = world.night(k, declared="absolute", method=method)
        assert night.documents == round(0.02 * n) and kendall(night.ranks) == 1


def test_scores_found_absolute_need_no_hub() -> None:
    """A probe of known documents shows it; then old scores stand as they are."""
    world = World(2_000, "identity")
    world.night(10, declared="unknown")
    world.replace(0.02)
    night = world.night(10, declared="unknown")
    assert night.outcome.merged.verdict == "absolute"
    assert night.documents == 40 + 12 and kendall(night.ranks) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("n", "k", "most"), [(2_000, 10, 0.14), (2_000, 100, 0.24), (10_000, 100, 0.11)])
@pytest.mark.parametrize("family", FAMILY)
def test_thirty_nights(n: int, k: int, most: float, family: str) -> None:
    """2% new each night, nothing ever refreshed: exact, certified and cheap in every one; ten nights of long lists."""
    world = World(n, family)
    world.night(k)
    for _ in range(30 if n < 10_000 else 10):
        world.replace(0.02)
        night = world.night(k)
        assert night.exact and night.certified >= k and night.share <= most


def test_ten_nights_of_a_short_list() -> None:
    """The same for a list that fits one request."""
    world = World(400, "ordinal")
    world.night(10)
    for _ in range(10):
        world.replace(0.02)
        night = world.night(10)
        assert night.exact and night.certified >= 10 and night.share <= 0.10
        assert night.requests == 1


@pytest.mark.parametrize("n", [300, 2_000])
def test_removed_documents_cost_nothing(n: int) -> None:
    """A list that lost some is ranked from what is known."""
    world = World(n)
    world.night(10)
    best = np.argsort(-world.relevance[world.tonight])[:11]
    gone = np.random.default_rng(0).choice(np.setdiff1d(np.arange(n), best), 20, replace=False)
    world.tonight = np.delete(world.tonight, gone)
    night = world.night(10)
    assert night.requests == 0 and night.exact and night.certified >= 10


def test_the_same_list_is_asked_as_it_was() -> None:
    """An unchanged list makes the very same requests, which the ledger answers."""
    world = World(2_000)
    shards = stratified(2_000, 500)
    first = world.night(10, shards=shards)
    again = world.night(10, shards=shards)
    for one, two in zip(first.outcome.sent[:4], again.outcome.sent[:4], strict=True):
        assert np.array_equal(one.documents, two.documents)


def test_a_deeper_list_pays_for_what_is_new() -> None:
    """A thousand candidates where there were a hundred: 900, and a hub."""
    world = World(1_000)
    everything, world.tonight = world.tonight, world.tonight[:100]
    world.night(10)
    world.tonight = everything
    night = world.night(10)
    assert night.exact and night.certified >= 10
    assert 900 <= night.documents <= 970


def test_too_much_that_is_new_is_asked_as_ever() -> None:
    """Where reuse would save next to nothing, all is asked anew."""
    night = second(400, 100, "logistic", 0, 0.8)
    assert night.exact and night.documents == 400


@pytest.mark.parametrize("method", ["rrf", "raw", "full"])
def test_the_other_methods_reuse_what_they_can(method: str) -> None:
    """rrf and raw ask new documents only; full asks about their surroundings too, and is exact to the end."""
    world = World(1_000)
    world.night(10, method=method)
    world.replace(0.02)
    night = world.night(10, method=method)
    if method == "full":
        assert (night.ranks == np.arange(1_000)).all() and night.certified == 1_000
        assert night.share < 0.7
    else:
        assert night.documents == 20


def test_another_scale_is_ranked_right() -> None:
    """The model's scale changes between nights, its order doesn't."""
    world = World(2_000, "logistic")
    world.night(10)
    world.replace(0.02)
    world.family = "minmax"
    night = world.night(10)
    assert night.exact and night.certified >= 10 and night.share <= 0.07


@pytest.mark.parametrize("n", [400, 2_000])
def test_another_order_is_noticed_by_the_hub(n: int) -> None:
    """An audit told that the model has no noise, and a hub contradicts what was said: told, and all is asked anew."""
    world = World(n)
    world.night(10)
    world.replace(0.02)
    world.relevance = world.relevance + np.random.default_rng(1).normal(size=len(world.relevance))
    night = world.night(10, noise=0.0)
    assert [step.finding.changed for step in night.noticed] == [True]
    assert night.exact and night.documents > n


def test_where_nothing_tells_the_noise_a_contradiction_is_no_change() -> None:
    """Without audits, of a list of one request: the mean counts, nothing is certified, nothing is asked anew."""
    for seed in range(10):
        world = World(400, seed=seed, noise=0.3)
        world.night(10)
        world.replace(0.02)
        night = world.night(10)
        assert not night.noticed and night.certified == 0 and night.share < 0.1


def test_a_noisy_model_is_not_asked_again_about_the_same() -> None:
    """Nothing is new, and nothing can be proven: the mean of what is known is the ranking."""
    world = World(400, noise=0.1)
    world.night(10)
    world.replace(0.02)
    world.night(10)
    world.tonight = world.r.permutation(world.tonight)
    assert world.night(10).documents == 0


@pytest.mark.parametrize(("moved", "changed"), [(0.0, False), (0.3, True)])
def test_an_audit_tells_a_changed_model(moved: float, changed: bool) -> None:
    """One small old request, asked again: a moderate change of the order shows."""
    for seed in range(10):
        world = World(2_000, seed=seed)
        world.night(10)
        world.replace(0.02)
        world.relevance = world.relevance + moved * np.random.default_rng(seed).normal(
            size=len(world.relevance)
        )
        night = world.night(10, audit=True)
        audits = [step.finding for step in night.noticed if step.audit]
        assert [finding.changed for finding in audits] == [changed]
        assert night.exact


def test_noise_is_no_change() -> None:
    """A model that contradicts itself is measured by that: nothing is asked anew, and nothing is certified."""
    for seed in range(10):
        world = World(2_000, seed=seed, noise=0.1)
        world.night(10)
        world.replace(0.02)
        night = world.night(10, audit=True)
        assert not any(step.finding.changed for step in night.noticed)
        assert night.share < 0.1 and night.certified == 0


@pytest.mark.slow
def test_nights_average_noise() -> None:
    """A document that several nights' hubs held counts by the mean of all: no worse than asking everything anew."""
    reused, anew = [], []
    for family in ("logistic", "minmax", "warped"):
        for seed in range(30):
            world = World(1_000, family, seed, noise=0.3)
            world.night(10)
            for _ in range(5):
                world.replace(0.02)
                night = world.night(10, noise=0.1)
            reused.append(ndcg(night.ranks, 10))
            anew.append(ndcg(world.night(10, reuse=False).ranks, 10))
    assert np.mean(reused) >= np.mean(anew)


def test_agreement_counts_pairs_that_two_answers_order() -> None:
    """Of three documents in both answers, one pair is ordered alike, one isn't, and one is tied."""
    one = Answer(np.array([0, 1, 2]), np.array([3.0, 2.0, 1.0]))
    two = Answer.of(np.array([0, 1, 2, 9]), np.array([1.0, 2.0, 1.0, 0.0]))
    assert (discord(one, two).pairs, discord(one, two).against) == (2, 1)
    assert agreement([one, two]) == Agreement(1, 2)
    assert agreement([one]) is None


def test_agreement_does_not_count_an_answer_against_its_part() -> None:
    """What is taken out of an answer agrees with it, of course."""
    whole = Answer(np.array([0, 1, 2]), np.array([3.0, 2.0, 1.0]))
    assert agreement([whole.only(np.array([True, True, False])), whole]) is None


CHANGED, FINE = Finding(changed=True, against=0.4), Finding(changed=False)


def test_trust_waits_for_the_audits_that_decide_it() -> None:
    """The first span waits for the first audit, later ones for those of the spans before."""
    trust = Trust(10)
    trust.expect(0)
    trust.expect(1)
    assert trust.at(0) == Standing(holds=True, audit=True)
    assert trust.at(1) is None
    trust.record(0, FINE, audit=True)
    assert trust.at(1) == Standing(holds=True, noise=0.0)
    trust.expect(10)
    assert trust.at(10) == Standing(holds=True, audit=True, noise=0.0)
    assert trust.at(11) == Standing(holds=True, noise=0.0)
    assert trust.at(20) is None
    trust.record(10, CHANGED, audit=True)
    assert trust.at(20) == trust.at(10) == Standing(holds=False)
    assert trust.at(19) == Standing(holds=True, noise=0.0)
    assert trust.changed


def test_trust_is_restored_alike() -> None:
    """A resumed run decides as its earlier process did."""
    trust = Trust(10)
    for position in (0, 10):
        trust.expect(position)
    trust.record(0, Finding(changed=False, noise=0.02), audit=True)
    trust.record(3, CHANGED, audit=False)
    trust.ended(10)
    other = Trust(10)
    other.restore(0, Finding(changed=False, noise=0.02), audit=True)
    other.restore(3, CHANGED, audit=False)
    other.expect(10)
    other.ended(10)
    for position in (1, 3, 5, 20):
        assert other.at(position) == trust.at(position)
    assert other.at(20) == Standing(holds=True, noise=0.02)


def test_without_audits_everything_holds() -> None:
    """Nobody waits, and one query's finding concerns that query."""
    trust = Trust(0)
    trust.expect(0)
    trust.record(5, CHANGED, audit=False)
    assert trust.at(1) == Standing(holds=True) and trust.at(5) == Standing(holds=False)


@settings(max_examples=20, deadline=None)
@example(n=51, limit=17, k=12, family="identity", levels=5, seed=0, nights=[0.5])
@given(
    n=st.integers(4, 120),
    limit=st.integers(4, 40),
    k=st.integers(1, 30),
    family=st.sampled_from(sorted(FAMILIES)),
    levels=st.integers(2, 500),
    seed=st.integers(0, 2**20),
    nights=st.lists(st.floats(0, 0.6), min_size=1, max_size=5),
)
def test_random_nights(
    n: int, limit: int, k: int, family: str, levels: int, seed: int, nights: list[float]
) -> None:
    """Adds, removals, reorders and ties: never a false certificate, never more documents than without reuse."""
    world = World(n, family, seed, limit)
    world.levels = None if family == "ordinal" else levels  # ranks alone tell ties in any order
    world.night(k)
    for share in nights:
        world.replace(share)
        kept = len(world.kept)
        night = world.night(k)
        true = world.true()
        order = night.outcome.merged.order
        certified = true[order[: night.certified]]
        rest = true[order[night.certified :]]
        assert (np.diff(certified) <= 0).all()
        assert not len(rest) or not len(certified) or certified[-1] >= rest.max()
        fresh, world.kept = world.kept[kept:], world.kept[:kept]
        world.run -= 1  # the very same chunks
        anew = world.night(k, reuse=False)
        world.kept = world.kept[:kept] + fresh
        assert night.documents <= anew.documents
