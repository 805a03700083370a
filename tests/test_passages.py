"""Long documents: cut into passages, folded back into documents."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.data import Candidate, Query
from batchrank.errors import QueryError
from batchrank.outcomes import Merged
from batchrank.pipeline.prepare import refuse_long
from batchrank.shard.long import Passages, Splitter, too_long
from batchrank.tokens import counter

COUNTER = counter("qwen")
WORDS = "The quick brown fox jumps over the lazy dog. "


def query(*texts: str) -> Query:
    return Query.of("q", "a fox", [Candidate(f"d{i}", text) for i, text in enumerate(texts)])


def test_a_long_document_becomes_passages_within_the_limit() -> None:
    """Nothing is lost, no passage is too long, neighbours overlap, short documents stay whole."""
    cut = Splitter(COUNTER, 50, 10).passages(query("short", WORDS * 40, "also short"))
    assert cut is not None
    assert (COUNTER.count(list(map(str, cut.query.documents))) <= 50).all()
    assert cut.owners[0] == 0 and cut.owners[-1] == 2 and len(cut.owners) > 8
    assert set(cut.query.doc_ids) == {"d0", "d1", "d2"}
    pieces = [str(d) for d, owner in zip(cut.query.documents, cut.owners, strict=True) if owner == 1]
    assert sum(map(len, pieces)) > len(WORDS * 40) - len(pieces)


def test_without_long_documents_nothing_changes() -> None:
    """None means: rank the query as it is."""
    assert Splitter(COUNTER, 50, 10).passages(query("short", "")) is None


def test_a_text_without_any_place_to_cut_is_cut_all_the_same() -> None:
    """60,000 letters in a row still become passages within the limit."""
    cut = Splitter(COUNTER, 500, 50).passages(query("a" * 60_000))
    assert cut is not None and (COUNTER.count(list(map(str, cut.query.documents))) <= 500).all()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.data())
def test_a_document_stands_where_its_best_passage_does(counts: list[int], data: st.DataObject) -> None:
    """Every document once, in the order of best passages, with that passage's score."""
    owners = np.repeat(np.arange(len(counts)), counts)
    order = np.array(data.draw(st.permutations(range(len(owners)))), dtype=np.intp)
    scores = np.sort(np.random.default_rng(0).random(len(owners)))[::-1]
    certified = data.draw(st.integers(0, len(owners)))
    merged = Merged(order, scores, scores, certified, "hub")
    folded = Passages(query(*["x"] * len(owners)), owners).fold(merged)
    assert sorted(folded.order.tolist()) == list(range(len(counts)))
    best = [scores[np.flatnonzero(owners[order] == document)[0]] for document in folded.order]
    assert folded.scores.tolist() == best
    assert folded.certified == len(set(owners[order[:certified]].tolist()))


def test_error_names_the_document_and_what_to_do() -> None:
    """limits.long_documents: error lets such a query fail."""
    with pytest.raises(QueryError, match="document 'd1' is longer than 50 tokens") as caught:
        refuse_long(query("short", WORDS * 40), COUNTER, 50)
    assert caught.value.cause == "too-long"
    refuse_long(query("short"), COUNTER, 50)


def test_only_what_may_be_long_is_counted() -> None:
    """The exact count settles it: many bytes, few tokens."""
    assert too_long(query("é" * 40, "word " * 60), COUNTER, 50).tolist() == [1]
