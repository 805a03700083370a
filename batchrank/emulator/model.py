"""Does what an API does with a request once it is let in: checks limits, counts tokens, scores documents.

Nobody looks into images and videos: what they are about, and what they cost, follows from their address or data.
"""

import base64
import binascii
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from batchrank.data import Floats, Kind
from batchrank.emulator.answers import Answer
from batchrank.emulator.endpoints import Asked, Content, Medium, invalid, kind_of, value_of
from batchrank.emulator.refusals import REJECTIONS, Dialect, RejectedError, Rejection
from batchrank.emulator.relevance import relevances
from batchrank.emulator.settings import Family, Settings, rng_for
from batchrank.models import Card, Vision
from batchrank.tokens import counter

_EDGE = 1e-9
"""Scores are kept this far from 0 and 1, whose logits are infinite."""


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A request within the limits.

    Attributes:
        asked: the request.
        query: the query as cut to the item limit, an image in words.
        documents: the documents as cut to the item limit, images and videos in words.
        tokens: what it is billed.
        echo: whether the answer carries the documents.
    """

    asked: Asked
    query: str
    documents: list[str]
    tokens: int
    echo: bool


class Model:
    """The models served, by their cards and the emulator's switches."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._counter = counter(settings.tokenizer)

    def card(self, name: str, wire: str) -> Card:
        """The card of a model that is served, or the refusal of one that isn't.

        An API that names no model has the one that is served by its wire, else the only one.
        """
        cards = self._settings.cards
        if name == "-":
            own = [card for card in cards.values() if card.wire == wire] or list(cards.values())
            return own[0]
        if name not in cards:
            raise RejectedError(REJECTIONS["404-model"].saying(f"The model {name} does not exist."))
        return cards[name]

    def accept(self, asked: Asked, card: Card, dialect: Dialect, body_bytes: int) -> Work:
        """Check a request against the limits of its model and count its tokens.

        Raises:
            RejectedError: a limit is passed, an item is empty, or not what the model takes.
        """
        own = self._settings
        if body_bytes > (own.body_bytes or card.body_bytes):
            raise RejectedError(REJECTIONS["413"])
        self._check_counts(asked, card, dialect)
        self._check_items(asked, card, dialect)
        items = [asked.query, *asked.documents]
        most = own.item_tokens or card.item_tokens
        counts = self._counts(items, card, asked.fps)
        capped = np.minimum(counts, most)
        each = int(capped[0]) + own.overhead_tokens
        if own.bill_instruct:
            each += min(most, int(self._counter.count([asked.instruct])[0]))
        tokens = each * len(asked.documents) + int(capped[1:].sum())
        limit = own.request_tokens or card.request_tokens
        if tokens > limit:
            raise RejectedError(dialect.tokens(tokens, limit))
        query, *documents = _cut(list(map(described, items)), counts, most)
        echo = asked.return_documents and not (
            dialect.some_echo and "return_documents" not in card.parameters
        )
        return Work(asked, query, documents, tokens, echo)

    def _check_counts(self, asked: Asked, card: Card, dialect: Dialect) -> None:
        """Each kind's count over its limit, added up, is at most 1: the documents leave room for one another."""
        limits: dict[Kind, int] = {**card.counts, "text": self._settings.documents or card.documents}
        if asked.objects and not card.media:
            raise invalid("documents must be a list of strings: input.documents")
        if kind_of(asked.query) not in card.query_kinds:
            raise invalid(f"{card.name} takes no {kind_of(asked.query)} as a query: input.query")
        found = Counter(map(kind_of, asked.documents))
        if missing := found.keys() - limits.keys():
            raise invalid(f"{card.name} takes no {min(missing)}: input.documents")
        used = sum((Fraction(count, limits[kind]) for kind, count in found.items()), Fraction())
        if not 0 < used <= 1:
            most = min((limits[kind] for kind in found), default=limits["text"])
            raise RejectedError(dialect.documents(len(asked.documents), most))

    def _check_items(self, asked: Asked, card: Card, dialect: Dialect) -> None:
        longest = self._settings.item_characters
        for at, item in _placed(asked):
            value = value_of(item)
            if dialect.blank and not value.strip():
                raise invalid(f"text input should not be empty.: {at}")
            if not isinstance(item, str):
                if refusal := problem(item, card.vision, at):
                    raise RejectedError(refusal)
            elif len(value) > longest:
                raise invalid(f"Range of input length should be [1, {longest}]: {at}")

    def _counts(self, items: list[Content], card: Card, fps: float) -> NDArray[np.int64]:
        counts = self._counter.count([item if isinstance(item, str) else "" for item in items])
        media = [(at, item) for at, item in enumerate(items) if not isinstance(item, str)]
        if media:
            counts = counts.copy()
        for at, item in media:
            counts[at] = media_tokens(item, card, fps)
        return counts

    def answer(self, work: Work, digest: bytes) -> Answer:
        """Score a request; noise and relative scores follow from the digest of its content."""
        scores = self._scores(relevances(work.query, work.documents), digest)
        if work.asked.raw:
            scores = _logits(scores)
        order = np.argsort(-scores, kind="stable")[: work.asked.top_n].tolist()
        results: list[dict[str, Any]] = [{"index": i, "relevance_score": float(scores[i])} for i in order]
        if work.echo:
            results = [{"document": _echoed(work.asked.documents[r["index"]]), **r} for r in results]
        return Answer(results, {"total_tokens": work.tokens})

    def _scores(self, logits: Floats, digest: bytes) -> Floats:
        own = self._settings
        if own.scores == "absolute" and not own.sigma and not own.jitter:
            return absolute(logits)
        rng = np.random.default_rng(rng_for(own.seed, digest, "scores").getrandbits(64))
        logits = noisy(logits, own.sigma, rng)
        logits = jittered(logits, rng) if own.jitter else logits
        return absolute(logits) if own.scores == "absolute" else relative(logits, own.family, rng)


def _placed(asked: Asked) -> Iterator[tuple[str, Content]]:
    yield "input.query", asked.query
    for document in asked.documents:
        yield "input.documents", document


def _echoed(item: Content) -> dict[str, str]:
    return {kind_of(item): value_of(item)}


def _logits(scores: Floats) -> Floats:
    clipped = np.clip(scores, _EDGE, 1 - _EDGE)
    logits: Floats = np.log(clipped) - np.log1p(-clipped)
    return logits


def _cut(texts: list[str], counts: NDArray[np.int64], most: int) -> list[str]:
    """Cut each text that is over so many tokens, in proportion to its characters."""
    if counts.max() <= most:
        return texts
    return [
        text[: max(1, len(text) * most // count)] if count > most else text
        for text, count in zip(texts, counts.tolist(), strict=True)
    ]


_CENTRE = -2.0
"""About the middle of the scorer's logits, which are mapped so that theirs is 0."""
_SCALE = 1.5
"""About their spread, which is mapped to 1."""
_BF16_STEP = 2.0**-8
"""The relative step of 16-bit brain floats: noise as of a server that computes with them."""


def absolute(logits: Floats) -> Floats:
    """The logistic of the relevance: a document has the same score in every request."""
    scores: Floats = 1 / (1 + np.exp(-logits))
    return scores


def relative(logits: Floats, family: Family, rng: np.random.Generator) -> Floats:
    """Scores in 0..1 that rise with relevance by a map of this request's own.

    1. logistic: a slope between a half and two, and a shift, drawn for the request.
    2. minmax: the best is 1 and the worst 0.
    3. softmax: they add up to 1.
    4. ordinal: the rank alone, from 1 downwards.
    5. warped: minmax, then a power drawn for the request.
    """
    y = (logits - _CENTRE) / _SCALE
    if family == "logistic":
        slope, shift = np.exp(rng.uniform(np.log(0.5), np.log(2))), rng.normal()
        return absolute(slope * y + shift)
    if family == "softmax":
        weights: Floats = np.exp(y - y.max())
        weights /= weights.sum()
        return weights
    if family == "ordinal":
        order = np.argsort(-y, kind="stable")
        scores = np.empty(len(y))
        scores[order] = 1 - np.arange(len(y)) / len(y)
        return scores
    spread: Floats = (y - y.min()) / (np.ptp(y) or 1.0)
    return spread if family == "minmax" else spread ** np.exp(rng.uniform(np.log(0.5), np.log(2)))


def noisy(logits: Floats, sigma: float, rng: np.random.Generator) -> Floats:
    """Relevance with a normal error of ``sigma`` logits."""
    return logits + sigma * rng.normal(size=len(logits)) if sigma else logits


def jittered(logits: Floats, rng: np.random.Generator) -> Floats:
    """Logits as BF16 arithmetic gives them: off by up to a step of their own 8 bits, then rounded to those bits."""
    moved = logits * (1 + _BF16_STEP * rng.uniform(-1, 1, size=len(logits)))
    mantissa, exponent = np.frexp(moved)
    rounded: Floats = np.ldexp(np.round(mantissa * 256) / 256, exponent)
    return rounded


_DATA = re.compile(r"data:image/([a-z0-9.+-]+);base64,", re.IGNORECASE)
_SEPARATORS = re.compile(r"[\W_]+")
_LONGEST_VIDEO = 120
"""Seconds; videos can't be opened here, so each is given a length of up to two minutes by its address."""


def problem(item: Medium, vision: Vision | None, at: str) -> Rejection | None:
    """Why a model refuses an image or a video that stands ``at`` this key; None if it doesn't.

    1. An address of http or https is taken as readable.
    2. A data URI must be an image, of a format and size that the model takes, in real base64.
    3. Anything else is no address at all.
    """
    parts = urlsplit(item.value)
    if parts.scheme in ("http", "https") and parts.hostname:
        return None
    data = _DATA.match(item.value)
    if item.kind != "image" or data is None:
        return REJECTIONS["400-parameter"].saying(f"The {item.kind} must be an accessible URL: {at}")
    try:
        size = len(base64.b64decode(item.value[data.end() :], validate=True))
    except binascii.Error:
        return REJECTIONS["415-format"]
    if vision and data[1].lower() not in vision.image_formats:
        return REJECTIONS["415-format"]
    if vision and size > vision.image_bytes:
        return REJECTIONS["400-parameter"].saying(
            f"The image size exceeds the limit of {vision.image_bytes} bytes: {at}"
        )
    return None if size else REJECTIONS["415-format"]


def media_tokens(item: Medium, card: Card, fps: float) -> int:
    """Tokens that an image or a video is billed, drawn from its value: nobody looks inside."""
    vision = card.vision
    if vision is None:
        return 0
    drawn = zlib.crc32(item.value.encode("utf-8", "replace"))
    if item.kind == "image":
        least, most = vision.image_tokens
        return least + drawn % (most - least + 1)
    frames = min(vision.video_frames, max(1, math.ceil((1 + drawn % _LONGEST_VIDEO) * fps)))
    return min(card.item_tokens, frames * (vision.frame_tokens // 2))


def described(item: Content) -> str:
    """What an item is about, in words: a text itself, an image or video by its address.

    A word that stands for the whole value goes with it, so that an image asked for finds itself.
    """
    if isinstance(item, str):
        return item
    own = "m" + blake2b(item.value.encode("utf-8", "replace"), digest_size=8).hexdigest()
    if item.value.startswith("data:"):
        return own
    return f"{_SEPARATORS.sub(' ', unquote(urlsplit(item.value).path))} {own}"
