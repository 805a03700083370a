"""What decides how queries are sharded: limits of a request, the counter of tokens, the rules for media."""

import math
from dataclasses import dataclass

from batchrank.shard.measure import Media
from batchrank.tokens import Counter


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
