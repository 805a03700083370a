"""One query's chunks and sizes, within the limits of a request."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from batchrank.errors import QueryError
from batchrank.records import Positions, Query
from batchrank.shard.pack import Sizes, heaviest, pack, split, stratified
from batchrank.tokens import BytesCounter, Counter

_ESCAPED = 6
"""Most bytes that JSON makes of one byte of UTF-8: a control character becomes ``\\u0000``."""
_WEIGHT = 1 << 40


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
    """

    def __init__(
        self,
        limits: Limits,
        counter: Counter,
        *,
        instruct: str | None = None,
        wrapper_bytes: int = 1024,
        document_bytes: int = 16,
    ) -> None:
        self.limits = limits
        self.counter = counter
        self.document_tokens = limits.overhead_tokens + (int(counter.count([instruct])[0]) if instruct else 0)
        self.document_bytes = document_bytes
        self.wrapper_bytes = wrapper_bytes + (_json_bytes(instruct) if instruct else 0)

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
        self.limit = sharder.limits.documents
        self.exact = False
        self.truncated: int | None = None
        self._sharder = sharder
        self._query = query
        utf8 = BytesCounter().count([query.text, *query.documents])
        self._tokens = self._request_tokens(utf8)
        self._bodies = _ESCAPED * utf8[1:] + 2 + sharder.document_bytes
        self._wrapper = sharder.wrapper_bytes + _ESCAPED * int(utf8[0]) + 2
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
        counts = self._sharder.counter.count([self._query.text, *self._query.documents])
        self._tokens = self._request_tokens(counts)
        self.truncated = int((counts[1:] > self._sharder.limits.item_tokens).sum())
        self.exact = True

    def _request_tokens(self, counts: Sizes) -> Sizes:
        """What each document adds to a request, from the counts of the query and of all documents."""
        capped = np.minimum(counts, self._sharder.limits.item_tokens)
        sizes: Sizes = capped[1:] + capped[0] + self._sharder.document_tokens
        return sizes

    def _measure_bodies(self) -> None:
        sharder, query = self._sharder, self._query
        sizes = (_json_bytes(text) for text in query.documents)
        self._bodies = np.fromiter(sizes, dtype=np.int64, count=len(query)) + sharder.document_bytes
        self._wrapper = sharder.wrapper_bytes + _json_bytes(query.text)
        self._bodies_exact = True

    @property
    def _body_budget(self) -> int:
        return self._sharder.limits.body_bytes - self._wrapper

    def _fit(self, columns: Positions) -> bool:
        """Whether each column's documents fit one request; -1 stands for none."""
        return self._fit_tokens(columns) and self._fit_bodies(columns)

    def _fit_tokens(self, columns: Positions) -> bool:
        budget = self._sharder.limits.token_budget
        if heaviest(self._tokens, columns) <= budget:
            return True
        if self.exact or not self._sharder.counter.exact:
            return False
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
        """One weight a document, such that documents within the budget of weights keep both limits."""
        tokens, bodies = self._sharder.limits.token_budget, self._body_budget
        if not self._bodies_exact and self._heaviest_bodies() > bodies:
            self._measure_bodies()
            bodies = self._body_budget
        if self._heaviest_bodies() <= bodies:
            return self._tokens, tokens
        shares = np.maximum(self._tokens / tokens, self._bodies / bodies)
        return np.ceil(shares * _WEIGHT).astype(np.int64), _WEIGHT

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


def _json_bytes(text: str) -> int:
    try:
        return len(orjson.dumps(text))
    except orjson.JSONEncodeError:  # a lone surrogate, however the wire will put it
        return _ESCAPED * len(text.encode("utf-8", "surrogatepass")) + 2
