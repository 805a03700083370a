"""Documents longer than the API reads: ranked by their passages. Pure.

A long document becomes passages of at most so many tokens, cut at sentences where there are some, with an overlap; each
is ranked as a document of its own, and the document takes the place of its best one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from batchrank.errors import MissingExtraError, QueryError, install_line
from batchrank.records import Content, Merged, Positions, Query
from batchrank.tokens import BytesCounter, Counter

_MOST_TOKENS = 12  # that a character can be: four bytes of UTF-8, which normalising may treble


@dataclass(frozen=True, slots=True, eq=False)
class Passages:
    """A query whose long documents are cut into passages.

    Attributes:
        query: the query with passages as its documents, in the order of their documents.
        owners: the document position of each passage.
    """

    query: Query
    owners: Positions

    @property
    def depth(self) -> float:
        """How many passages a document has, on average: how much deeper a ranking of passages must be exact."""
        return len(self.owners) / (int(self.owners[-1]) + 1)

    def fold(self, merged: Merged) -> Merged:
        """The ranking of documents: each where its best passage stands.

        The first certified passages prove the places of the documents they belong to, as long as every passage of a
        document that stands further down is known to be below them; that is what their certificate says.
        """
        owners = self.owners[merged.order]
        _, first = np.unique(owners, return_index=True)
        first = np.sort(first)
        return replace(
            merged,
            order=owners[first],
            scores=merged.scores[first],
            raw_scores=merged.raw_scores[first],
            certified=int((first < merged.certified).sum()),
        )


class Splitter:
    """Cuts what is too long.

    Args:
        counter: counts tokens, exactly.
        tokens: most tokens in a passage.
        overlap: most tokens that neighbouring passages share; fewer than ``tokens``.

    Raises:
        MissingExtraError: the library that finds where to cut isn't installed.
    """

    def __init__(self, counter: Counter, tokens: int, overlap: int) -> None:
        try:
            from semantic_text_splitter import TextSplitter
        except ImportError:
            raise MissingExtraError(
                f"limits.long_documents: split needs another package: {install_line('split')}"
            ) from None
        self._counter = counter
        self._tokens = tokens

        def length(text: str) -> int:
            return int(counter.count([text])[0])

        self._cut: Callable[[str], Sequence[str]] = TextSplitter.from_callback(
            length, tokens, overlap=overlap
        ).chunks

    def passages(self, query: Query) -> Passages | None:
        """The query with its long documents cut; None when there is none."""
        long = too_long(query, self._counter, self._tokens)
        if not len(long):
            return None
        documents: list[Content] = []
        owners: list[int] = []
        cut = set(long.tolist())
        for position, document in enumerate(query.documents):
            parts = self._cut(document) if position in cut and isinstance(document, str) else [document]
            documents += parts
            owners += [position] * len(parts)
        ids = [query.doc_ids[owner] for owner in owners]
        return Passages(
            replace(query, documents=documents, doc_ids=ids, first_stage_scores=None),
            np.array(owners, dtype=np.intp),
        )


def too_long(query: Query, counter: Counter, tokens: int) -> Positions:
    """Positions of the documents of more than so many tokens; only those are counted that may be."""
    may_be = [
        position
        for position, document in enumerate(query.documents)
        if isinstance(document, str) and len(document) * _MOST_TOKENS > tokens and _bound(document) > tokens
    ]
    if not may_be:
        return np.empty(0, dtype=np.intp)
    counts = counter.count([query.documents[position] for position in may_be])  # type: ignore[misc]  # texts only
    return np.array(may_be, dtype=np.intp)[counts > tokens]


def _bound(text: str) -> int:
    return len(text) if text.isascii() else int(BytesCounter().count([text])[0])


def refuse_long(query: Query, counter: Counter, tokens: int) -> None:
    """Let a query with a document of more than so many tokens fail.

    Raises:
        QueryError: cause ``too-long``, naming the first such document.
    """
    long = too_long(query, counter, tokens)
    if len(long):
        more = f" (and {len(long) - 1} more)" if len(long) > 1 else ""
        raise QueryError(
            "too-long",
            f"document {query.doc_ids[long[0]]!r}{more} is longer than {tokens} tokens, where the API cuts it; "
            "shorten it, or set limits.long_documents to truncate or split",
        )


def deeper(top_k: int, passages: Passages) -> int:
    """The depth in passages that should hold so many documents."""
    return math.ceil(top_k * passages.depth)
