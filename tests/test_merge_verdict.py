"""The verdict: what evidence decides, that only places matter and never the order of completion, and that a part needs
only part 0."""

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
from batchrank.merge.verdict import HUBS, Flip, Verdicts
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
    """Verdicts after a probe and the hubs of the first queries of part 0."""
    verdicts = Verdicts()
    verdicts.record_probe(0, 0, first)
    for index, one in enumerate(hubs):
        verdicts.record_hub(0, index, one)
    return verdicts


def test_a_declared_card_needs_no_evidence() -> None:
    """Declared absolute or relative: no probe, no waiting."""
    for declared in ("absolute", "relative"):
        verdicts = Verdicts(declared)
        assert not verdicts.carries_probe(0)
        assert verdicts.at(0, 7) == verdicts.at(5, 0) == verdicts.before(0, 0) == declared
        assert verdicts.head == {"verdict": declared, "pooled": None}


def test_probes_are_carried_by_place() -> None:
    """The first multi-chunk query of each part."""
    verdicts = Verdicts()
    assert [at for at in range(3_001) if verdicts.carries_probe(at)] == [0]


def test_everyone_waits_for_the_first_probe_and_nobody_for_more() -> None:
    """Up to index 31 of part 0 only the probe decides; past it the first 32 hubs do, a block at a time."""
    verdicts = Verdicts()
    assert verdicts.at(0, 0) is None
    assert verdicts.at(0, 5) is None
    verdicts.record_probe(0, 0, probe(shift=1))
    assert [verdicts.at(0, at) for at in (0, 5, 31)] == ["relative"] * 3
    assert verdicts.at(0, 32) is None


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
        assert verdicts.at(0, 0) == "unknown"


def test_saturation_on_one_side_only_is_a_difference() -> None:
    """1.0 in one request and .7 in the other isn't saturation but a shift."""
    first, second = np.full(12, 0.7), np.ones(12)
    assert Probe.of(Overlap(np.zeros(12, dtype=np.intp), first, second, (0.1, 0.9))).finding == "different"


def test_a_query_that_ended_without_a_probe_blocks_nobody() -> None:
    """record_hub closes a probe that was never recorded."""
    verdicts = Verdicts()
    verdicts.record_hub(0, 0, None)
    assert verdicts.at(0, 1) == "unknown"


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
def test_noise_alone_is_pooled_to_absolute(noise: float) -> None:
    """Absolute scores with numeric noise: after 32 hubs, queries skip the hub."""
    verdicts = settled(probe(noise=noise), [hub("identity", seed, noise) for seed in range(HUBS)])
    assert verdicts.at(0, 31) == "relative"
    assert verdicts.at(0, 32) == "absolute, noisy"
    assert verdicts.at(0, 500) == "absolute, noisy"


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
    assert verdicts.at(0, 32) == "relative"
    assert verdicts.at(0, 63) == "relative"
    assert verdicts.at(0, 64) == "absolute, noisy"


def test_a_later_parts_probe_can_turn_absolute_to_relative() -> None:
    """It holds for that part alone, whatever its neighbours find, and is told."""
    verdicts = settled(probe(), [])
    assert verdicts.at(2, 0) is None and verdicts.at(2, 7) is None
    verdicts.record_probe(2, 0, probe(shift=0.5))
    verdicts.record_probe(3, 0, probe())
    assert [verdicts.at(part, at) for part in (0, 2, 3) for at in (0, 7)] == [
        *["absolute"] * 2, *["relative"] * 2, *["absolute"] * 2,
    ]  # fmt: skip
    (flip,) = verdicts.flips()
    assert (flip.part, flip.before) == (2, "absolute")
    assert flip.deviation == pytest.approx(0.5, abs=0.01)


def test_a_later_parts_probe_bears_the_noise_that_was_pooled() -> None:
    """Noisy scores fail the strict test for ever: only more than the known noise makes a part relative."""
    hubs = [hub("identity", seed, 0.1) for seed in range(HUBS)]
    verdicts = settled(probe(noise=0.1), hubs)
    verdicts.record_probe(1, 0, probe(noise=0.1))
    assert verdicts.at(1, 0) == "absolute, noisy"
    assert verdicts.flips() == []
    verdicts.record_probe(2, 0, probe(shift=1))
    assert verdicts.at(2, 3) == "relative"
    assert [flip.part for flip in verdicts.flips()] == [2]


def test_what_a_relative_model_does_is_no_flip() -> None:
    """Where part 0 was relative, a part that is relative too is no news; one whose scores are equal is absolute."""
    verdicts = settled(probe(shift=1), [None] * 3)
    verdicts.record_end(0, 3)
    verdicts.record_probe(1, 0, probe(shift=1))
    verdicts.record_probe(2, 0, probe())
    assert (verdicts.at(1, 0), verdicts.at(2, 9)) == ("relative", "absolute")
    assert verdicts.flips() == []


def test_a_later_parts_empty_probe_leaves_it_to_the_head() -> None:
    """A probe that failed changes nothing, and whoever comes before any probe goes by the head, too."""
    verdicts = settled(probe(), [])
    assert verdicts.before(1, 0) == "absolute" and verdicts.before(0, 0) == "unknown"
    verdicts.record_hub(1, 0, None)
    assert verdicts.at(1, 1) == verdicts.before(1, 1) == "absolute"


def test_the_head_is_known_after_32_hubs_or_where_part_0_ends() -> None:
    """Other parts wait for no more of it than that; without a multi-chunk query nothing is known."""
    hubs = [hub("identity", seed, 0.1) for seed in range(HUBS)]
    few = settled(probe(noise=0.1), hubs[:-1])
    few.record_probe(1, 0, None)
    assert few.head is None and few.at(1, 0) is None and few.before(1, 0) is None
    few.record_end(0, HUBS - 1)
    assert few.at(1, 0) == few.before(1, 0) == "relative" and few.components() is None
    assert settled(probe(noise=0.1), hubs).head is not None
    none = Verdicts()
    none.record_end(0, 0)
    assert none.before(1, 0) == "unknown"


def test_who_is_told_the_head_ranks_another_part_alike() -> None:
    """A worker that never saw part 0 decides as one that ranked it, by a value that went through JSON."""
    whole = settled(probe(noise=0.1), [hub("identity", seed, 0.1) for seed in range(HUBS)])
    told = Verdicts()
    told.record_probe(4, 0, probe(noise=0.1))
    assert told.at(4, 1) is None
    told.head = json.loads(json.dumps(whole.head))
    for part, found in ((4, probe(noise=0.1)), (5, probe(shift=1)), (6, None), (7, probe())):
        for verdicts in (whole, told):
            verdicts.record_probe(part, 0, found)
        assert told.at(part, 3) == whole.at(part, 3) is not None
    assert told.flips() == whole.flips() and told.components() == whole.components()


def test_evidence_is_bounded() -> None:
    """A state holds the head, and the flip of its own part; it doesn't grow with what was ranked."""
    verdicts = settled(probe(noise=0.1), [hub("identity", at % 32, 0.1) for at in range(300)])
    for part in (1, 2):
        verdicts.record_probe(part, 0, probe(shift=1))
        assert verdicts.at(part, 0) == "relative"
        verdicts.forget(part)
    states = [json.loads(json.dumps(verdicts.state(part))) for part in range(3)]
    assert [state["flip"] and state["flip"][0] for state in states] == [None, 1, 2]
    assert all(len(json.dumps(state)) < 300 for state in states)
    restored = Verdicts.restore(states)
    assert (
        restored.flips()
        == verdicts.flips()
        == [Flip(1, *states[1]["flip"][1:]), Flip(2, *states[2]["flip"][1:])]
    )
    assert restored.head == verdicts.head


class Run:
    """A run of many queries that finish in a drawn order; each asks as soon as its first round is over."""

    def __init__(self, lengths: Sequence[int], kinds: Sequence[str]) -> None:
        self.queries = [(part, index) for part, length in enumerate(lengths) for index in range(length)]
        self.lengths, self.kinds = lengths, kinds

    def evidence(self, index: int) -> Overlap | None:
        kind = self.kinds[index % len(self.kinds)]
        return None if kind == "failed" else hub("identity", index % 8, 0.1 if kind == "noise" else 0.0)

    def play(
        self, order: np.random.Generator, width: int, verdicts: Verdicts, done: int = 0
    ) -> list[Verdict]:
        """At most ``width`` queries are open at a time, oldest first; which of them moves is drawn."""
        answers: dict[tuple[int, int], Verdict] = {}
        asking = set[tuple[int, int]]()
        waiting = [query for query in self.queries if query[0] >= done]
        wanted = len(waiting)
        while len(answers) < wanted:
            while waiting and len(asking) < width:
                asking.add(waiting.pop(0))
            if not waiting or waiting[0][0]:
                verdicts.record_end(0, self.lengths[0])
            ready = sorted(asking)
            for part, index in [ready[row] for row in order.permutation(len(ready))]:
                if verdicts.carries_probe(index):
                    found = [probe(noise=0.1), probe(shift=1), None, probe()][part % 4]
                    verdicts.record_probe(part, index, found)
                verdict = verdicts.at(part, index)
                if verdict is None:
                    continue
                answers[part, index] = verdict
                skipped = verdict.startswith("absolute")
                verdicts.record_hub(part, index, None if skipped else self.evidence(index))
                asking.discard((part, index))
        verdicts.record_end(0, self.lengths[0])
        return [answers[query] for query in sorted(answers)]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**16),
    st.integers(1, 80),
    st.lists(st.sampled_from(["noise", "noise", "failed", "exact"]), min_size=1, max_size=7),
    st.lists(st.integers(0, 90), min_size=2, max_size=4),
)
def test_the_order_of_completion_never_matters(
    seed: int, width: int, kinds: list[str], lengths: list[int]
) -> None:
    """Whatever finishes first, and however many are open: the same answers, no deadlock; a rerun from any state too."""
    run = Run(lengths, kinds)
    expected = run.play(np.random.default_rng(0), 1, Verdicts())
    verdicts = Verdicts()
    assert run.play(np.random.default_rng(seed), width, verdicts) == expected
    assert verdicts.head is not None
    for done in range(1, len(lengths)):
        states = json.loads(json.dumps([verdicts.state(part) for part in range(done)]))
        restored = Verdicts.restore(states)
        again = run.play(np.random.default_rng(seed), width, restored, done=done)
        assert again == expected[sum(lengths[:done]) :]
        assert restored.flips() == verdicts.flips()
