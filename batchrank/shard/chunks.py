"""Makes one query's chunks, within the limits of a request."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from batchrank.data import Positions, Query
from batchrank.errors import QueryError
from batchrank.models import Template
from batchrank.shard.pack import Sizes, pack, split, stratified
from batchrank.shard.sizes import Limits, Media, Rules, Sizing, json_bytes
from batchrank.tokens import Counter

_WEIGHT = 1 << 40
"""Units in a request, of which shares are counted: so many that rounding up loses nothing, and sums fit 64 bits."""


class Sharder:
    """Makes the chunks of each query.

    Args:
        limits: what one request may hold.
        counter: counts tokens.
        instruct: the instruct sent along, billed once per document.
        template: the prompt that is sent around the query and each document; it may hold the instruct.
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
        template: Template | None = None,
        wrapper_bytes: int = 1024,
        document_bytes: int = 16,
        media: Media | None = None,
    ) -> None:
        self.limits = limits
        self.counter = counter
        beside = [] if instruct is None or (template and template.instructs) else [instruct]
        of_query = template.around_query(instruct) if template else ()
        of_document = template.around_document(instruct) if template else ()
        prompt = [
            *beside,
            *of_query,
            *of_document,
        ]  # the query is counted anew with each document, and so is its prompt
        self._rules = Rules(
            limits,
            counter,
            media,
            document_tokens=limits.overhead_tokens + (int(counter.count(prompt).sum()) if prompt else 0),
            document_bytes=document_bytes + sum(map(json_bytes, of_document)),
            wrapper_bytes=wrapper_bytes + sum(map(json_bytes, [*beside, *of_query])),
        )

    def shards(self, query: Query) -> "QueryShards":
        """The chunks of a query.

        Raises:
            QueryError: a document (cause ``too-large``) exceeds a request even if sent alone.
        """
        return QueryShards(self._rules, query)


class QueryShards:
    """One query's chunks, and what is known of its documents' sizes.

    Tokens are at first bounded by bytes; they are counted only where the bound settles nothing, or on demand.
    ``chunks``, ``fits`` and ``sizes`` are the same whether or not that has happened yet; ``tokens`` is not.

    Attributes:
        chunks: disjoint, each within all limits, positions ascending; together the query's sendable documents.
        limit: the most documents in one request.
    """

    def __init__(self, rules: Rules, query: Query) -> None:
        self.limit = rules.limits.documents
        self._rules = rules
        self._query = query
        self._sizing = Sizing(rules, query)
        self.chunks: Sequence[Positions] = self.split(query.sendable)

    @property
    def exact(self) -> bool:
        """Whether ``tokens`` tells exact counts by now, as opposed to an upper bound."""
        return self._sizing.exact

    @property
    def truncated(self) -> int | None:
        """How many documents the API will cut at ``item_tokens``; None while that isn't known."""
        return self._sizing.truncated

    @property
    def text_bytes(self) -> int:
        """Bytes of the query and of all documents as they are sent, before JSON."""
        return self._sizing.text_bytes

    @property
    def sizes(self) -> Sizes:
        """Tokens that each document position adds to a request: exact, if the counter is."""
        self.count()
        return self._sizing.tokens

    def tokens(self, documents: Positions, *, exact: bool = False) -> int:
        """Tokens that a request with these documents is predicted to take.

        Args:
            documents: document positions.
            exact: count these documents now, if all weren't counted; else an upper bound may be told, see ``exact``.
        """
        if exact:
            return self._sizing.counted(documents)
        sizes = self._sizing.tokens
        return int((sizes if len(documents) == len(sizes) else sizes[documents]).sum())

    def fits(self, documents: Positions) -> bool:
        """Whether these documents fit one request."""
        return len(documents) <= self.limit and self._sizing.fit(documents.reshape(-1, 1))

    def split(self, documents: Positions) -> Sequence[Positions]:
        """Chunks of some of the documents, like ``chunks`` of all that can be sent."""
        return (documents,) if self._sizing.fit_one(documents) else tuple(self._chunks(documents))

    def count(self) -> None:
        """Count tokens exactly, if the counter can and it hasn't been done; safe to call in another thread."""
        self._sizing.count()

    def _chunks(self, documents: Positions) -> Iterator[Positions]:
        if not len(documents):
            return iter(())
        few = stratified(documents, math.ceil(len(documents) / self.limit), self._query.id)
        if self._sizing.fit(few):
            return split(few)
        self._check_each(documents)
        self._sizing.count()  # bounds would pack differently, depending on which documents happen to be counted
        weights, budget = self._weights()
        return pack(documents, weights, budget, self.limit, self._query.id)

    def _weights(self) -> tuple[Sizes, int]:
        """One weight a document, such that documents within the budget of weights keep all limits.

        1. Bodies can't bind, and there are texts only: tokens.
        2. Otherwise the largest share that a document takes of any limit, in units that are exact for kinds.
        """
        sizing, media, budget = self._sizing, self._rules.media, self._rules.limits.token_budget
        heavy = sizing.bodies_bind(self.limit)
        if not heavy and sizing.kinds is None:
            return sizing.tokens, budget
        kind_budget = media.shares.budget if media else 1
        unit = max(1, _WEIGHT // kind_budget)
        weight = unit * kind_budget
        shares = sizing.tokens / budget
        if heavy:
            shares = np.maximum(shares, sizing.bodies / sizing.body_budget)
        weights = np.ceil(shares * weight).astype(np.int64)
        return weights if sizing.kinds is None else np.maximum(weights, sizing.kinds * unit), weight

    def _check_each(self, documents: Positions) -> None:
        """Raise for the first document that can't be sent even alone."""
        sizing, limits = self._sizing, self._rules.limits
        alone = documents.reshape(1, -1)
        if not sizing.fit_tokens(alone):
            worst = documents[np.argmax(sizing.tokens[documents] > limits.token_budget)]
            counted = (
                "" if self.exact else " (counted as bytes, an upper bound: tokenizer: qwen counts exactly)"
            )
            raise QueryError(
                "too-large",
                f"document {self._name(worst)} takes {sizing.tokens[worst]} tokens with its query{counted}, and a "
                f"request holds {limits.token_budget} (limits.request_tokens {limits.request_tokens} less the "
                "headroom): shorten the document or the query, or set limits.request_tokens or "
                "limits.item_tokens to what the model accepts",
            )
        if not sizing.fit_bodies(alone):
            worst = documents[np.argmax(sizing.bodies[documents] > sizing.body_budget)]
            raise QueryError(
                "too-large",
                f"document {self._name(worst)} takes {sizing.bodies[worst]} bytes as JSON and its query with the "
                f"rest of the request {sizing.wrapper}, more than limits.body_bytes "
                f"({limits.body_bytes}): shorten it, or set limits.body_bytes to what the server accepts",
            )

    def _name(self, document: np.intp) -> str:
        return f"{self._query.doc_ids[int(document)]!r} of query {self._query.id!r} ({self._query.place})"
