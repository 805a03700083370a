"""The run-wide verdict: what evidence decides, and that only positions matter, never the order of completion."""

import json
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_world import Api, drive, stratified, truth, whole

from batchrank.merge.comparable import Components, HubSums, Probe
from batchrank.merge.start import start
from batchrank.merge.verdict import HUBS, SPAN, Verdicts
from batchrank.outcomes import Overlap, Verdict


@cache
def hub(family: str, seed: int, noise: float = 0.0, n: int = 2_000) -> Overlap:
    """What the hub of one simulated query shows."""
    api = Api(truth(n, seed), family, seed, noise)
    merged = drive(
        start("hub", stratified(n, 500, seed), top_k=10), whole(api), lambda probe: "relative"
    ).merged
    assert merged.evidence is not None
    return merged.evidence


def probe(shift: float = 0.0, noise: float = 0.0) -> Overlap:
    """A probe of 12 documents whose logits differ by a shift and noise, as shares of the interquartile range."""
    y = np.linspace(-3, 3, 12)
    moved = y + 3 * (shift + noise * np.random.default_rng(1).normal(size=12))
    low, high = 1 / (1 + np.exp(np.array([1.5, -1.5])))
    return Overlap(np.zeros(12, dtype=np.intp), 1 / (1 + np.exp(-y)), 1 / (1 + np.exp(-moved)), (low, high))


def pooled(hubs: Sequence[Overlap]) -> Components:
    return Components.of([HubSums.of(one) for one in hubs])


def settled(first: Overlap | None, hubs: Sequence[Overlap | None]) -> Verdicts:
    """Verdicts after a probe and the hubs of the first queries."""
    verdicts = Verdicts()
    verdicts.record_probe(0, first)
    for ordinal, one in enumerate(hubs):
        verdicts.record_hub(ordinal, one)
    return verdicts


def test_a_declared_card_needs_no_evidence() -> None:
    """Declared absolute or relative: no probe, no waiting."""
    for declared in ("absolute", "relative"):
        verdicts = Verdicts(declared)
        assert not verdicts.carries_probe(0)
        assert verdicts.at(7) == declared
        verdicts.record_hub(7, None)
        assert verdicts.state()["hubs"] == {}


def test_probes_are_carried_by_position() -> None:
    """The first multi-chunk query and every 1,000th."""
    verdicts = Verdicts()
    assert [at for at in range(3_001) if verdicts.carries_probe(at)] == [0, 1_000, 2_000, 3_000]


def test_everyone_waits_for_the_first_probe_and_nobody_for_more() -> None:
    """Up to ordinal 31 only the probe decides; past it the first 32 hubs do, a block at a time."""
    verdicts = Verdicts()
    assert verdicts.at(0) is None
    assert verdicts.at(5) is None
    verdicts.record_probe(0, probe(shift=1))
    assert [verdicts.at(at) for at in (0, 5, 31)] == ["relative"] * 3
    assert verdicts.at(32) is None


def test_the_strict_test_allows_one_percent_of_the_spread() -> None:
    """Equal within 1% of the interquartile range is absolute; 2% isn't."""
    assert Probe.of(probe(shift=0.009)).finding == "equal"
    assert Probe.of(probe(shift=0.02)).finding == "different"


def test_a_probe_that_says_nothing_leaves_the_verdict_unknown() -> None:
    """Failed, saturated or without any spread: unknown, and queries get a hub."""
    flat = Overlap(np.zeros(12, dtype=np.intp), np.full(12, 0.5), np.full(12, 0.5), (0.5, 0.5))
    ones = Overlap(np.zeros(12, dtype=np.intp), np.ones(12), np.ones(12), (0.1, 0.9))
    for evidence in (None, flat, ones):
        verdicts = settled(evidence, [])
        assert verdicts.at(0) == "unknown"


def test_saturation_on_one_side_only_is_a_difference() -> None:
    """1.0 in one request and .7 in the other isn't saturation but a shift."""
    first, second = np.full(12, 0.7), np.ones(12)
    assert Probe.of(Overlap(np.zeros(12, dtype=np.intp), first, second, (0.1, 0.9))).finding == "different"


def test_a_query_that_ended_without_a_probe_blocks_nobody() -> None:
    """record_hub closes a probe that was never recorded."""
    verdicts = Verdicts()
    verdicts.record_hub(0, None)
    assert verdicts.at(1) == "unknown"


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
def test_noise_alone_is_pooled_to_absolute(noise: float) -> None:
    """Absolute scores with numeric noise: after 32 hubs, queries skip the hub."""
    verdicts = settled(probe(noise=noise), [hub("identity", seed, noise) for seed in range(HUBS)])
    assert verdicts.at(31) == "relative"
    assert verdicts.at(32) == "absolute, noisy"
    assert verdicts.at(500) == "absolute, noisy"


@pytest.mark.parametrize("family", ["minmax", "softmax", "logistic", "ordinal", "warped"])
def test_relative_scores_are_never_pooled_to_absolute(family: str) -> None:
    """No relative family passes, neither pooled nor on one query alone."""
    hubs = [hub(family, seed) for seed in range(12)]
    assert not pooled(hubs).absolute
    assert not any(pooled([one]).absolute for one in hubs)


def test_a_shift_of_five_percent_is_found() -> None:
    """Per-request shifts of 5% of the interquartile range are too much, however little noise there is."""
    hubs = []
    for seed in range(HUBS):
        one = hub("identity", seed, 0.05)
        low, high = np.log(np.array(one.quartiles) / (1 - np.array(one.quartiles)))
        shift = 0.05 * (high - low) * np.random.default_rng(seed).normal(size=8)
        second = np.log(one.second / (1 - one.second)) + shift[one.pair]
        hubs.append(Overlap(one.pair, one.first, 1 / (1 + np.exp(-second)), one.quartiles))
    assert not pooled(hubs).absolute


def test_failed_queries_extend_the_pool_by_blocks() -> None:
    """With 5 of the first 32 without a hub, the second block still runs hubs and completes the pool."""
    hubs: list[Overlap | None] = [None if at < 5 else hub("identity", at % 32, 0.1) for at in range(64)]
    verdicts = settled(probe(noise=0.1), hubs)
    assert verdicts.at(32) == "relative"
    assert verdicts.at(63) == "relative"
    assert verdicts.at(64) == "absolute, noisy"


def test_a_spot_check_can_turn_absolute_to_relative() -> None:
    """The flip holds from its ordinal on, not before, and is told."""
    verdicts = settled(probe(), [])
    assert verdicts.at(SPAN) is None
    verdicts.record_probe(SPAN, probe(shift=0.5))
    assert verdicts.at(SPAN - 1) == "absolute"
    assert verdicts.at(SPAN) == "relative"
    (flip,) = verdicts.flips()
    assert (flip.ordinal, flip.before) == (SPAN, "absolute")
    assert flip.deviation == pytest.approx(0.5, abs=0.01)


def test_a_spot_check_bears_the_noise_that_was_pooled() -> None:
    """Noisy scores fail the strict test for ever: only more than the known noise flips the verdict."""
    hubs = [hub("identity", seed, 0.1) for seed in range(HUBS)]
    verdicts = settled(probe(noise=0.1), hubs)
    verdicts.record_probe(SPAN, probe(noise=0.1))
    assert verdicts.at(SPAN) == "absolute, noisy"
    assert verdicts.flips() == []
    verdicts.record_probe(2 * SPAN, probe(shift=1))
    assert verdicts.at(2 * SPAN + 3) == "relative"
    assert [flip.ordinal for flip in verdicts.flips()] == [2 * SPAN]


def test_an_empty_spot_check_changes_nothing() -> None:
    """A probe that failed leaves what held before."""
    verdicts = settled(probe(), [])
    verdicts.record_probe(SPAN, None)
    assert verdicts.at(SPAN + 1) == "absolute"


def test_evidence_is_bounded() -> None:
    """Once the pool is full, or isn't needed, hubs are no longer kept."""
    full = settled(probe(noise=0.1), [hub("identity", at % 32, 0.1) for at in range(300)])
    assert len(full.state()["hubs"]) == HUBS
    absolute = settled(probe(), [None] * 300)
    assert absolute.state()["hubs"] == {}


class Run:
    """A run of many queries that finish in a drawn order; each asks as soon as its first round is over."""

    def __init__(self, total: int, kinds: Sequence[str]) -> None:
        self.total, self.kinds = total, kinds

    def evidence(self, ordinal: int) -> Overlap | None:
        kind = self.kinds[ordinal % len(self.kinds)]
        return None if kind == "failed" else hub("identity", ordinal % 8, 0.1 if kind == "noise" else 0.0)

    def play(
        self, order: np.random.Generator, width: int, verdicts: Verdicts, done: int = 0
    ) -> list[Verdict]:
        """At most ``width`` queries are open at a time, oldest first; which of them moves is drawn."""
        answers: dict[int, Verdict] = {}
        opened, asking = done, set[int]()
        while len(answers) < self.total - done:
            while opened < self.total and len(asking) < width:
                asking.add(opened)
                opened += 1
            for ordinal in order.permutation(sorted(asking)).tolist():
                if verdicts.carries_probe(ordinal):
                    verdicts.record_probe(ordinal, probe(noise=0.1))
                verdict = verdicts.at(ordinal)
                if verdict is None:
                    continue
                answers[ordinal] = verdict
                skipped = verdict.startswith("absolute")
                verdicts.record_hub(ordinal, None if skipped else self.evidence(ordinal))
                asking.discard(ordinal)
        return [answers[ordinal] for ordinal in sorted(answers)]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**16),
    st.integers(1, 80),
    st.lists(st.sampled_from(["noise", "noise", "failed", "exact"]), min_size=1, max_size=7),
)
def test_the_order_of_completion_never_matters(seed: int, width: int, kinds: list[str]) -> None:
    """Whatever finishes first, and however many are open: the same answers, no deadlock; a rerun from any state too."""
    run = Run(150, kinds)
    expected = run.play(np.random.default_rng(0), 1, Verdicts())
    verdicts = Verdicts()
    assert run.play(np.random.default_rng(seed), width, verdicts) == expected
    restored = Verdicts.restore(json.loads(json.dumps(verdicts.state())))
    assert run.play(np.random.default_rng(seed), width, restored, done=40) == expected[40:]
