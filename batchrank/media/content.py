"""What a query or a document may be."""

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from batchrank.models import Kind


@dataclass(frozen=True, slots=True)
class Image:
    """An image, as it is sent.

    Attributes:
        value: an http(s) address, or a data URI.
        pixels: width and height, None where the header isn't at hand or doesn't tell.
    """

    kind: ClassVar[Kind] = "image"

    value: str
    pixels: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Video:
    """A video; ``value`` is its http(s) address."""

    kind: ClassVar[Kind] = "video"

    value: str


Content: TypeAlias = str | Image | Video


def kind_of(item: Content) -> Kind:
    """What an item is."""
    return "text" if isinstance(item, str) else item.kind


def value_of(item: Content) -> str:
    """What is sent of an item: the text, the address or the data URI."""
    return item if isinstance(item, str) else item.value
