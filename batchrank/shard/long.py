"""Handles documents longer than the API reads: cut so that what it reads counts, or ranked by their passages. Pure."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from batchrank.data import Content, Positions, Query
from batchrank.errors import JobError, MissingExtraError, install_line
from batchrank.models import UNLIMITED, Template
from batchrank.outcomes import Merged
from batchrank.tokens import BytesCounter, Counter

_MOST_BYTES = 4
"""Bytes of UTF-8 that a character can be."""
_NORMALIZED = 3
"""How many times as many they can be in Unicode's normal form C, which some tokenizers see."""


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A query whose texts are short enough.

    Attributes:
        query: the query as it is sent.
        documents: positions of the documents that were cut.
        of_query: whether the query's own text was.
    """

    query: Query
    documents: Sequence[int] = ()
    of_query: bool = False


class _Room:
    """What a text may be with its prompt around it, which must stay whole.

    Args:
        what: ``query`` or ``document``.
        around: the prompt before and after the text.
        characters: most characters of both.
        in_bytes: whether bytes are counted in their place.
        tokens: most tokens of both; None where the API may cut them.
        counter: counts tokens.

    Raises:
        JobError: the prompt alone leaves no room.
    """

    def __init__(
        self,
        what: str,
        around: tuple[str, str],
        *,
        characters: int,
        in_bytes: bool,
        tokens: int | None,
        counter: Counter,
    ) -> None:
        self._in_bytes = in_bytes
        self._counter = counter
        self._characters = characters - sum(map(self._length, around))
        self._tokens = None if tokens is None else tokens - int(counter.count(around).sum())
        if self._characters < 1 or (self._tokens is not None and self._tokens < 1):
            raise JobError(
                f"endpoint.template: the prompt around a {what} leaves no room for its text within "
                "limits.item_tokens and limits.item_characters; shorten it, or raise the limit"
            )

    @property
    def spared(self) -> int:
        """The most characters of a text for which there is room whatever it holds; -1 where no length tells that."""
        by_characters = self._characters // _MOST_BYTES
        if self._tokens is None:
            return by_characters
        return (
            min(by_characters, self._tokens // (_NORMALIZED * _MOST_BYTES))
            if self._counter.bytes_bound
            else -1
        )

    def cut(self, texts: Sequence[str]) -> list[str]:
        """The texts, each as it is or as much of its beginning as there is room for."""
        fitting = [text if self._fits(text) else self._short(text) for text in texts]
        if self._tokens is None:
            return fitting
        bounds = BytesCounter().count(fitting)
        may_be = np.flatnonzero((bounds > self._tokens) | (not self._counter.bytes_bound))
        counts = self._counter.count([fitting[i] for i in may_be.tolist()])
        for i in may_be[counts > self._tokens].tolist():
            fitting[i] = self._within_tokens(fitting[i], self._tokens)
        return fitting

    def _fits(self, text: str) -> bool:
        return len(text) * _MOST_BYTES <= self._characters or self._length(text) <= self._characters

    def _length(self, text: str) -> int:
        return (
            len(text.encode("utf-8", "surrogatepass")) if self._in_bytes and not text.isascii() else len(text)
        )

    def _short(self, text: str) -> str:
        text = text.lstrip()  # a beginning that is blank would be refused as well
        if not self._in_bytes or text.isascii():
            return text[: self._characters]
        data = text.encode("utf-8", "surrogatepass")
        end = min(len(data), self._characters)
        while end < len(data) and data[end] & 0xC0 == 0x80:  # not inside a character
            end -= 1
        return data[:end].decode("utf-8", "surrogatepass")

    def _within_tokens(self, text: str, tokens: int) -> str:
        text = text.lstrip()
        fits, beyond = 0, len(text) + 1
        while beyond - fits > 1:
            middle = (fits + beyond) // 2
            if int(self._counter.count([text[:middle]])[0]) <= tokens:
                fits = middle
            else:
                beyond = middle
        return text[:fits]


class Cutter:
    """Cuts what is too long; the same text is always cut at the same place.

    Attributes:
        spared: the most characters of any text that is never cut, whatever it holds; -1 where no length tells that.

    Args:
        characters: most characters of an item that the API takes.
        in_bytes: whether bytes of UTF-8 are counted in their place, which leaves the least text: vendors don't always
            state the unit.
        item_tokens: tokens at which the API cuts an item. With a prompt around it that would be the prompt's end, so
            the text is cut here.
        counter: counts tokens.
        template: the prompt around query and documents.
        instruct: what fills it.

    Raises:
        JobError: the prompt leaves no room for a text.
    """

    def __init__(
        self,
        *,
        characters: int,
        in_bytes: bool,
        item_tokens: int,
        counter: Counter,
        template: Template | None = None,
        instruct: str | None = None,
    ) -> None:
        around = Template() if template is None else template
        tokens = item_tokens if template is not None and item_tokens < UNLIMITED else None
        self._never = characters >= UNLIMITED and tokens is None
        self._query, self._document = (
            _Room(what, prompt, characters=characters, in_bytes=in_bytes, tokens=tokens, counter=counter)
            for what, prompt in (
                ("query", around.around_query(instruct)),
                ("document", around.around_document(instruct)),
            )
        )

        self.spared = sys.maxsize if self._never else min(self._query.spared, self._document.spared)

    def cut(self, query: Query) -> Cut:
        """A query with whatever is too long in it cut."""
        if self._never:
            return Cut(query)
        (text,) = _cut([query.text], self._query)
        documents = _cut(query.documents, self._document)
        changed = []
        if documents is not query.documents:
            changed = [i for i, document in enumerate(query.documents) if documents[i] is not document]
        if not changed and text is query.text:
            return Cut(query)
        return Cut(replace(query, text=text, documents=documents), changed, text is not query.text)


def _cut(items: Sequence[Content], room: _Room) -> Sequence[Content]:
    """Texts cut; images and videos are addresses or data, of which nothing can be left out."""
    texts = [item for item in items if isinstance(item, str)]
    if max(map(len, texts), default=0) <= room.spared:
        return items
    cut = iter(room.cut(texts))
    return [next(cut) if isinstance(item, str) else item for item in items]


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


def deeper(top_k: int, passages: Passages) -> int:
    """The depth in passages that should hold so many documents."""
    return math.ceil(top_k * passages.depth)
