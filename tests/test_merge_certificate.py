"""Certificates: what is certified follows from the answers, and everything that a repair may need is found."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_world import drive, stratified

from batchrank.data import Floats, Positions
from batchrank.merge.answers import Answer, FirstPass
from batchrank.merge.certificate import by_value, certify, contenders
from batchrank.merge.methods import METHODS
from batchrank.merge.start import start
from batchrank.outcomes import Chunk, Verdict

Reply = list[tuple[Positions, Floats]]


def answer(**scores: float) -> Answer:
    """An answer from letters and scores; document a is 0, b is 1, ..."""
    docs = np.array([ord(letter) - ord("a") for letter in scores])
    return Answer.of(docs, np.array(list(scores.values()), dtype=float))


def proven(answers: Sequence[Answer], *others: Answer, n: int) -> str:
    certificate = certify(FirstPass(n, answers), others)
    return "".join(chr(ord("a") + doc) for doc in certificate.order[: certificate.depth])


def closure(
    n: int, answers: Sequence[tuple[Positions, Floats]], *, ties: bool
) -> "np.ndarray[tuple[int, int], np.dtype[np.int8]]":
    """What must be at least as good as what (1) and strictly better (2), by brute force."""
    known = np.zeros((n, n), dtype=np.int8)
    for docs, values in answers:
        level = np.where(values[:, None] > values, 2, (values[:, None] == values) * ties)
        known[np.ix_(docs, docs)] = np.maximum(known[np.ix_(docs, docs)], level)
    for k in range(n):
        both = np.minimum(known[:, k, None], known[None, k, :])
        strict = np.maximum(known[:, k, None], known[None, k, :])
        known = np.maximum(known, np.where(both > 0, strict, 0))
    return known


def assert_sound(
    n: int, answers: Sequence[tuple[Positions, Floats]], order: Positions, certified: int
) -> None:
    """Check a certificate against the closure of all answers."""
    scored = {int(doc) for docs, _ in answers for doc in docs}
    known = closure(n, answers, ties=True)
    if (np.diag(known) == 2).any():
        known = closure(n, answers, ties=False)
        if (np.diag(known) == 2).any():
            assert certified == 0
            return
    for place in range(certified):
        below = [int(doc) for doc in order[place + 1 :] if int(doc) in scored]
        assert (known[order[place], below] > 0).all()


def test_a_chain_proves_itself() -> None:
    """One answer is its own order."""
    assert proven([answer(a=1, b=3, c=2)], n=3) == "bca"


def test_two_chains_prove_nothing_until_something_joins_them() -> None:
    """Heads of two chains that were never compared can't be certified."""
    answers = [answer(a=3, b=2), answer(c=3, d=2)]
    assert proven(answers, n=4) == ""
    assert proven(answers, answer(a=2, c=1), n=4) == "a"
    assert proven(answers, answer(b=2, c=1), n=4) == "abcd"


def test_ties_are_released_together_by_quantile() -> None:
    """Sources that one request tied are exact up to that tie."""
    answers = [answer(a=3, b=2, e=1), answer(c=3, d=2)]
    assert proven(answers, answer(a=1, c=1), n=5) == "ac"


def test_equal_scores_everywhere_are_all_certified() -> None:
    """Documents tied through others are equal as well; the order is by quantile, then first stage."""
    answers = [answer(a=1, c=1), answer(b=1, d=1)]
    assert proven(answers, answer(a=5, b=5), n=4) == "abcd"


def test_a_coarse_tie_that_another_answer_separates_proves_nothing() -> None:
    """Where some answer separates what another one ties, ties aren't equality."""
    answers = [answer(a=3, b=2), answer(c=3, d=2)]
    assert proven(answers, answer(a=1, b=1, c=1), n=4) == ""
    assert proven(answers, answer(a=3, b=1, c=1), answer(b=2, c=2, d=2), n=4) == "a"


def test_contradictions_prove_nothing() -> None:
    """A cycle of strict answers empties the certificate."""
    certificate = certify(FirstPass(3, [answer(a=2, b=1), answer(c=1)]), [answer(b=2, a=1, c=0)])
    assert not certificate.consistent
    assert certificate.depth == 0


def test_fewer_than_k_documents_are_known_to_be_better_than_a_contender() -> None:
    """Contenders are exactly the uncertified documents that fewer than k others are known to beat."""
    r = np.random.default_rng(5)
    for k in (1, 2, 5, 9):
        y = r.permutation(40).astype(float)
        answers = [Answer.of(docs, y[docs]) for docs in np.split(r.permutation(40), 4)]
        hub = Answer.of(docs := r.permutation(40)[:12], y[docs])
        first = FirstPass(40, answers)
        certificate = certify(first, [hub])
        known = closure(40, [(a.docs, a.values) for a in [*answers, hub]], ties=True)
        fewer = np.flatnonzero((known == 2).sum(axis=0) < k)
        expected = np.setdiff1d(fewer, certificate.order[: certificate.depth])
        assert contenders(certificate, first, k).tolist() == expected.tolist()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 60), st.sampled_from([3, 20, 1000]))
def test_what_is_proven_does_not_depend_on_the_ranks(seed: int, n: int, levels: int) -> None:
    """Ranks only order what is open: right ones, which no answer contradicts, prove as much as any others."""
    r = np.random.default_rng(seed)
    y = r.integers(0, levels, n).astype(float)
    answers = [
        Answer.of(docs, y[docs]) for docs in np.array_split(r.permutation(n), 1 + seed % 5) if len(docs)
    ]
    hub = Answer.of(docs := r.permutation(n)[: r.integers(1, n + 1)], y[docs])
    first = FirstPass(n, answers)
    right, random = by_value(first, y), r.permutation(n)
    certificates = [certify(first, [hub], rank) for rank in (right, random, None)]
    known = closure(n, [(a.docs, a.values) for a in [*answers, hub]], ties=True)
    for certificate in certificates:
        assert certificate.depth == certificates[0].depth
        top = certificate.order[: certificate.depth]
        assert set(top.tolist()) == set(certificates[0].order[: certificate.depth].tolist())
        assert not (np.triu(known[np.ix_(certificate.order, certificate.order)].T, 1) == 2).any()
    assert (np.diff(y[certificates[0].order]) <= 0).all()


class World:
    """An API with quirks, drawn by hypothesis; it remembers what it answered."""

    def __init__(self, data: st.DataObject, *, honest: bool) -> None:
        self.data, self.honest = data, honest
        self.answers: Reply = []
        self.probes: Reply = []
        seed = data.draw(st.integers(0, 2**16))
        self.r = np.random.default_rng(seed)
        self.n = data.draw(st.integers(1, 40))
        self.y = self.r.integers(0, data.draw(st.sampled_from([1, 3, 20, 1000])), self.n).astype(float)
        if data.draw(st.booleans()):
            self.y = -np.sort(-self.y)  # the first stage is right
        self.faults = data.draw(st.sampled_from([0.0, 0.1, 0.5]))
        self.splits = data.draw(st.sampled_from([0.0, 0.2, 1.0]))
        self.noise = 0.0 if honest else data.draw(st.sampled_from([0.0, 0.4, 100.0]))
        self.steps = 0 if honest else data.draw(st.sampled_from([0, 2, 5]))

    def __call__(self, chunk: Chunk, number: int) -> Reply:
        docs = chunk.documents
        if self.r.random() < self.faults:
            return []
        halves = [docs]
        if len(docs) > 1 and self.r.random() < self.splits:
            halves = np.array_split(docs, 2)
        replies = [(half, self.scores(half)) for half in halves]
        if chunk.purpose == "probe":
            self.probes += replies
        else:
            self.answers += replies
        return replies

    def seen(self) -> Reply:
        """All answers; a probe counts for documents that the first pass has scored."""
        scored = np.concatenate([np.empty(0, dtype=int), *(docs for docs, _ in self.answers)])
        return self.answers + [
            (docs[keep], values[keep])
            for docs, values in self.probes
            if (keep := np.isin(docs, scored)).any()
        ]

    def scores(self, docs: Positions) -> Floats:
        y = self.y[docs] + self.noise * self.r.normal(size=len(docs))
        line = self.r.uniform(0.5, 2) * y * 8 / max(self.y.max(), 1) + self.r.normal()
        values = 1 / (1 + np.exp(-np.clip(line, -700, 700)))
        kind = self.r.integers(0, 3)
        if kind == 1:
            values = np.unique(y, return_inverse=True)[1] / max(len(docs), 1)
        if kind == 2:
            values = y * self.r.uniform(0.1, 10) - self.r.normal()
        return np.asarray(np.round(values * self.steps)) if self.steps else np.asarray(values)


def assert_well_formed(n: int, answers: Reply, order: Positions, scores: Floats) -> None:
    assert sorted(order.tolist()) == list(range(n))
    scored = np.unique(np.concatenate([docs for docs, _ in answers])) if answers else np.empty(0, dtype=int)
    unscored = np.isnan(scores)
    assert not unscored[: int((~unscored).sum())].any()
    assert (np.diff(scores[~unscored]) <= 0).all()
    assert set(order[~unscored].tolist()) <= set(scored.tolist())
    assert (np.diff(order[unscored]) > 0).all()


@settings(max_examples=200, deadline=None)
@given(st.data(), st.booleans())
def test_no_certificate_is_ever_false(data: st.DataObject, honest: bool) -> None:
    """Whatever comes back (ties, contradictions, coarse scales, failures, splits), what is certified follows from
    the answers; honest answers make it the true order; every document is ranked once and scores never rise."""
    world = World(data, honest=honest)
    n, w = world.n, data.draw(st.integers(2, 30))
    shards = stratified(n, w, data.draw(st.integers(0, 9)))
    verdict: Verdict = data.draw(st.sampled_from(["relative", "unknown"]))
    method = data.draw(st.sampled_from(sorted(METHODS)))
    probe = data.draw(st.booleans())
    k = data.draw(st.integers(1, 80))
    result = drive(start(method, shards, top_k=k, probe=probe), world, lambda overlap: verdict).merged
    assert_well_formed(n, world.answers, result.order, result.scores)
    scored = int((~np.isnan(result.scores)).sum())
    assert 0 <= result.certified <= scored
    assert_sound(n, world.seen(), result.order[:scored], result.certified)
    if honest:
        truth = world.y[result.order[:scored]]
        for place in range(result.certified):
            assert truth[place] >= truth[place:].max()
