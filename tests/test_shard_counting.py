"""What sharding counts of tokens, and no more of it than settles something."""

import random

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sharding import CARD, Thirds, lists, query

from batchrank.shard.chunks import Sharder
from batchrank.shard.sizes import Limits
from batchrank.tokens import BytesCounter, counter


def test_nothing_is_counted_where_bytes_settle_it() -> None:
    """The exact counter runs only if the bound by bytes leaves a limit in doubt, or when asked."""
    thirds = Thirds()
    shards = Sharder(CARD, thirds).shards(query(["x" * 100] * 1000))
    assert shards.fits(shards.chunks[0])
    assert thirds.calls == 0 and not shards.exact and shards.truncated == 0
    assert shards.tokens(shards.chunks[0]) == 500 * 104
    assert shards.tokens(shards.chunks[0], exact=True) == 500 * (2 + 34)
    assert thirds.texts == 501 and not shards.exact  # the other documents are not counted with them

    doubtful = Sharder(CARD, thirds).shards(query(["x" * 300] * 1000))
    assert thirds.calls == 3 and not doubtful.exact and len(doubtful.chunks) == 2


def test_the_bound_alone_needs_more_chunks_than_the_exact_count() -> None:
    """With bytes as tokens a list takes more chunks than with the exact count, never fewer."""
    q = query(["什么是文本排序模型" * 12] * 500, text="什么是")
    assert len(Sharder(CARD, counter("qwen")).shards(q).chunks) == 1
    assert len(Sharder(CARD, BytesCounter()).shards(q).chunks) == 2


def test_items_count_no_more_than_where_they_are_cut() -> None:
    """A document longer than item_tokens costs item_tokens, and is known to be truncated once counted."""
    shards = Sharder(CARD, Thirds()).shards(query(["x" * 30_000, "x" * 12_000, "x" * 9000]))
    assert shards.truncated is None
    assert shards.sizes.tolist() == [4002, 4002, 3002]
    assert shards.truncated == 1


def test_instruct_and_overhead_are_billed_per_document() -> None:
    """The predicted tokens are (query + instruct + overhead) x documents + document tokens."""
    limits = Limits(500, 120_000, 4000, 1 << 24, overhead_tokens=60)
    shards = Sharder(limits, Thirds(), instruct="i" * 30).shards(query(["x" * 300] * 4))
    assert shards.tokens(np.arange(3), exact=True) == 3 * (2 + 10 + 60) + 3 * 100


@settings(max_examples=150)
@example(
    ["x" * n for n in (1, 46, 1, 1, 49, 1, 1, 1, 43, 2, 1, 46, 73)], 100, 0.02, 5, random.Random(0)
)  # every document of the heaviest chunk was counted, which was not enough
@given(
    lists(st.integers(1, 90)),
    st.integers(100, 3000),
    st.sampled_from([0.0, 0.02]),
    st.integers(5, 60),
    st.randoms(use_true_random=False),
)
def test_counting_a_part_decides_as_counting_all_does(
    documents: list[str], tokens: int, headroom: float, most: int, random: random.Random
) -> None:
    """Chunks, and what fits a request, are the same whether all documents were counted or only as many as it took."""
    limits = Limits(
        documents=most, request_tokens=tokens, item_tokens=25, body_bytes=1 << 20, headroom=headroom
    )
    first, all_at_once = Thirds(), Thirds()
    all_at_once.bytes_bound = False
    q = query(documents)
    part, whole = Sharder(limits, first).shards(q), Sharder(limits, all_at_once).shards(q)
    assert [chunk.tolist() for chunk in part.chunks] == [chunk.tolist() for chunk in whole.chunks]
    for _ in range(5):
        some = np.array(sorted(random.sample(range(len(documents)), random.randint(1, len(documents)))))
        assert part.tokens(some) >= whole.tokens(some)
        assert part.fits(some) == whole.fits(some)
    assert part.sizes.tolist() == whole.sizes.tolist()


def test_a_request_that_is_too_full_by_one_token_is_packed_by_exact_counts() -> None:
    """Also where only the documents of that request were counted, and all of them: the rest must not stay bounded."""
    limits = Limits(documents=5, request_tokens=100, item_tokens=25, body_bytes=1 << 20, headroom=0.02)
    q = query(["x" * length for length in (73, 2, 1, 52, 1, 43, 1, 61, 1, 28)])
    all_at_once = Thirds()
    all_at_once.bytes_bound = False
    part, whole = Sharder(limits, Thirds()).shards(q), Sharder(limits, all_at_once).shards(q)
    assert [chunk.tolist() for chunk in part.chunks] == [chunk.tolist() for chunk in whole.chunks]
