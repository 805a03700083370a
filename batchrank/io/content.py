"""What an item of content is, and what is sent of it."""

from batchrank.content import Content, Image, Kind, Video

__all__ = ["Content", "Image", "Video", "kind_of", "value_of"]


def kind_of(item: Content) -> Kind:
    """What an item is."""
    return "text" if isinstance(item, str) else item.kind


def value_of(item: Content) -> str:
    """What is sent of an item: the text, the address or the data URI; bytes must have been prepared before."""
    if isinstance(item, str):
        return item
    assert isinstance(item.value, str)
    return item.value
