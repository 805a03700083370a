"""Texts to words and words to stems, without any statistics of a corpus."""

import re
import unicodedata
from functools import lru_cache

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
