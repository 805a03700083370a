"""How relevant a document is to a query: a lexical scorer that knows the two texts and nothing else.

It follows BM25 where it can (saturation, length) and replaces what would need a corpus by priors: a word's rarity is
guessed from its length and from a list of common words. On top of that it looks where matches stand: in the title, in
the opening words, next to each other as in the query.
"""

import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from batchrank.arrays import Floats
from batchrank.emulator.words import COMMON, STOP, analysed, parts, stem, words

_SATURATION = 1.2
_LENGTH_SHARE = 0.5
_USUAL_WORDS = 90
_OPENING_WORDS = 24
_NEAR_WORDS = 4
_TITLE_CHARACTERS = 200
_TIE_BREAK = 1e-4
_MAX_WORDS_KEPT = 20_000

Match = tuple[tuple[int, float], ...]
"""What a document's word matches: (query term's number, strength in 0..1) pairs; empty for most words."""


class _Matches(dict[str, Match]):
    """Word -> what it matches, worked out once for each distinct word."""

    def __init__(self, stems: tuple[str, ...]) -> None:
        super().__init__()
        self._stems = stems
        self._set = frozenset(stems)
        begins = [re.escape(term[:4]) for term in stems if term.isascii()]
        self._maybe = re.compile("|".join(begins) or "(?!)").search

    def __missing__(self, word: str) -> Match:
        stems, whole = analysed(word)
        if self._set.isdisjoint(stems) and not self._maybe(whole):  # most words, cheaply
            match: Match = ()
        else:
            match = self._match(stems, whole)
        if len(self) < _MAX_WORDS_KEPT:
            self[word] = match
        return match

    def _match(self, stems: frozenset[str], whole: str) -> Match:
        return tuple([(i, s) for i, term in enumerate(self._stems) if (s := _strength(term, stems, whole))])


def _strength(term: str, stems: frozenset[str], whole: str) -> float:
    """How well a word matches a query term.

    1. The same stem, or one part of an identifier has it: 1.
    2. The term stands inside a longer word (``tree`` in ``copytree``), short terms only at its edges: 0.6.
    3. Both begin alike (``configure``, ``configuration``): 0.4.
    """
    if term in stems:
        return 1.0
    if not term.isascii():
        return 0.0
    if len(term) > 3 and term in whole:
        return 0.6
    if len(term) == 3 and (whole.startswith(term) or whole.endswith((term, term + "s"))):
        return 0.6
    shared = max(5, (3 * len(term) + 3) // 4)
    return 0.4 if len(term) >= shared and any(s.startswith(term[:shared]) for s in stems) else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A query made ready for scoring.

    Attributes:
        weights: how much each distinct term matters; they add up to 1.
        matches: document word -> what it matches.
        salt: checksum of the query, for the tie-break.
    """

    weights: tuple[float, ...]
    matches: _Matches = field(repr=False)
    salt: int


@lru_cache(maxsize=16)
def question(query: str) -> Question:
    """Make a query ready for scoring."""
    own = [part for word in words(query) for part in parts(word)]
    kept = [part for part in own if part not in STOP] or own
    distinct = {stem(part): part for part in kept}
    raw = [_prior(part, term) for term, part in distinct.items()]
    total = sum(raw) or 1.0
    return Question(
        tuple(w / total for w in raw), _Matches(tuple(distinct)), zlib.crc32(query.encode("utf-8", "replace"))
    )


def _prior(word: str, term: str) -> float:
    if word in COMMON or term in COMMON:
        return 0.45
    return 0.65 + 0.06 * min(len(word), 9) if word.isascii() else 1.0


def relevance(query: str, document: str) -> float:
    """The relevance of a document to a query, a logit from about -6 (nothing shared) to about 7.

    Deterministic and a function of the two texts alone, so that it is the same in whichever request they meet.
    """
    return _score(question(query), document)


def relevances(query: str, documents: Iterable[str]) -> Floats:
    """``relevance`` of each document."""
    asked = question(query)
    return np.fromiter((_score(asked, document) for document in documents), dtype=np.float64)


def _score(asked: Question, document: str) -> float:
    found = words(document)
    match_of = asked.matches.__getitem__
    hits = [(at, match) for at, match in enumerate(map(match_of, found)) if match]
    tie = (zlib.crc32(document.encode("utf-8", "replace"), asked.salt) / 2**32 - 0.5) * _TIE_BREAK
    floor = tie - 5.0 - 0.12 * math.log1p(len(found))
    if not hits:
        return floor
    title_end = _title_words(document)
    counts, best, title, opening, near = _features(asked, hits, title_end)
    norm = _SATURATION * (1 - _LENGTH_SHARE + _LENGTH_SHARE * len(found) / _USUAL_WORDS)
    weights = asked.weights
    often = sum(w * c / (c + norm) for w, c in zip(weights, counts, strict=True))
    covered = sum(w * b for w, b in zip(weights, best, strict=True))
    entitled = sum(w * t for w, t in zip(weights, title, strict=True))
    opened = sum(w * o for w, o in zip(weights, opening, strict=True))
    return floor + 3.5 * covered * covered + 2.0 * often + 2.5 * entitled + 2.0 * opened + 2.0 * near


def _title_words(document: str) -> int:
    """How many words the first line has, if it is a title: a short line with more below it."""
    end = document.find("\n", 0, _TITLE_CHARACTERS)
    return len(words(document[:end])) if end > 0 else 0


def _features(
    asked: Question, hits: list[tuple[int, Match]], title_end: int
) -> tuple[list[float], list[float], list[float], list[float], float]:
    """Per term: how often, its best match, the best in the title, the earliest in the opening; and nearness in 0..1.

    Nearness is the share of neighbouring query terms that the document has in that order within a few words.
    """
    size = len(asked.weights)
    counts, best, title, opening = [0.0] * size, [0.0] * size, [0.0] * size, [0.0] * size
    pairs = [0.0] * size
    last_at = [-1_000_000] * size
    last_strength = [0.0] * size
    for at, match in hits:
        for term, strength in match:
            counts[term] += strength
            if strength > best[term]:
                best[term] = strength
            if at < title_end:
                title[term] = max(title[term], strength)
            elif at < title_end + _OPENING_WORDS:
                early = 1 - (at - title_end) / _OPENING_WORDS
                opening[term] = max(opening[term], strength * early)
            if term and at - last_at[term - 1] <= _NEAR_WORDS:
                gap = max(1, at - last_at[term - 1])
                pairs[term] = max(pairs[term], strength * last_strength[term - 1] / gap)
            last_at[term], last_strength[term] = at, strength
    return counts, best, title, opening, sum(pairs) / (size - 1) if size > 1 else 0.0
