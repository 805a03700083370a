"""Queries and counters for the tests of sharding."""

from collections.abc import Sequence

from hypothesis import strategies as st

from batchrank.data import Query
from batchrank.errors import Place
from batchrank.shard.sizes import Limits, Sizes
from batchrank.tokens import BytesCounter

CARD = Limits(documents=500, request_tokens=120_000, item_tokens=4_000, body_bytes=16 << 20)


class Thirds:
    """A third of the bytes, rounded up: exact by decree, and counts how often it is asked, and for how many texts."""

    exact = True
    estimate = False
    bytes_bound = True
    name = "thirds"

    def __init__(self) -> None:
        self.calls = self.texts = 0

    def count(self, texts: Sequence[str]) -> Sizes:
        self.calls += 1
        self.texts += len(texts)
        counts: Sizes = -(-BytesCounter().count(texts) // 3)
        return counts


def query(documents: Sequence[str], id: str = "q1", text: str = "what") -> Query:
    return Query(
        id, text, [f"d{i}" for i in range(len(documents))], documents, None, Place("a.jsonl", "line", 7)
    )


def lists(lengths: st.SearchStrategy[int], most: int = 120) -> st.SearchStrategy[list[str]]:
    return st.lists(lengths.map(lambda length: "x" * length), min_size=1, max_size=most)
