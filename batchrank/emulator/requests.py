"""Checks requests by the rules of their API: the types of fields, texts, images and videos."""

import base64
import binascii
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import orjson

from batchrank.data import Kind
from batchrank.emulator.refusals import REJECTIONS, RejectedError, Rejection
from batchrank.models import Card, Vision

_DATA = re.compile(r"data:image/([a-z0-9.+-]+);base64,", re.IGNORECASE)
_SEPARATORS = re.compile(r"[\W_]+")
_LONGEST_VIDEO = 120
"""Seconds; videos can't be opened here, so each is given a length of up to two minutes by its address."""
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


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks.

    Attributes:
        model: the model's name; ``-`` where the API has none.
        query: a text or an image.
        documents: texts, images and videos.
        top_n: most results wanted, None for all.
        instruct: the instruction, perhaps empty.
        return_documents: whether results should carry their documents.
        fps: the share of a video's frames wanted.
        objects: whether query or documents came as objects, which text models don't take.
        raw: whether logits are wanted instead of probabilities.
    """

    model: str
    query: Content
    documents: list[Content]
    top_n: int | None
    instruct: str
    return_documents: bool
    fps: float = 1.0
    objects: bool = False
    raw: bool = False


def parsed(body: bytes) -> dict[str, Any]:
    """The body's JSON object, or a refusal."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise RejectedError(_INVALID) from None
    if not isinstance(data, dict):
        raise RejectedError(_INVALID)
    return data


def invalid(message: str) -> RejectedError:
    """The refusal of a wrong parameter."""
    return RejectedError(_INVALID.saying(message))


def asked(
    content: Mapping[str, Any], parameters: Mapping[str, Any], *, at: str = "", objects: bool = False
) -> Asked:
    """Check the types of a request's parts; ``at`` is what the path of query and documents begins with.

    Raises:
        RejectedError: a part is of the wrong type or outside its range.
    """
    model, query, documents = content.get("model"), content.get("query"), content.get("documents")
    if not isinstance(model, str) or not model:
        raise invalid("Model not exist: model")
    if not isinstance(query, str | Medium):
        raise invalid(f"query must be a string: {at}query")
    if not isinstance(documents, list) or not all(isinstance(d, str | Medium) for d in documents):
        raise invalid(f"documents must be a list of strings: {at}documents")
    top_n, instruct, fps = parameters.get("top_n"), parameters.get("instruct"), parameters.get("fps")
    if top_n is not None and (type(top_n) is not int or top_n < 1):
        raise invalid("top_n must be an integer greater than 0: parameters.top_n")
    if instruct is not None and not isinstance(instruct, str):
        raise invalid("instruct must be a string: parameters.instruct")
    if fps is not None and (type(fps) not in (int, float) or not 0 <= fps <= 1):
        raise invalid("fps must be a number in [0, 1]: parameters.fps")
    return Asked(
        model=model,
        query=query,
        documents=documents,
        top_n=top_n,
        instruct=instruct or "",
        return_documents=parameters.get("return_documents") is True,
        fps=1.0 if fps is None else float(fps),
        objects=objects,
        raw=parameters.get("raw") is True,
    )
