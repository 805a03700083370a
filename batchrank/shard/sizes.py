"""Counts what each document takes of a request, by the limits and rules that decide how queries are sharded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from batchrank.data import Content, Positions, Query
from batchrank.io.images import counts, kind_of, value_of
from batchrank.io.media import Media
from batchrank.tokens import BytesCounter, Counter

Sizes = NDArray[np.int64]

ESCAPED = 6
"""Most bytes that JSON makes of one byte of UTF-8: a control character becomes ``\\u0000``."""


def tokens(items: Sequence[Content], counter: Counter, media: Media | None) -> NDArray[np.int64]:
    """Tokens of each item; of images and videos, where the model takes some, the most they can be."""
    if media is None:
        return counter.count(items)  # type: ignore[arg-type]  # without media rules all items are texts
    return counts(items, media.vision, counter.count, fps=media.fps)


def kinds(items: Sequence[Content], media: Media) -> NDArray[np.int64] | None:
    """What each item takes of a request's budget of kinds; None where that can't bind."""
    most = media.shares.counts
    if most.get("text") == max(most.values()) and all(isinstance(item, str) for item in items):
        return None
    return media.shares.of(kind_of(item) for item in items)


def json_bytes(item: Content) -> int:
    """Bytes of an item as JSON."""
    text = value_of(item)
    try:
        return len(orjson.dumps(text))
    except orjson.JSONEncodeError:  # a lone surrogate, however the wire will put it
        return ESCAPED * len(text.encode("utf-8", "surrogatepass")) + 2


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold.

    Attributes:
        documents: most documents.
        request_tokens: most tokens, by the documented formula.
        item_tokens: tokens at which the API cuts a query or a document.
        body_bytes: largest request body.
        overhead_tokens: billed per document on top of query, instruct and document.
        headroom: the fraction of ``request_tokens`` that is kept free.
        token_budget: tokens of a request that may be planned for.
    """

    documents: int
    request_tokens: int
    item_tokens: int
    body_bytes: int
    overhead_tokens: int = 0
    headroom: float = 0.02
    token_budget: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_budget", math.floor(self.request_tokens * (1 - self.headroom)))


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """What all queries of a run are sharded by.

    Attributes:
        limits: what one request may hold.
        counter: counts tokens.
        media: the rules for images and videos, for a model that takes some.
        document_tokens: billed per document on top of query and document: overhead, instruct, prompts.
        document_bytes: JSON around each document's string.
        wrapper_bytes: the request body but for query and documents.
    """

    limits: Limits
    counter: Counter
    media: Media | None
    document_tokens: int
    document_bytes: int
    wrapper_bytes: int


_BYTES = BytesCounter()
_SAVED = 0.6
"""The share of a document's bytes that a count is expected to take off its bound, before any was counted."""
_TRIES = 2
"""Times that a part is counted before all is: the first tells how much a count takes off."""
_MOST = 0.6
"""Where more of the documents' bytes than this would have to be counted, all are."""


class Sizing:
    """The sizes of one query's documents: bounds by bytes at first, exact where that is asked for or settles something.

    Attributes:
        tokens: what each document adds to a request; an upper bound as long as it isn't counted.
        kinds: what each takes of the budget of kinds; None where that can't bind.
        bodies: bytes of each in the request's body; an upper bound until measured.
        wrapper: bytes of a body besides its documents; likewise.
        text_bytes: bytes of the query's text and of all documents as they are sent, before JSON.
        exact: whether all of ``tokens`` is counted.
        truncated: how many documents the API will cut at ``item_tokens``; None while that isn't known.
    """

    def __init__(self, rules: Rules, query: Query) -> None:
        self._rules = rules
        self._query = query
        media = rules.media
        items: list[Any] = [query.text, *query.documents]
        if media is None:  # all are texts
            bounds = utf8 = _BYTES.count(items)
            self.kinds = None
        else:
            utf8, bounds = _BYTES.count([value_of(item) for item in items]), tokens(items, _BYTES, media)
            self.kinds = kinds(query.documents, media)
        self.text_bytes = int(utf8.sum())
        self._query_tokens = int(bounds[0])
        self._query_counted = False
        self.tokens = self._of_request(bounds[1:], self._query_tokens)
        self._counted: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None
        self.bodies: Sizes = ESCAPED * utf8[1:] + (2 + rules.document_bytes)
        self.wrapper = rules.wrapper_bytes + ESCAPED * int(utf8[0]) + 2
        self._bodies_measured = False
        self.exact = False
        self.truncated: int | None = None
        if not rules.counter.bytes_bound:
            self.count()
        elif int(utf8[1:].max(initial=0)) <= rules.limits.item_tokens:
            self.truncated = 0

    def count(self) -> None:
        """Count all tokens exactly, if the counter can and it hasn't been done."""
        if self.exact or not self._rules.counter.exact:
            return
        counts = self._counts([self._query.text, *self._query.documents])
        self._query_tokens, self._query_counted = int(counts[0]), True
        self.tokens = self._of_request(counts[1:], self._query_tokens)
        self.truncated = int((counts[1:] > self._rules.limits.item_tokens).sum())
        self.exact = True

    def counted(self, documents: Positions) -> int:
        """Tokens of one request, its own documents counted if the counter can; safe to call in another thread."""
        if self.exact or not self._rules.counter.exact:
            return total(self.tokens, documents)
        texts = self._query.documents
        counts = self._counts([self._query.text, *(texts[i] for i in documents.tolist())])
        return int(self._of_request(counts[1:], int(counts[0])).sum())

    def fit_one(self, documents: Positions) -> bool:
        """Whether these documents, all of the query's, fit one request as far as bounds tell; False where they may."""
        limits = self._rules.limits
        return (
            self.kinds is None
            and 0 < len(documents) <= limits.documents
            and total(self.tokens, documents) <= limits.token_budget
            and self.wrapper + total(self.bodies, documents) <= limits.body_bytes
        )

    def fit(self, columns: Positions) -> bool:
        """Whether each column's documents fit one request; -1 stands for none."""
        return self._fit_kinds(columns) and self.fit_tokens(columns) and self.fit_bodies(columns)

    def fit_tokens(self, columns: Positions) -> bool:
        """Whether each column keeps to the budget of tokens."""
        budget = self._rules.limits.token_budget
        if heaviest(self.tokens, columns) <= budget:
            return True
        if self.exact or not self._rules.counter.exact:
            return False
        if self._tighten(columns, budget):
            return True
        self.count()  # also where a part settled it: what doesn't fit is packed anew, by exact counts throughout
        return heaviest(self.tokens, columns) <= budget

    def fit_bodies(self, columns: Positions) -> bool:
        """Whether each column's body is small enough."""
        if heaviest(self.bodies, columns) <= self.body_budget:
            return True
        if self._bodies_measured:
            return False
        self._measure_bodies()
        return heaviest(self.bodies, columns) <= self.body_budget

    @property
    def body_budget(self) -> int:
        """Bytes of a body that its documents may take."""
        return self._rules.limits.body_bytes - self.wrapper

    def bodies_bind(self, most: int) -> bool:
        """Whether so many documents may be too large for a body."""
        if not self._bodies_measured and _largest(self.bodies, most) > self.body_budget:
            self._measure_bodies()
        return _largest(self.bodies, most) > self.body_budget

    def _fit_kinds(self, columns: Positions) -> bool:
        media = self._rules.media
        return self.kinds is None or media is None or heaviest(self.kinds, columns) <= media.shares.budget

    def _tighten(self, columns: Positions, budget: int) -> bool:
        """Count as little as brings every column within the budget; whether that did it.

        1. The query, which every document pays for.
        2. Some documents: an exact count of a part of them proves as much as one of all, and takes a fraction of the
           time.
        """
        if not self._query_counted:
            self._count_query()
            if heaviest(self.tokens, columns) <= budget:
                return True
        saved = _SAVED
        for _ in range(_TRIES):
            chosen = self._worth_counting(columns, budget, saved)
            if chosen is None:
                return False
            before = int(self.tokens[chosen].sum())
            documents = self._query.documents
            counts = self._counts([documents[i] for i in chosen.tolist()])
            self.tokens[chosen] = self._of_request(counts, self._query_tokens)
            self._mark(chosen)
            if heaviest(self.tokens, columns) <= budget:
                return True
            saved = max(0.05, 0.9 * (1 - int(self.tokens[chosen].sum()) / before))
        return False

    def _count_query(self) -> None:
        most = self._rules.limits.item_tokens
        before = min(self._query_tokens, most)
        self._query_tokens, self._query_counted = int(self._counts([self._query.text])[0]), True
        self.tokens -= before - min(self._query_tokens, most)

    def _mark(self, chosen: Positions) -> None:
        if self._counted is None:
            self._counted = np.zeros(len(self.tokens), dtype=bool)
        self._counted[chosen] = True

    def _worth_counting(self, columns: Positions, budget: int, saved: float) -> Positions | None:
        """As many documents, not yet counted, as it takes if each is bounded too high by ``saved``.

        Which ones makes no difference, as a count takes as long, and gains as much, as its document has bytes.
        None where most of their bytes would have to be counted, or all of them tell too little.
        """
        chosen: list[Positions] = []
        for column in columns.T:
            documents = column[column >= 0]
            planned = total(self.tokens, documents)
            excess = planned - budget
            if excess <= 0:
                continue
            left = documents if self._counted is None else documents[~self._counted[documents]]
            gains = np.cumsum(self.tokens[left]) * saved
            if excess > _MOST * saved * planned or not len(gains) or gains[-1] < excess:
                return None
            needed = int(np.searchsorted(gains, excess)) + 1
            chosen.append(left[:needed])
        return np.concatenate(chosen)

    def _counts(self, items: list[Content]) -> Sizes:
        return tokens(items, self._rules.counter, self._rules.media)

    def _of_request(self, counts: Sizes, query: int) -> Sizes:
        """What documents of so many tokens add to a request: the query, instruct and overhead are billed with each."""
        most = self._rules.limits.item_tokens
        sizes: Sizes = np.minimum(counts, most) + (min(query, most) + self._rules.document_tokens)
        return sizes

    def _measure_bodies(self) -> None:
        rules, query = self._rules, self._query
        sizes = (json_bytes(text) for text in query.documents)
        self.bodies = np.fromiter(sizes, dtype=np.int64, count=len(query)) + rules.document_bytes
        self.wrapper = rules.wrapper_bytes + json_bytes(query.text)
        self._bodies_measured = True


def total(sizes: Sizes, documents: Positions) -> int:
    """The sum over some documents, none of them twice: all of them need not be looked up."""
    return int((sizes if len(documents) == len(sizes) else sizes[documents]).sum())


def _largest(sizes: Sizes, most: int) -> int:
    return int(np.sort(sizes)[-most:].sum())


def heaviest(sizes: Sizes, columns: Positions) -> int:
    """The largest sum of sizes in any column; -1 weighs nothing."""
    if columns.shape[1] == 1 and len(columns) == len(sizes):  # all of them, in one request
        return int(sizes.sum())
    padded = np.append(sizes, 0)
    return int(padded[columns].sum(axis=0).max(initial=0))
