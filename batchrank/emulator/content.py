"""Images and videos as the emulator sees them: checked by their address, told apart by it, and never fetched."""

import base64
import binascii
import math
import re
import zlib
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from batchrank.content import Kind
from batchrank.emulator.rejections import REJECTIONS, Rejection
from batchrank.models import Card, Vision

_DATA = re.compile(r"data:image/([a-z0-9.+-]+);base64,", re.IGNORECASE)
_SEPARATORS = re.compile(r"[\W_]+")
_LONGEST_VIDEO = 120
_INVALID = REJECTIONS["400-parameter"]


@dataclass(frozen=True, slots=True)
class Medium:
    """An image or a video of a request; ``value`` is its address or data URI."""

    kind: Kind
    value: str


Content: TypeAlias = str | Medium


def kind_of(item: Content) -> Kind:
    """What an item is."""
    return "text" if isinstance(item, str) else item.kind


def value_of(item: Content) -> str:
    """The text, address or data URI."""
    return item if isinstance(item, str) else item.value


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
        return _INVALID.saying(f"The {item.kind} must be an accessible URL: {at}")
    try:
        size = len(base64.b64decode(item.value[data.end() :], validate=True))
    except binascii.Error:
        return REJECTIONS["415-format"]
    if vision and data[1].lower() not in vision.image_formats:
        return REJECTIONS["415-format"]
    if vision and size > vision.image_bytes:
        return _INVALID.saying(f"The image size exceeds the limit of {vision.image_bytes} bytes: {at}")
    return None if size else REJECTIONS["415-format"]


def tokens(item: Medium, card: Card, fps: float) -> int:
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
