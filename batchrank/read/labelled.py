"""The older shape of MTEB's reranking tasks: a record is a query with lists of ``positive`` and ``negative`` texts.

Such a record has no ids. Queries and documents get those that mteb gives them, ``test_query0`` and
``apositive_test_query0_00000``, so that its qrels fit. It has no first stage either, and positives come first in it:
to tell nobody the answer, documents are put in the order of a hash of their ids.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from batchrank.errors import Place, QueryError
from batchrank.outcomes import Failure
from batchrank.read.base import Item, Segment, Source
from batchrank.read.values import document_text, kind, query_identifier, query_text

POSITIVE, NEGATIVE = "positive", "negative"
_PREFIXES = {POSITIVE: "apositive", NEGATIVE: "negative"}


class Labels:
    """Numbers the records of one split, over all of its files."""

    def __init__(self, source: Source) -> None:
        name = re.match(r"[A-Za-z]+", PurePosixPath(source.path or "").name)
        self._split = name[0] if name else "test"
        self._counts = source.counts

    def next(self) -> str:
        """The id of the next query."""
        number = self._counts.get(self._split, 0)
        self._counts[self._split] = number + 1
        return f"{self._split}_query{number}"

    def item(self, place: Place, query_id: Any, query: Any, positive: Any, negative: Any) -> Item:
        """One record as a segment; ``query_id`` is None where it has none."""
        name: str | None = None
        try:
            lists = {POSITIVE: _texts(positive, POSITIVE), NEGATIVE: _texts(negative, NEGATIVE)}
            if not all(lists.values()):
                message = "the record lacks a positive or a negative text; mteb leaves it out too"
                raise QueryError("no-candidates", message)
            name = self.next() if query_id is None else query_identifier(query_id)
            return _segment(place, name, query_text(query), lists)
        except QueryError as error:
            if name is None:
                return Failure(place, None, error.cause, str(error))
            return Segment.faulty(place, name, error, whole=True)


def hashed(doc_id: str) -> bytes:
    """A key by which documents without a first stage are sorted: it has nothing to do with their relevance."""
    return hashlib.md5(doc_id.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()


def relevance(doc_id: str) -> int:
    """The relevance that a document's id tells: 1 for a positive text."""
    return int(doc_id.startswith(_PREFIXES[POSITIVE]))


def _segment(place: Place, query_id: str, query: str, lists: dict[str, list[str]]) -> Segment:
    documents = {
        f"{_PREFIXES[label]}_{query_id}_{number:05}": text
        for label, texts in lists.items()
        for number, text in enumerate(texts)
    }
    ids = sorted(documents, key=hashed)
    return Segment(place, query_id, query, [documents[i] for i in ids], ids, None, whole=True)


def _texts(value: Any, label: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise QueryError("wrong-type", f"{label} is {kind(value)}; write a list of texts")
    return [document_text(text) for text in value]
