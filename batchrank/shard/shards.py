"""One query's chunks and sizes, within the limits of a request."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from batchrank.errors import QueryError
from batchrank.records import Positions, Query
from batchrank.shard.measure import ESCAPED, Media, json_bytes, kinds, tokens, utf8_bytes
from batchrank.shard.pack import Sizes, heaviest, pack, split, stratified
from batchrank.tokens import BytesCounter, Counter

_WEIGHT = 1 << 40
_SAVED = 0.6
"""The share of a document's bytes that a count is expected to take off its bound, before any was counted."""
_MOST = 0.6
"""Where more of the documents than this would have to be counted, all are."""


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
    """

    documents: int
    request_tokens: int
    item_tokens: int
    body_bytes: int
    overhead_tokens: int = 0
    headroom: float = 0.02

    @property
    def token_budget(self) -> int:
        """Tokens of a request that may be planned for."""
        return math.floor(self.request_tokens * (1 - self.headroom))


class Sharder:
    """Makes the chunks of each query.

    Args:
        limits: what one request may hold.
        counter: counts tokens.
        instruct: the instruct sent along, billed once per document.
        wrapper_bytes: the request body but for query, instruct and documents.
        document_bytes: JSON around each document's string: its comma, and braces and key where the wire has some.
        media: the rules for images and videos, for a model that takes some.
    """

    def __init__(
        self,
        limits: Limits,
        counter: Counter,
        *,
        instruct: str | None = None,
        wrapper_bytes: int = 1024,
        document_bytes: int = 16,
        media: Media | None = None,
    ) -> None:
        self.limits = limits
        self.counter = counter
        self.media = media
        self.document_tokens = limits.overhead_tokens + (int(counter.count([instruct])[0]) if instruct else 0)
        self.document_bytes = document_bytes
        self.wrapper_bytes = wrapper_bytes + (json_bytes(instruct) if instruct else 0)

    def shards(self, query: Query) -> "QueryShards":
        """The chunks of a query.

        Raises:
            QueryError: a document (cause ``too-large``) exceeds a request even if sent alone.
        """
        return QueryShards(self, query)


class QueryShards:
    """One query's chunks, and what is known of its documents' sizes.

    Tokens are at first bounded by bytes; they are counted only where the bound settles nothing, or on demand.
    ``chunks``, ``fits`` and ``sizes`` are the same whether or not that has happened yet; ``tokens`` is not.

    Attributes:
        chunks: disjoint, each within all limits, positions ascending; together the query's sendable documents.
        limit: the most documents in one request.
        exact: whether ``tokens`` tells exact counts by now, as opposed to an upper bound.
        truncated: how many documents the API will cut at ``item_tokens``; None while that isn't known.
    """

    def __init__(self, sharder: Sharder, query: Query) -> None:
        media = sharder.media
        self.limit = sharder.limits.documents
        self.exact = False
        self.truncated: int | None = None
        self._sharder = sharder
        self._query = query
        items = [query.text, *query.documents]
        utf8 = utf8_bytes(items, BytesCounter(), media)
        self._tokens = self._request_tokens(utf8 if media is None else tokens(items, BytesCounter(), media))
        self._counted = np.zeros(len(query), dtype=bool)
        self._kinds = kinds(query.documents, media)
        self._bodies = ESCAPED * utf8[1:] + 2 + sharder.document_bytes
        self._wrapper = sharder.wrapper_bytes + ESCAPED * int(utf8[0]) + 2
        self._bodies_exact = False
        if not sharder.counter.bytes_bound:
            self.count()
        elif (utf8[1:] <= sharder.limits.item_tokens).all():
            self.truncated = 0
        self.chunks: Sequence[Positions] = tuple(self._chunks())

    @property
    def sizes(self) -> Sizes:
        """Tokens that each document position adds to a request: exact, if the counter is."""
        self.count()
        return self._tokens

    def tokens(self, documents: Positions, *, exact: bool = False) -> int:
        """Tokens that a request with these documents is predicted to take.

        Args:
            documents: document positions.
            exact: count now if that hasn't been done; else an upper bound may be told, see ``exact``.
        """
        if exact:
            self.count()
        return int(self._tokens[documents].sum())

    def fits(self, documents: Positions) -> bool:
        """Whether these documents fit one request."""
        return len(documents) <= self.limit and self._fit(documents.reshape(-1, 1))

    def halve(self, documents: Positions) -> tuple[Positions, Positions]:
        """Two halves of a chunk that the API found too large, each a sample of the whole chunk.

        Raises:
            QueryError: it is a single document (cause ``too-large``).
        """
        if len(documents) < 2:
            raise QueryError(
                "too-large",
                f"the API finds a request too large that holds only document {self._name(documents[0])}, "
                f"{self._tokens[documents[0]]} tokens with its query: shorten the document or lower "
                "limits.item_tokens",
            )
        return documents[::2], documents[1::2]

    def count(self) -> None:
        """Count tokens exactly, if the counter can and it hasn't been done; safe to call in another thread."""
        if self.exact or not self._sharder.counter.exact:
            return
        counts = tokens(
            [self._query.text, *self._query.documents], self._sharder.counter, self._sharder.media
        )
        self._tokens = self._request_tokens(counts)
        self.truncated = int((counts[1:] > self._sharder.limits.item_tokens).sum())
        self.exact = True

    def _tighten(self, columns: Positions, budget: int) -> bool:
        """Count as few documents as bring every column within the budget; whether that did it.

        An exact count of a part of them proves as much as one of all, and takes a fraction of the time.
        """
        saved = _SAVED
        for _ in range(3):
            chosen = self._worth_counting(columns, budget, saved)
            if chosen is None:
                return False
            if not len(chosen):
                return True
            before = int(self._tokens[chosen].sum())
            sharder, documents = self._sharder, self._query.documents
            items = [self._query.text, *(documents[i] for i in chosen.tolist())]
            self._tokens[chosen] = self._request_tokens(tokens(items, sharder.counter, sharder.media))
            self._counted[chosen] = True
            saved = max(0.05, 0.9 * (1 - int(self._tokens[chosen].sum()) / before))
        return False

    def _worth_counting(self, columns: Positions, budget: int, saved: float) -> Positions | None:
        """The largest documents not yet counted, as many as it takes if each is bounded too high by ``saved``.

        None where most of all documents would have to be counted.
        """
        chosen: list[Positions] = []
        for column in columns.T:
            documents = column[column >= 0]
            excess = int(self._tokens[documents].sum()) - budget
            if excess <= 0:
                continue
            left = documents[~self._counted[documents]]
            left = left[np.argsort(-self._tokens[left], kind="stable")]
            gains = np.cumsum(self._tokens[left]) * saved
            needed = int(np.searchsorted(gains, excess)) + 1
            if needed > _MOST * len(documents):
                return None
            chosen.append(left[:needed])
        return np.concatenate(chosen) if chosen else np.empty(0, dtype=np.intp)

    def _request_tokens(self, counts: Sizes) -> Sizes:
        """What each document adds to a request, from the counts of the query and of all documents."""
        capped = np.minimum(counts, self._sharder.limits.item_tokens)
        sizes: Sizes = capped[1:] + capped[0] + self._sharder.document_tokens
        return sizes

    def _measure_bodies(self) -> None:
        sharder, query = self._sharder, self._query
        sizes = (json_bytes(text) for text in query.documents)
        self._bodies = np.fromiter(sizes, dtype=np.int64, count=len(query)) + sharder.document_bytes
        self._wrapper = sharder.wrapper_bytes + json_bytes(query.text)
        self._bodies_exact = True

    @property
    def _body_budget(self) -> int:
        return self._sharder.limits.body_bytes - self._wrapper

    def _fit(self, columns: Positions) -> bool:
        """Whether each column's documents fit one request; -1 stands for none."""
        return self._fit_kinds(columns) and self._fit_tokens(columns) and self._fit_bodies(columns)

    def _fit_kinds(self, columns: Positions) -> bool:
        media = self._sharder.media
        return self._kinds is None or media is None or heaviest(self._kinds, columns) <= media.shares.budget

    def _fit_tokens(self, columns: Positions) -> bool:
        budget = self._sharder.limits.token_budget
        if heaviest(self._tokens, columns) <= budget:
            return True
        if self.exact or not self._sharder.counter.exact:
            return False
        if not self._tighten(columns, budget):
            self.count()
        return heaviest(self._tokens, columns) <= budget

    def _fit_bodies(self, columns: Positions) -> bool:
        if heaviest(self._bodies, columns) <= self._body_budget:
            return True
        if self._bodies_exact:
            return False
        self._measure_bodies()
        return heaviest(self._bodies, columns) <= self._body_budget

    def _chunks(self) -> Iterator[Positions]:
        documents = self._query.sendable
        if not len(documents):
            return iter(())
        few = stratified(documents, math.ceil(len(documents) / self.limit), self._query.id)
        if self._fit(few):
            return split(few)
        self._check_each(documents)
        weights, budget = self._weights()
        return pack(documents, weights, budget, self.limit, self._query.id)

    def _weights(self) -> tuple[Sizes, int]:
        """One weight a document, such that documents within the budget of weights keep all limits.

        1. Bodies can't bind, and there are texts only: tokens.
        2. Otherwise the largest share that a document takes of any limit, in units that are exact for kinds.
        """
        budget, bodies = self._sharder.limits.token_budget, self._body_budget
        if not self._bodies_exact and self._heaviest_bodies() > bodies:
            self._measure_bodies()
            bodies = self._body_budget
        heavy = self._heaviest_bodies() > bodies
        if not heavy and self._kinds is None:
            return self._tokens, budget
        kind_budget = self._sharder.media.shares.budget if self._sharder.media else 1
        unit = max(1, _WEIGHT // kind_budget)
        weight = unit * kind_budget
        shares = self._tokens / budget
        if heavy:
            shares = np.maximum(shares, self._bodies / bodies)
        weights = np.ceil(shares * weight).astype(np.int64)
        return weights if self._kinds is None else np.maximum(weights, self._kinds * unit), weight

    def _heaviest_bodies(self) -> int:
        return int(np.sort(self._bodies)[-self.limit :].sum())

    def _check_each(self, documents: Positions) -> None:
        """Raise for the first document that can't be sent even alone."""
        alone = documents.reshape(1, -1)
        if not self._fit_tokens(alone):
            limits = self._sharder.limits
            worst = documents[np.argmax(self._tokens[documents] > limits.token_budget)]
            counted = (
                "" if self.exact else " (counted as bytes, an upper bound: tokenizer: qwen counts exactly)"
            )
            raise QueryError(
                "too-large",
                f"document {self._name(worst)} takes {self._tokens[worst]} tokens with its query{counted}, and a "
                f"request holds {limits.token_budget} (limits.request_tokens {limits.request_tokens} less the "
                "headroom): shorten the document or the query, or set limits.request_tokens or "
                "limits.item_tokens to what the model accepts",
            )
        if not self._fit_bodies(alone):
            worst = documents[np.argmax(self._bodies[documents] > self._body_budget)]
            raise QueryError(
                "too-large",
                f"document {self._name(worst)} takes {self._bodies[worst]} bytes as JSON and its query with the "
                f"rest of the request {self._wrapper}, more than limits.body_bytes "
                f"({self._sharder.limits.body_bytes}): shorten it, or set limits.body_bytes to what the server "
                "accepts",
            )

    def _name(self, document: np.intp) -> str:
        return f"{self._query.doc_ids[int(document)]!r} of query {self._query.id!r} ({self._query.place})"
