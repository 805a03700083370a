"""How large items are: tokens, bytes, and what kinds take of a request."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from batchrank.content import Content
from batchrank.io.content import kind_of, value_of
from batchrank.io.mixed import Shares
from batchrank.io.tokens import counts
from batchrank.models import Vision
from batchrank.tokens import Counter

ESCAPED = 6
"""Most bytes that JSON makes of one byte of UTF-8: a control character becomes ``\\u0000``."""


@dataclass(frozen=True, slots=True, eq=False)
class Media:
    """The rules for a model that takes images or videos.

    Attributes:
        vision: how many tokens they are.
        shares: how many of each kind a request holds.
        fps: frames looked at in each second of a video, None for the model's own choice.
    """

    vision: Vision
    shares: Shares
    fps: float | None = None


def tokens(items: Sequence[Content], counter: Counter, media: Media | None) -> NDArray[np.int64]:
    """Tokens of each item; of images and videos, where the model takes some, the most they can be."""
    if media is None:
        return counter.count(items)  # type: ignore[arg-type]  # without media rules all items are texts
    return counts(items, media.vision, counter.count, fps=media.fps)


def utf8_bytes(items: Sequence[Content], counter: Counter, media: Media | None) -> NDArray[np.int64]:
    """Bytes of each item as it is sent, before JSON."""
    return counter.count(items if media is None else [value_of(item) for item in items])  # type: ignore[arg-type]


def kinds(items: Sequence[Content], media: Media | None) -> NDArray[np.int64] | None:
    """What each item takes of a request's budget of kinds; None where that can't bind."""
    if media is None:
        return None
    most = media.shares.counts
    if most.get("text") == max(most.values()) and all(isinstance(item, str) for item in items):
        return None
    return media.shares.of(kind_of(item) for item in items)


def json_bytes(item: Content) -> int:
    """Bytes of an item as JSON."""
    text = value_of(item)
    try:
        return len(orjson.dumps(text))
    except orjson.JSONEncodeError:  # a lone surrogate, however the wire will put it
        return ESCAPED * len(text.encode("utf-8", "surrogatepass")) + 2
