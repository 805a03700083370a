import math
from collections.abc import Sequence

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sharding import CARD, Thirds, query

from batchrank.data import Query
from batchrank.errors import QueryError
from batchrank.shard.chunks import QueryShards, Sharder, pack
from batchrank.shard.sizes import Limits, Sizes
from batchrank.tokens import BytesCounter


def body(q: Query, positions: Sequence[int], instruct: str | None) -> bytes:
    documents = [{"text": q.documents[i]} for i in positions]
    return orjson.dumps({"model": "m", "query": q.text, "documents": documents, "instruct": instruct})


def check(shards: QueryShards, q: Query, limits: Limits, exact: bool, instruct: str | None = None) -> None:
    """The promises that hold for any input."""
    assert sorted(np.concatenate([[], *shards.chunks]).tolist()) == q.sendable.tolist()
    counts = (Thirds() if exact else BytesCounter()).count(
        [str(q.text), *map(str, q.documents), instruct or ""]
    )
    capped = np.minimum(counts, limits.item_tokens)
    each = capped[0] + limits.overhead_tokens + counts[-1] + capped[1:-1]
    for chunk in shards.chunks:
        assert 0 < len(chunk) <= limits.documents
        assert each[chunk].sum() <= limits.request_tokens * (1 - limits.headroom)
        assert len(body(q, chunk.tolist(), instruct)) <= limits.body_bytes
        assert (np.diff(chunk) > 0).all()
        assert shards.fits(chunk)
        assert shards.tokens(chunk) >= each[chunk].sum()
        assert shards.tokens(chunk, exact=True) == each[chunk].sum()
    assert shards.sizes.tolist() == each.tolist()


texts = st.text(max_size=40) | st.sampled_from(["", " \n", "\0" * 30, '"' * 30, "什么" * 10, "x" * 90])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(texts, max_size=60),
    st.builds(
        Limits,
        documents=st.integers(1, 20),
        request_tokens=st.integers(30, 400),
        item_tokens=st.integers(1, 100),
        body_bytes=st.integers(250, 2000),
        overhead_tokens=st.integers(0, 5),
        headroom=st.sampled_from([0.0, 0.02, 0.3]),
    ),
    st.none() | st.text(max_size=10),
    st.booleans(),
)
def test_every_chunk_keeps_every_limit(
    documents: list[str], limits: Limits, instruct: str | None, exact: bool
) -> None:
    """For any texts and limits: each sendable document once, no limit passed, or an error for one document."""
    q = query(documents)
    wrapper = len(orjson.dumps({"model": "m", "query": "", "documents": [], "instruct": None}))
    sharder = Sharder(
        limits,
        Thirds() if exact else BytesCounter(),
        instruct=instruct,
        wrapper_bytes=wrapper,
        document_bytes=len(orjson.dumps({"text": ""})),
    )
    try:
        shards = sharder.shards(q)
    except QueryError as error:
        assert error.cause == "too-large" and "document 'd" in str(error)
        return
    check(shards, q, limits, exact, instruct)
    again = sharder.shards(query(documents))
    again.count()
    assert [c.tolist() for c in again.chunks] == [c.tolist() for c in shards.chunks]


def bound(sizes: Sizes, limits: Limits) -> int:
    return max(math.ceil(len(sizes) / limits.documents), math.ceil(int(sizes.sum()) / limits.token_budget))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5000),
    st.floats(3.5, 6.5),
    st.floats(0, 1),
    st.sampled_from([30_000, 120_000]),
    st.integers(0, 99),
)
@example(2495, 6.5, 0.0, 30_000, 0)
def test_realistic_lists_take_the_fewest_chunks_or_one_more(
    n: int, mean: float, sigma: float, budget: int, seed: int
) -> None:
    """Passages of log-normal length, as corpora have: within one of the bound by documents and by tokens.

    Passages all alike waste what a whole one more would not fit into.
    """
    lengths = (
        np.random.default_rng(seed)
        .lognormal(mean, sigma, n)
        .astype(int)
        .clip(1, 4000 if budget > 40_000 else 1500)
    )
    limits = Limits(500, budget, 4000, 16 << 20)
    shards = Sharder(limits, BytesCounter()).shards(query(["x" * length for length in lengths.tolist()]))
    alike = -(-n // (limits.token_budget // int(np.median(shards.sizes))))
    assert len(shards.chunks) <= max(bound(shards.sizes, limits), alike) + 1
    assert_stratified(shards)


def assert_stratified(shards: QueryShards) -> None:
    c = len(shards.chunks)
    for chunk in shards.chunks:
        blocks = (chunk // c).tolist()
        assert len(set(blocks)) == len(blocks) and len(blocks) >= len(shards.sizes) // c


@given(st.integers(1, 200), st.integers(1, 20), st.text(max_size=5))
def test_chunks_are_stratified_over_the_first_stage(n: int, most: int, id: str) -> None:
    """Each block of c neighbouring ranks gives one document to each of the c chunks; c is the fewest there can be."""
    limits = Limits(most, 1_000_000, 100, 1 << 24)
    shards = Sharder(limits, BytesCounter()).shards(query(["doc"] * n, id))
    assert len(shards.chunks) == math.ceil(n / most)
    assert_stratified(shards)


def test_the_permutation_is_fixed_for_ever() -> None:
    """The same query makes the same chunks in every process and version: requests are keyed by them."""
    shards = Sharder(Limits(6, 10_000, 100, 1 << 20), BytesCounter())
    found = [c.tolist() for c in shards.shards(query(["doc"] * 17, "q1")).chunks]
    assert found == [[1, 4, 8, 11, 12, 15], [2, 3, 6, 10, 14], [0, 5, 7, 9, 13, 16]]
    assert [c.tolist() for c in shards.shards(query(["doc"] * 17, "q2")).chunks] != found


def test_equal_sizes_that_bind_keep_the_permutation() -> None:
    """When tokens bind but all documents are alike, chunks are those of the seeded permutation."""
    by_documents = Sharder(Limits(10, 10**6, 100, 1 << 20), BytesCounter()).shards(query(["doc"] * 40))
    by_tokens = Sharder(Limits(500, 70, 100, 1 << 20, headroom=0), BytesCounter()).shards(query(["doc"] * 40))
    assert [c.tolist() for c in by_tokens.chunks] == [c.tolist() for c in by_documents.chunks]


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 30), st.integers(1, 1000))
def test_adversarial_sizes_end_near_the_optimum(data: st.DataObject, limit: int, budget: int) -> None:
    """Whatever the sizes, packing ends, keeps the limits and needs at most twice the least, plus one."""
    some = st.integers(0, budget) | st.sampled_from([budget, budget // 2 + 1, budget // 3 + 1, 1])
    weights = np.array(data.draw(st.lists(some, min_size=1, max_size=80)), dtype=np.int64)
    chunks = list(pack(np.arange(len(weights)), weights, budget, limit, "q"))
    assert sorted(np.concatenate(chunks).tolist()) == list(range(len(weights)))
    assert all(len(c) <= limit and weights[c].sum() <= budget for c in chunks)
    assert len(chunks) <= 2 * max(math.ceil(len(weights) / limit), math.ceil(weights.sum() / budget)) + 1


def test_every_block_of_mixed_long_and_short_ends() -> None:
    """A list whose long documents all stand together can't be stratified tightly, and still takes few chunks."""
    weights = np.array([900] * 50 + [90] * 50, dtype=np.int64)
    assert len(list(pack(np.arange(100), weights, 1000, 500, "q"))) == 50


def test_a_hundred_thousand_candidates() -> None:
    """A query of 100,000 documents is sharded, whichever limit binds."""
    for length in (20, 600):
        shards = Sharder(CARD, BytesCounter()).shards(query(["x" * length] * 100_000))
        assert sum(map(len, shards.chunks)) == 100_000
        assert len(shards.chunks) <= bound(shards.sizes, CARD) * 1.01 + 1


def test_blank_documents_are_never_sent() -> None:
    """Blank documents are in no chunk; a query of blanks alone has no chunks."""
    sharder = Sharder(CARD, BytesCounter())
    assert [c.tolist() for c in sharder.shards(query(["", "a", " \n", "b"])).chunks] == [[1, 3]]
    assert sharder.shards(query(["", "\t"])).chunks == ()


def test_a_document_too_large_for_any_request_is_named() -> None:
    """One that can't be sent even alone fails its query, telling its id, size, limit and what to set."""
    limits = Limits(500, 1000, 4000, 16 << 20)
    with pytest.raises(
        QueryError, match=r"'d1' of query 'q1' \(a.jsonl, line 7\) takes 1002 .*980 .*limits\.request"
    ) as e:
        Sharder(limits, Thirds()).shards(query(["x", "x" * 3000, "x"]))
    assert e.value.cause == "too-large"
    with pytest.raises(QueryError, match="counted as bytes, an upper bound: tokenizer: qwen counts exactly"):
        Sharder(limits, BytesCounter()).shards(query(["x", "x" * 3000, "x"]))
    with pytest.raises(QueryError, match=r"'d0' .* takes 5018 bytes as JSON .*limits\.body_bytes \(4096\)"):
        Sharder(Limits(500, 120_000, 100, 4096), Thirds()).shards(query(["x" * 5000]))


def test_body_bytes_are_measured_as_json() -> None:
    """Only the JSON that is really made counts: plain text may fill the body, escapes take more room."""
    limits = Limits(500, 10**9, 4000, 101_024 + 100)
    plain = Sharder(limits, BytesCounter(), document_bytes=3).shards(query(["x" * 990] * 100))
    escaped = Sharder(limits, BytesCounter(), document_bytes=3).shards(query(["\1" * 989 + "x"] * 100))
    assert len(plain.chunks) == 1
    assert len(escaped.chunks) in (6, 7)


def test_what_fits_is_judged_by_every_limit() -> None:
    """fits tells of any documents, not only of chunks, whether one request holds them."""
    shards = Sharder(Limits(3, 100, 4000, 2000, headroom=0), BytesCounter()).shards(
        query(["x" * 30] * 9, text="y")
    )
    assert shards.limit == 3
    assert shards.fits(np.array([0, 4, 8]))
    assert not shards.fits(np.array([0, 1, 4, 8]))
    long = Sharder(Limits(3, 92, 4000, 2000, headroom=0), BytesCounter()).shards(
        query(["x" * 30] * 9, text="y")
    )
    assert not long.fits(np.array([0, 4, 8]))
    assert long.fits(np.array([], dtype=np.intp))
