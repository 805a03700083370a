"""The demo's first stage: how many of the question's words a document has, and nothing more."""

import re
from collections.abc import Sequence
from functools import lru_cache

from batchrank.data import Candidate

_WORD = re.compile(r"[a-z0-9]+")


def first_stage(question: str, documents: Sequence[Candidate], k: int = 1500) -> list[Candidate]:
    """The k documents that share the most distinct words with the question, best first, with that count as score.

    Ties keep the corpus's order. Common words count as much as rare ones: it is meant to find, not to rank.
    """
    wanted = _words(question)
    overlap = [len(wanted & _words(document.text)) for document in documents]
    best = sorted(range(len(documents)), key=lambda i: -overlap[i])[:k]
    return [Candidate(documents[i].id, documents[i].text, float(overlap[i])) for i in best]


@lru_cache(maxsize=16384)
def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))
