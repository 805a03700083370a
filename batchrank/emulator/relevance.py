"""Scores how relevant a document is to a query by the words of the two texts, as the emulator knows nothing else."""

import math
import re
import unicodedata
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from batchrank.data import Floats

_CJK = "぀-ヿ㐀-䶿一-鿿가-힯豈-﫿"
_PIECES = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_IS_CJK = re.compile(rf"[{_CJK}]")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SPACED = {c: " " for c in range(128) if not chr(c).isalnum()}
_VOWEL = re.compile(r"[aeiouy]")

_STOP_WORDS = (
    "a about an and any are as at be by can did do does for from get had has have how i if in into is it its me my no "
    "not of on or our should so some such than that the their them then there these they this to use used using was "
    "we were what when where which while who will with without would you your"
)
_COMMON_WORDS = (
    "all argument array call change character class code convert create data default element every file find first "
    "function give given input int integer item key last length line list make method name new number object option "
    "order output parameter program python read result return same several show string take text thing time type "
    "value way work write"
)

STOP = frozenset(_STOP_WORDS.split())
"""Words that say nothing about a question's subject."""

COMMON = frozenset(_COMMON_WORDS.split())
"""Words so common in technical prose that a match means little."""

_SHORT_FOR = {
    "arg": "argument",
    "args": "argument",
    "cmd": "command",
    "config": "configuration",
    "dir": "directory",
    "dirs": "directory",
    "env": "environment",
    "exec": "execute",
    "folder": "directory",
    "folders": "directory",
    "func": "function",
    "int": "integer",
    "len": "length",
    "mkdir": "directory",
    "num": "number",
    "param": "parameter",
    "params": "parameter",
    "rand": "random",
    "regex": "regular",
    "str": "string",
    "temp": "temporary",
    "tmp": "temporary",
}
"""Programmers' abbreviations, and the word each stands for."""


def words(text: str) -> list[str]:
    """The words of a text in order, in their own case; snake_case and dots separate, CJK runs become bigrams."""
    if text.isascii():
        return text.translate(_SPACED).split()
    found: list[str] = []
    for piece in _PIECES.findall(text):
        if len(piece) < 2 or not _IS_CJK.match(piece):
            found.append(piece)
        else:
            found.extend(piece[i : i + 2] for i in range(len(piece) - 1))
    return found


def parts(word: str) -> list[str]:
    """The parts of a CamelCase word or one with digits, lower case; the word alone when it has no parts."""
    if word.isascii() and not word.islower():
        return [part.lower() for part in _PARTS.findall(word)]
    split = _PARTS.findall(word) if word.isascii() else []
    return split if len(split) > 1 else [fold(word)]


def fold(word: str) -> str:
    """The word without case and accents."""
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c)))


@lru_cache(maxsize=32768)
def analysed(word: str) -> tuple[frozenset[str], str]:
    """The stems of a word's parts, and the whole word in lower case."""
    own = parts(word)
    return frozenset(map(stem, own)), "".join(own)


def stem(word: str) -> str:
    """The stem of one lower-case part: inflections go, derivations stay (``copies``, ``copied`` -> ``copy``)."""
    word = _SHORT_FOR.get(word, word)
    if not word.isascii() or len(word) < 4:
        return word
    word = _singular(word)
    for ending in ("ing", "ed"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) > 2 and _VOWEL.search(rest):
            word = _undouble(rest)
            break
    if word.endswith("ly") and len(word) > 5:
        word = word[:-2]
    word = word[:-1] if word.endswith("e") and len(word) > 3 else word
    return word[:-1] + "y" if word.endswith("i") and len(word) > 3 else word


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _undouble(rest: str) -> str:
    if len(rest) > 3 and rest[-1] == rest[-2] and rest[-1] not in "lsz":
        return rest[:-1]
    return rest


_SATURATION = 1.2
"""BM25's usual k1: how soon a further occurrence of a term adds little."""
_LENGTH_SHARE = 0.5
"""BM25's b, below its usual 0.75: a document that explains more is also longer."""
_USUAL_WORDS = 90
"""Words of a usual document; in a longer one each occurrence counts less."""
_OPENING_WORDS = 24
"""About one sentence, which says what a document is about."""
_NEAR_WORDS = 4
"""Words between which two terms of a query still belong to one phrase."""
_TITLE_CHARACTERS = 200
"""A longer first line is a paragraph, not a title."""
_TIE_BREAK = 1e-4
"""Tells equal documents apart, and is far smaller than any real difference."""
_MAX_WORDS_KEPT = 20_000
"""Words remembered for a query: bounds memory, and covers the words of an ordinary text."""

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
