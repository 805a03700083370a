"""Turns a job's images and videos into content: checks them, reads local files, encodes all as they are sent."""

import base64
import binascii
import errno
import math
import os
import re
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from batchrank.data import Content, Image, Kind, Video
from batchrank.errors import JobError, QueryError
from batchrank.io.images import NotRegularError, image_format, kind_of, open_beneath, pixels
from batchrank.models import Card, Vision


class Shares:
    """What each kind of document takes of a request.

    Args:
        counts: most documents of each kind in a request that holds nothing else; a kind that is missing isn't taken.
    """

    def __init__(self, counts: Mapping[Kind, int]) -> None:
        self.counts = dict(counts)

    @cached_property
    def budget(self) -> int:
        """What a request holds."""
        return math.lcm(*self.counts.values())

    @cached_property
    def weights(self) -> Mapping[Kind, int]:
        """What a document of each kind takes of the budget."""
        return {kind: self.budget // most for kind, most in self.counts.items()}

    def of(self, kinds: Iterable[Kind]) -> NDArray[np.int64]:
        """The weight of each document.

        Raises:
            KeyError: a kind that isn't taken.
        """
        return np.fromiter((self.weights[kind] for kind in kinds), dtype=np.int64)

    def fits(self, kinds: Iterable[Kind]) -> bool:
        """Whether documents of these kinds make one request."""
        return int(self.of(kinds).sum()) <= self.budget


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


_DATA = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_LINKS = "links below image_root are not followed, so put the file itself there"
_SHOWN = 120
"""Characters of a value that messages show: enough to find it, while data URIs have megabytes."""
_SAME = {"jpg": "jpeg", "jpe": "jpeg", "jfif": "jpeg", "tif": "tiff", "rgb": "sgi", "bw": "sgi", "qt": "mov"}
_FOREIGN = frozenset(
    [
        "gif",
        "svg",
        "heic",
        "heif",
        "avif",
        "pdf",
        "psd",
        "mkv",
        "webm",
        "flv",
        "wmv",
        "mpg",
        "mpeg",
        "mp3",
        "wav",
    ]
)
"""Endings of files that no model of ours takes; an ending that is neither these nor known tells nothing."""


class Sources:
    """Makes content of values.

    Args:
        card: the model: what kinds it takes, in which formats, how large.
        image_root: the folder that local images must lie below, opened at once; None refuses them.

    Raises:
        JobError: ``image_root`` is no folder.
    """

    def __init__(self, card: Card, image_root: str | None = None) -> None:
        self._card = card
        self._root: int | None = None
        if image_root is not None:
            try:
                self._root = os.open(image_root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
            except OSError as error:
                raise JobError(f"image_root: {image_root} is no folder: {error.strerror or error}") from None
            weakref.finalize(self, os.close, self._root)

    def document(self, value: object) -> Content:
        """A document: a text, or ``{"text" | "image" | "video": value}``.

        Raises:
            QueryError: it is neither, of a kind that the model doesn't take, or not as it must be; the message
                says why, and leaves it to the caller to say where.
        """
        item = self._item(value)
        if kind_of(item) not in self._card.counts:
            raise QueryError("bad-document", f"{self._card.name} takes no {kind_of(item)} as a document")
        return item

    def query(self, value: object) -> Content:
        """A query: as ``document``, of the kinds that a query may be.

        Raises:
            QueryError: as from ``document``.
        """
        item = self._item(value)
        if kind_of(item) not in self._card.query_kinds:
            raise QueryError("bad-query", f"{self._card.name} takes no {kind_of(item)} as a query")
        return item

    def image(self, value: object) -> Image:
        """An image, in any of the ways that the module lists.

        Raises:
            QueryError: cause ``bad-image``.
        """
        if isinstance(value, Mapping):
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        if isinstance(value, bytes | bytearray | memoryview):
            return self._encoded(bytes(value), "bytes")
        if not isinstance(value, str) or not value.strip():
            what = "blank" if isinstance(value, str) else type(value).__name__
            raise _bad("image", f"is {what}, not an address, a data URI, a path or bytes")
        if _DATA.match(value):
            return self._data_uri(value)
        if value[:5].lower() == "data:":
            raise _bad("image", f"{_shown(value)}: write data:image/<format>;base64,<data>")
        if _is_address(value):
            self._check_ending("image", value, self._vision.image_formats)
            return Image(value)
        if _SCHEME.match(value):
            raise _bad("image", f"{_shown(value)}: only http, https and data addresses can be sent")
        return self._encoded(self._file(value), _shown(value))

    def video(self, value: object) -> Video:
        """A video by its address.

        Raises:
            QueryError: cause ``bad-video``.
        """
        if not isinstance(value, str) or not _is_address(value):
            raise _bad("video", f"{_shown(value)}: must be an http(s) address that the API can reach")
        self._check_ending("video", value, self._vision.video_formats)
        return Video(value)

    @property
    def _vision(self) -> Vision:
        if self._card.vision is None:
            raise QueryError("bad-document", f"{self._card.name} takes texts only, no images or videos")
        return self._card.vision

    def _item(self, value: object) -> Content:
        if isinstance(value, str):
            return value
        if not isinstance(value, Mapping):
            raise QueryError(
                "bad-document",
                f"{type(value).__name__} is neither a text nor an object with one of text, image, video",
            )
        given: dict[Any, Any] = {key: inner for key, inner in value.items() if inner is not None}
        if len(given) != 1 or not given.keys() <= {"text", "image", "video"}:
            keys = ", ".join(map(str, given)) or "none"
            raise QueryError("bad-document", f"one of text, image, video is required; given: {keys[:_SHOWN]}")
        ((kind, inner),) = given.items()
        if kind == "image":
            return self.image(inner)
        if kind == "video":
            return self.video(inner)
        if not isinstance(inner, str):
            raise QueryError("bad-document", f"text is {type(inner).__name__}, not a text")
        return inner

    def _data_uri(self, value: str) -> Image:
        start = value.index(",") + 1
        most = self._vision.image_bytes
        if len(value) - start > most // 3 * 4 + 8:
            raise _bad("image", f"{_shown(value)}: {_too_large((len(value) - start) * 3 // 4, most)}")
        try:
            data = base64.b64decode(value[start:], validate=True)
        except (binascii.Error, ValueError):
            raise _bad("image", f"{_shown(value)}: what follows the comma isn't base64") from None
        return self._encoded(data, _shown(value))

    def _encoded(self, data: bytes, name: str) -> Image:
        vision = self._vision
        if len(data) > vision.image_bytes:
            raise _bad("image", f"{name}: {_too_large(len(data), vision.image_bytes)}")
        found = image_format(data)
        if found not in vision.image_formats:
            what = f"its content is {found}" if found else "its content is not an image"
            raise _bad("image", f"{name}: {what}; {self._card.name} takes {', '.join(vision.image_formats)}")
        encoded = base64.b64encode(data).decode("ascii")
        return Image(f"data:image/{found};base64,{encoded}", pixels(data, found))

    def _file(self, value: str) -> bytes:
        """Read a file below ``image_root``.

        Refused are an absolute path, one with ``..``, one with a symbolic link anywhere on its way, and anything but a
        regular file.
        """
        if self._root is None:
            raise _bad(
                "image",
                f"{_shown(value)} is a path of this machine: set image_root to the folder that images may be read from",
            )
        path = PurePosixPath(value)
        if "\0" in value or path.is_absolute() or ".." in path.parts:
            raise _bad("image", f"{_shown(value)}: a path must lead from image_root downwards, without '..'")
        try:
            with os.fdopen(open_beneath(self._root, path.parts or (".",)), "rb") as file:
                return self._read(file, _shown(value))
        except NotRegularError:
            raise _bad("image", f"{_shown(value)} below image_root is no regular file") from None
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.ELOOP:
                raise _bad("image", f"{_shown(value)} leads through a symbolic link; {_LINKS}") from None
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise _bad("image", f"{_shown(value)} below image_root can't be read: {reason}") from error

    def _read(self, file: BinaryIO, name: str) -> bytes:
        """What was opened, unless it is too large; it may grow meanwhile."""
        most = self._vision.image_bytes
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise _bad("image", f"{name}: {_too_large(size, most)}")
        return file.read(most + 1)

    def _check_ending(self, kind: str, address: str, formats: tuple[str, ...]) -> None:
        ending = PurePosixPath(urlsplit(address).path).suffix[1:].lower()
        vision = self._vision
        known = _FOREIGN.union(vision.image_formats, vision.video_formats)
        named = _SAME.get(ending, ending)
        if named in known and named not in formats:
            raise _bad(
                kind,
                f"{_shown(address)}: a .{ending} is no {kind} that {self._card.name} takes ({', '.join(formats)})",
            )


def _is_address(value: str) -> bool:
    if any(ord(character) < 33 for character in value):
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme.lower() in ("http", "https") and bool(parts.hostname)


def _too_large(size: int, most: int) -> str:
    return f"{size} bytes are more than the {most} that an image may have; shrink it"


def _shown(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def _bad(kind: str, message: str) -> QueryError:
    return QueryError(f"bad-{kind}", f"{kind} {message}")
