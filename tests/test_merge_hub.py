"""The hub's edge rules: what happens when chunks fail or split, hubs get lost, scores tie or saturate, limits bind."""

from collections.abc import Callable

import numpy as np
import pytest
from merge_measures import kendall
from merge_world import Api, Outcome, Respond, Shards, drive, stratified, truth, whole

from batchrank.data import Floats, Positions
from batchrank.merge.answers import Answer, FirstPass, Pool
from batchrank.merge.heads import heads
from batchrank.merge.hub import hubs, probe
from batchrank.merge.start import start
from batchrank.outcomes import Chunk, Overlap, Verdict


def relative(overlap: Overlap | None) -> Verdict:
    return "relative"


def ranks_of(outcome: Outcome, relevance: Floats) -> Positions:
    rank = np.empty(len(relevance), dtype=np.intp)
    rank[np.argsort(-relevance, kind="stable")] = np.arange(len(relevance))
    return rank[outcome.merged.order]


def run(
    relevance: Floats, shards: Shards, k: int = 10, respond: Respond | None = None, family: str = "logistic"
) -> Outcome:
    return drive(start("hub", shards, top_k=k), respond or whole(Api(relevance, family)), relative)


def losing(api: Callable[[Positions], Floats], lost: Callable[[Chunk, int], bool]) -> Respond:
    """An API that fails some requests, by chunk and number."""
    return lambda chunk, number: [] if lost(chunk, number) else [(chunk.documents, api(chunk.documents))]


def test_heads_follow_the_binomial_tail() -> None:
    """q is the least with c * P(Binomial(k - 1, 1/c) >= q) <= .1."""
    assert [heads([100] * c, 10).tolist() for c in (2, 4, 20)] == [
        [q] * c for c, q in ((2, 8), (4, 6), (20, 4))
    ]
    assert [set(heads([500] * c, 100).tolist()) for c in (4, 20)] == [{34}, {12}]
    assert (heads([300, 300], 5_000) <= 600).all()
    assert heads([1, 1], 1).tolist() == [1, 1]


def test_a_longer_answer_has_more_heads() -> None:
    """Each answer has its own q, by its share of the list: no more than delta / c that it holds q of the best."""
    long, short, tiny = heads([400, 90, 10], 100).tolist()
    assert long > short > tiny >= 1
    assert long > heads([250, 250], 100)[0] > short


def test_a_failed_chunk_is_ranked_last_and_the_certificate_covers_the_rest() -> None:
    """Documents of a failed chunk have no score, stand last in first-stage order, and aren't guessed."""
    y, shards = truth(2_000, 3), stratified(2_000, 500, 3)
    outcome = run(y, shards, respond=losing(Api(y, "logistic", 3), lambda chunk, number: number == 1))
    missing = shards.chunks[1]
    assert outcome.merged.order[-500:].tolist() == missing.tolist()
    assert np.isnan(outcome.merged.scores[-500:]).all()
    assert np.isnan(outcome.merged.raw_scores[-500:]).all()
    left = np.setdiff1d(np.argsort(-y, kind="stable"), missing, assume_unique=True)
    assert outcome.merged.certified >= 10
    assert outcome.merged.order[:10].tolist() == left[:10].tolist()


def test_nothing_answered_leaves_the_first_stage_order_without_scores() -> None:
    """A query of which no request was answered is all unscored; there is nothing to ask a hub about."""
    y = truth(1_000, 0)
    outcome = run(y, stratified(1_000, 500), respond=lambda chunk, number: [])
    assert outcome.merged.order.tolist() == list(range(1_000))
    assert np.isnan(outcome.merged.scores).all()
    assert (outcome.merged.certified, outcome.rounds) == (0, 1)


def test_one_chunk_left_needs_no_hub() -> None:
    """If only one chunk was answered, its own order is proven."""
    y, shards = truth(1_000, 0), stratified(1_000, 500)
    outcome = run(y, shards, respond=losing(Api(y, "logistic"), lambda chunk, number: number == 0))
    assert (outcome.merged.certified, outcome.rounds) == (500, 1)


def test_split_chunks_are_chains_of_their_own() -> None:
    """Halves come from different requests and aren't compared: the top is exact nevertheless."""
    y = truth(2_000, 1)
    api = Api(y, "logistic", 1)

    def respond(chunk: Chunk, number: int) -> list[tuple[Positions, Floats]]:
        halves = np.array_split(chunk.documents, 2) if chunk.purpose == "pass" else [chunk.documents]
        return [(half, api(half)) for half in halves]

    outcome = run(y, stratified(2_000, 500, 1), respond=respond)
    assert (ranks_of(outcome, y)[:10] == np.arange(10)).all()
    assert outcome.merged.certified >= 10
    assert kendall(ranks_of(outcome, y)) > 0.9999


def test_a_split_hub_still_gives_one_exact_order() -> None:
    """The halves of a hub are chains; the longer one is the scale."""
    y = truth(2_000, 1)
    api = Api(y, "logistic", 1)

    def respond(chunk: Chunk, number: int) -> list[tuple[Positions, Floats]]:
        halves = np.array_split(chunk.documents, 2) if chunk.purpose == "hub" else [chunk.documents]
        return [(half, api(half)) for half in halves]

    outcome = run(y, stratified(2_000, 500, 1), respond=respond)
    assert (ranks_of(outcome, y)[:10] == np.arange(10)).all()
    assert outcome.merged.certified >= 10


def limited(api: Callable[[Positions], Floats], most: int) -> Respond:
    """An API that takes so many documents and no more, so that a larger request comes back in halves of halves."""

    def respond(chunk: Chunk, number: int) -> list[tuple[Positions, Floats]]:
        pieces = [chunk.documents]
        while any(len(piece) > most for piece in pieces):
            pieces = [half for piece in pieces for half in (piece[::2], piece[1::2])]
        return [(piece, api(piece)) for piece in pieces]

    return respond


@pytest.mark.parametrize("n", [12, 60, 400])
@pytest.mark.parametrize("most", [7, 50, 200, 399])
@pytest.mark.parametrize("family", ["logistic", "minmax", "ordinal"])
def test_a_single_chunk_that_was_halved_is_ranked_exactly(n: int, most: int, family: str) -> None:
    """Its parts can't be compared: hubs of heads and quantiles follow, none larger than what was accepted."""
    y = truth(n, 1)
    outcome = run(y, stratified(n, 500), respond=limited(Api(y, family, 1), most), family=family)
    if n <= most:
        assert outcome.requests == 1
        return
    assert outcome.merged.method == "hub" and outcome.merged.certified >= 10
    assert (ranks_of(outcome, y)[:10] == np.arange(10)).all()
    assert all(len(chunk) <= most for chunk in outcome.sent[1:])


@pytest.mark.parametrize("most", [1, 2, 30])
def test_a_single_chunk_that_was_halved_is_sorted_where_scores_are_absolute(most: int) -> None:
    """The verdict is asked for; absolute scores need no hub."""
    y = truth(60, 1)
    outcome = drive(
        start("hub", stratified(60, 500), top_k=10),
        limited(Api(y, "identity"), most),
        lambda overlap: "absolute",
    )
    assert (outcome.merged.method, outcome.requests) == ("raw", 1)
    assert (ranks_of(outcome, y) == np.arange(60)).all()


@pytest.mark.parametrize("most", [1, 2, 3])
def test_requests_too_small_to_compare_anything_end(most: int) -> None:
    """Where an API takes a document or two at a time, a ranking comes out, and nothing false is certified."""
    y = truth(30, 1)
    outcome = run(y, stratified(30, 500), respond=limited(Api(y, "logistic", 1), most))
    certified = outcome.merged.certified
    assert (ranks_of(outcome, y)[:certified] == np.arange(certified)).all()
    assert sorted(outcome.merged.order.tolist()) == list(range(30))


@pytest.mark.parametrize(("n", "most"), [(2_000, 400), (2_000, 120), (5_000, 250)])
def test_chunks_and_hubs_that_are_too_large_make_smaller_hubs(n: int, most: int) -> None:
    """The API takes fewer documents than planned: every request after the first pass keeps to what was accepted."""
    y = truth(n, 2)
    outcome = run(y, stratified(n, 500, 2), 10, limited(Api(y, "logistic", 2), most))
    assert outcome.merged.certified >= 10
    assert (ranks_of(outcome, y)[:10] == np.arange(10)).all()
    assert all(len(chunk) <= most for chunk in outcome.sent if chunk.purpose != "pass")


def test_a_hub_alone_that_is_too_large_is_made_smaller() -> None:
    """The chunks were accepted, the hub (longer texts) was not: another one follows that fits what was."""
    y = truth(2_000, 1)
    api, sizes = Api(y, "logistic", 1), np.where(truth(2_000, 1) > 1.5, 400, 100)

    def respond(chunk: Chunk, number: int) -> list[tuple[Positions, Floats]]:
        pieces = [chunk.documents]
        while any(sizes[piece].sum() > 90_000 for piece in pieces):
            pieces = [half for piece in pieces for half in (piece[::2], piece[1::2])]
        return [(piece, api(piece)) for piece in pieces]

    shards = Shards(stratified(2_000, 500, 1).chunks, 500, sizes, budget=200_000)
    outcome = run(y, shards, 100, respond)
    assert (ranks_of(outcome, y)[:100] == np.arange(100)).all()
    assert outcome.merged.certified >= 100


def test_documents_lost_on_the_way_say_nothing_of_sizes() -> None:
    """One bad document brings its chunk back in parts; the hub of the rest may be as large as any request."""
    y = truth(99, 1)
    api = Api(y, "logistic", 1)

    def respond(chunk: Chunk, number: int) -> list[tuple[Positions, Floats]]:
        pieces, whole = [chunk.documents], []
        while pieces:
            piece = pieces.pop()
            if 7 not in piece:
                whole.append((piece, api(piece)))
            elif len(piece) > 1:
                pieces += [piece[::2], piece[1::2]]
        return whole

    outcome = run(y, stratified(99, 500), 100, respond)
    assert (len(outcome.sent[1]), outcome.requests) == (98, 2)
    assert outcome.merged.certified == 98
    assert outcome.merged.order[-1] == 7 and np.isnan(outcome.merged.scores[-1])


def test_a_lost_hub_is_asked_once_more() -> None:
    """Lost once, the hub is sent again and the ranking is exact."""
    y = truth(2_000, 2)
    outcome = run(
        y, stratified(2_000, 500, 2), respond=losing(Api(y, "logistic", 2), lambda c, number: number == 4)
    )
    assert [chunk.purpose for chunk in outcome.sent[4:6]] == ["hub", "hub"]
    assert outcome.merged.method == "hub"
    assert outcome.merged.certified >= 10


def test_a_hub_lost_twice_falls_back_to_standard_scores() -> None:
    """Nothing is certified, and the method's name says so; the z-score of the logit beats raw scores."""
    y = truth(2_000, 2)
    shards = stratified(2_000, 500, 2)
    outcome = run(y, shards, respond=losing(Api(y, "logistic", 2), lambda chunk, n: chunk.purpose == "hub"))
    assert (outcome.merged.method, outcome.merged.certified, outcome.requests) == ("hub (fallback)", 0, 6)
    raw = drive(start("raw", shards, top_k=10), whole(Api(y, "logistic", 2)), relative)
    assert kendall(ranks_of(outcome, y)) > kendall(ranks_of(raw, y))
    assert ((outcome.merged.scores > 0) & (outcome.merged.scores < 1)).all()


def test_lost_repairs_are_given_up_after_three() -> None:
    """Three repairs without progress: stop, and certify what is known."""
    best = np.argsort(-truth(2_000, 0), kind="stable")
    chunks = [np.r_[best[:60], best[-440:]], *np.split(np.sort(best[60:-440]), 3)]
    y = truth(2_000, 0)
    shards = Shards(chunks, 500, np.ones(2_000, dtype=np.int64))
    outcome = run(y, shards, 100, losing(Api(y, "logistic"), lambda chunk, number: chunk.purpose == "repair"))
    assert [chunk.purpose for chunk in outcome.sent].count("repair") == 3
    certified = outcome.merged.certified
    assert 34 <= certified < 100
    assert (ranks_of(outcome, y)[:certified] == np.arange(certified)).all()


def test_identical_scores_everywhere_keep_an_even_first_stage_order() -> None:
    """All tied: everything is exact up to ties, by quantile, then first-stage rank, without a repair."""
    outcome = run(
        np.zeros(1_000), stratified(1_000, 300), respond=whole(lambda docs: np.full(len(docs), 0.5))
    )
    assert outcome.merged.certified == 1_000
    assert outcome.rounds == 2
    assert np.allclose(outcome.merged.scores, 0.5)
    assert np.abs(outcome.merged.order - np.arange(1_000)).max() < 20


def test_saturated_scores_carry_no_slope() -> None:
    """A logistic that saturates at both ends in some requests: the rest is still calibrated by its logits."""
    y = truth(2_000, 4)
    api = Api(y, "logistic", 4)

    def saturated(docs: Positions) -> Floats:
        scores = api(docs)
        return np.where(scores > 0.95, 1.0, np.where(scores < 0.05, 0.0, scores))

    outcome = run(y, stratified(2_000, 500, 4), respond=whole(saturated))
    assert kendall(ranks_of(outcome, y)) > 0.9
    assert (np.diff(outcome.merged.scores) <= 0).all()


@pytest.mark.parametrize(
    ("n", "w", "k"), [(501, 500, 10), (501, 500, 100), (90, 10, 10), (300, 4, 5), (64, 8, 500)]
)
def test_awkward_sizes_are_exact(n: int, w: int, k: int) -> None:
    """Just over one request, many tiny chunks, c near w, and k beyond n."""
    y = truth(n, 1)
    outcome = run(y, stratified(n, w, 1), k, family="ordinal")
    certified = outcome.merged.certified
    assert sorted(outcome.merged.order.tolist()) == list(range(n))
    assert certified >= min(k, n)
    assert (ranks_of(outcome, y)[:certified] == np.arange(certified)).all()
    assert all(len(chunk) <= w for chunk in outcome.sent)


def test_several_hubs_share_references() -> None:
    """c(q + t + 1) > w: the hub goes out as several requests of one round that share 8 documents."""
    y, shards = truth(2_000, 0), stratified(2_000, 100)
    outcome = run(y, shards, 100)
    parts = [set(chunk.documents.tolist()) for chunk in outcome.sent if chunk.purpose == "hub"]
    assert len(parts) > 1
    assert len(set.intersection(*parts)) == 8
    assert outcome.merged.certified >= 100
    assert kendall(ranks_of(outcome, y)) > 0.9999


def answered(shards: Shards, y: Floats) -> FirstPass:
    return FirstPass(len(y), [Answer.of(np.asarray(chunk), y[chunk]) for chunk in shards.chunks])


def test_a_token_bound_hub_takes_shorter_documents_near_its_quantiles() -> None:
    """The shortest document within two places of a quantile serves as well; one hub is enough then."""
    n = 2_000
    y = np.arange(n, 0, -1).astype(float)
    sizes = np.where(np.arange(n) // 4 % 3 == 0, 10, 100)
    shards = stratified(n, 500, 0, sizes, budget=40_000)
    pool, first = Pool(shards), answered(shards, y)
    (free,) = hubs(pool, first, 10)
    heads_ = int(heads([len(answer) for answer in first.answers], 10).sum())
    tight = Shards(shards.chunks, 500, sizes, budget=int(sizes[free].sum()) - 1_000)
    (bound,) = hubs(Pool(tight), first, 10)
    assert tight.fits(bound)
    assert len(bound) == len(free) == len(set(bound.tolist()))
    moved = np.sort(first.place[bound]) - np.sort(first.place[free])
    assert np.abs(moved).max() <= 2
    assert set(free[:heads_].tolist()) == set(bound[:heads_].tolist())


def test_a_hub_that_no_swap_can_fit_becomes_several() -> None:
    """Tokens alone can force several hubs; each fits, and the ranking is exact."""
    n = 2_000
    y, sizes = truth(n, 0), np.full(n, 100)
    shards = stratified(n, 25, 0, sizes, budget=2_500)
    outcome = run(y, shards, 10)
    assert all(shards.fits(chunk.documents) for chunk in outcome.sent)
    assert outcome.merged.certified >= 10


def test_the_probe_holds_one_of_each_chunk_at_mixed_quantiles() -> None:
    """At least 12 documents, at least one of each chunk."""
    for n, w in ((1_000, 500), (2_000, 500), (10_000, 500), (40, 2)):
        shards = stratified(n, w)
        docs = probe(Pool(shards), shards.chunks)
        if len(shards.chunks) <= w:
            assert all(np.isin(chunk, docs).any() for chunk in shards.chunks)
            assert len(docs) == max(12, len(shards.chunks))
        assert len(docs) <= w or len(docs) == len(np.unique(docs))
        if n >= 1_000:
            assert docs.min() < n / 4
            assert docs.max() > 3 * n / 4


def test_scores_are_on_the_hubs_scale_and_never_contradict_the_rank() -> None:
    """A hub document's score is the hub's; all others lie between their neighbours of the hub."""
    y = truth(2_000, 5)
    api = Api(y, "logistic", 5)
    hub: dict[int, float] = {}

    def respond(chunk: Chunk, number: int) -> list[tuple[Positions, Floats]]:
        scores = api(chunk.documents)
        if chunk.purpose == "hub":
            hub.update(zip(chunk.documents.tolist(), scores.tolist(), strict=True))
        return [(chunk.documents, scores)]

    merged = run(y, stratified(2_000, 500, 5), respond=respond).merged
    assert (np.diff(merged.scores) <= 0).all()
    shown = dict(zip(merged.order.tolist(), merged.scores.tolist(), strict=True))
    assert all(shown[doc] == pytest.approx(score, rel=1e-6) for doc, score in hub.items())
    assert merged.drift is not None
    assert max(merged.drift) < 1e-6


def test_positions_that_are_not_sent_do_not_matter() -> None:
    """Document positions may have gaps: blank documents are never sent."""
    y = truth(4_000, 0)
    some = stratified(2_000, 500)
    shards = Shards([chunk * 2 for chunk in some.chunks], 500, np.ones(4_000, dtype=np.int64))
    outcome = run(y, shards, family="ordinal")
    assert sorted(outcome.merged.order.tolist()) == list(range(0, 4_000, 2))
    assert outcome.merged.order[:10].tolist() == (np.argsort(-y[::2], kind="stable")[:10] * 2).tolist()
