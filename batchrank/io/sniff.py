"""What an image's bytes are: its format by their beginning, its width and height by its header.

Nothing is decompressed, so no image can be a bomb. ``imagesize`` reads headers; it is given only formats that it
reads without parsing XML, and only bytes in memory, because it would fetch an address.
"""

import io
import struct

import imagesize  # type: ignore[import-untyped]  # it ships no types

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
    (b"\x00\x00\x01\x00", "ico"),
    (b"icns", "icns"),
    (b"\x01\xda", "sgi"),
    (b"GIF8", "gif"),
    (b"%PDF", "pdf"),
    (b"<svg", "svg"),
    (b"<?xml", "svg"),
)
_BITMAP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
_MEASURED = frozenset({"jpeg", "png", "bmp", "tiff", "webp"})


def image_format(data: bytes) -> str | None:
    """The format's name as in ``image/<name>``, None when the beginning is that of none."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BITMAP_HEADERS:
        return "bmp"
    if data[:4] == b"\x28\x00\x00\x00" and data[12:14] == b"\x01\x00":  # a bitmap without its file's header
        return "dib"
    if data[4:8] == b"ftyp":
        return {b"avif": "avif", b"heic": "heic"}.get(data[8:12], "mp4")
    return next((name for magic, name in _MAGIC if data.startswith(magic)), None)


def pixels(data: bytes, name: str) -> tuple[int, int] | None:
    """Width and height by the header; None where it doesn't tell, or this format's headers aren't read."""
    if name not in _MEASURED:
        return None
    try:
        width, height = imagesize.get(io.BytesIO(data))
    except (ValueError, TypeError, IndexError, struct.error, OSError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None
