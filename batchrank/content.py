"""What a query or a document may be."""

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

Kind: TypeAlias = Literal["text", "image", "video"]


@dataclass(frozen=True, slots=True)
class Image:
    """An image.

    Attributes:
        value: before it is prepared: an http(s) address, a data URI, a path or bytes; then an address or a data URI.
        pixels: width and height, None where the header isn't at hand or doesn't tell.
    """

    kind: ClassVar[Kind] = "image"

    value: str | bytes
    pixels: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Video:
    """A video; ``value`` is its http(s) address."""

    kind: ClassVar[Kind] = "video"

    value: str


Content: TypeAlias = str | Image | Video
