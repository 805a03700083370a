"""Makes one query's chunks within the limits of a request, as few as can be, each a fair sample of its documents.

While it is being made, a set of chunks is a matrix of blocks x chunks: a row holds one document of each chunk, -1
standing for none, so a column is a chunk.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np

from batchrank.data import Positions, Query
from batchrank.errors import QueryError
from batchrank.io.media import Media
from batchrank.models import Template
from batchrank.shard.sizes import Limits, Rules, Sizes, Sizing, heaviest, json_bytes, total
from batchrank.tokens import Counter
from batchrank.wire import DOCUMENT_BYTES

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
        document_bytes: int = DOCUMENT_BYTES,
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
        return total(self._sizing.tokens, documents)

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


_WORTH = 16
"""One more chunk for each so many is worth paying, if the chunks are stratified then."""
_SWAPS = 20_000_000
"""Documents looked at in search of swaps, so that a list of any length ends."""


def pack(documents: Positions, weights: Sizes, budget: int, limit: int, seed: str) -> Iterator[Positions]:
    """As few chunks as the weights allow, stratified if that costs little more; each document fits alone."""
    least = _lower_bound(weights[documents], budget, limit)
    for chunks in range(least, min(least + 2, len(documents) + 1)):
        columns = _balanced(stratified(documents, chunks, seed), weights, budget)
        if heaviest(weights, columns) <= budget:
            return split(columns)
    unequal = _first_fit_decreasing(documents, weights, budget, limit)
    more = 2
    while least + more <= len(unequal) + len(unequal) // _WORTH:
        columns = _balanced(stratified(documents, least + more, seed), weights, budget)
        if heaviest(weights, columns) <= budget:
            return split(columns)
        more += max(1, more // 4)
    return iter(unequal)


def stratified(documents: Positions, chunks: int, seed: str) -> Positions:
    """Blocks x chunks: each row holds neighbouring documents in a random order; -1 fills up the last row."""
    blocks = -(-len(documents) // chunks)
    rows = np.full(blocks * chunks, -1, dtype=np.intp)
    rows[: len(documents)] = documents
    if chunks == 1:
        return rows.reshape(blocks, 1)
    stream = hashlib.shake_256(seed.encode("utf-8", "surrogatepass")).digest(8 * rows.size)
    order = np.frombuffer(stream, dtype="<u8").reshape(blocks, chunks).argsort(axis=1, kind="stable")
    return np.take_along_axis(rows.reshape(blocks, chunks), order, axis=1)


def split(columns: Positions) -> Iterator[Positions]:
    """The columns as chunks, without what fills them up."""
    for column in columns.T:
        yield np.ascontiguousarray(column[column >= 0])


def _lower_bound(weights: Sizes, budget: int, limit: int) -> int:
    """No fewer chunks can do: of documents heavier than budget / (k + 1), a chunk holds k at most."""
    together = np.arange(1, limit + 1)
    heavy = len(weights) - np.searchsorted(np.sort(weights), budget // (together + 1), side="right")
    return max(
        -(-len(weights) // limit), -(-int(weights.sum()) // budget), int((-(-heavy // together)).max())
    )


def _balanced(rows: Positions, weights: Sizes, budget: int) -> Positions:
    """Permute each row so that the columns' weights come out alike, and within the budget if that can be had."""
    padded = np.append(weights, 0)[rows]
    order = np.argsort(-padded, axis=1, kind="stable")
    rows, padded = np.take_along_axis(rows, order, axis=1), np.take_along_axis(padded, order, axis=1)
    columns, sizes = np.empty_like(rows), np.empty_like(padded)
    loads = np.zeros(rows.shape[1], dtype=np.int64)
    for block in np.argsort(padded[:, -1] - padded[:, 0], kind="stable").tolist():
        lightest = loads.argsort(kind="stable")
        columns[block, lightest], sizes[block, lightest] = rows[block], padded[block]
        loads[lightest] += padded[block]
    _swap(columns, sizes, loads, budget)
    return columns


def _swap(columns: Positions, sizes: Sizes, loads: Sizes, budget: int) -> None:
    """Swap, within a row, a document of the heaviest column for a lighter one, while that column is too heavy."""
    for _ in range(min(8 * len(loads), _SWAPS // sizes.size)):
        heavy = int(loads.argmax())
        if loads[heavy] <= budget:
            return
        moved = sizes[:, [heavy]] - sizes
        after = np.maximum(loads[heavy] - moved, loads + moved)
        row, light = divmod(int(after.argmin()), len(loads))
        if after[row, light] >= loads[heavy]:
            return
        loads[heavy] -= moved[row, light]
        loads[light] += moved[row, light]
        for table in (columns, sizes):
            table[row, heavy], table[row, light] = table[row, light], table[row, heavy]


def _first_fit_decreasing(documents: Positions, weights: Sizes, budget: int, limit: int) -> list[Positions]:
    """The heaviest document first, each into the first chunk that still takes it."""
    room = np.full(len(documents), budget, dtype=np.int64)
    chunks: list[list[int]] = []
    for document in documents[np.argsort(-weights[documents], kind="stable")].tolist():
        chunk = int(np.argmax(room[: len(chunks) + 1] >= weights[document]))
        if chunk == len(chunks):
            chunks.append([])
        chunks[chunk].append(document)
        room[chunk] = room[chunk] - weights[document] if len(chunks[chunk]) < limit else -1
    return [np.array(sorted(chunk), dtype=np.intp) for chunk in chunks]
