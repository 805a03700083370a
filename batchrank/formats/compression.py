"""Compressed files, known by their first bytes: gzip and Zstandard, several members or frames in a row too.

Neither the standard library's gzip nor zstandard's own reader serves here: the first loses what it had already
decompressed when a member is corrupt, the second takes a file that was cut off for a complete one.
"""

import io
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, cast

import zstandard

BUFFER = 1 << 20
# Compressed bytes decompressed at a time. Zstandard makes at most 32 KiB of one byte: this bounds the memory.
_STEP = 2048


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _gzip() -> _Decompressor:
    return zlib.decompressobj(wbits=31)


def _zstd() -> _Decompressor:
    return cast(_Decompressor, zstandard.ZstdDecompressor().decompressobj())


_KINDS: dict[bytes, tuple[str, Callable[[], _Decompressor]]] = {
    b"\x1f\x8b": ("gzip", _gzip),
    b"\x28\xb5\x2f\xfd": ("zstd", _zstd),
}
_SUFFIXES = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}


class _Decompressed(io.RawIOBase):
    """The decompressed bytes of a stream of members or frames."""

    def __init__(self, source: BinaryIO, kind: str, make: Callable[[], _Decompressor]) -> None:
        self._source, self._kind, self._make = source, kind, make
        self._member: _Decompressor | None = None
        self._left = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._ready:
            if not self._advance():
                return 0
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _advance(self) -> bool:
        """Decompress one step; False at the end."""
        data = self._left or self._source.read(_STEP)
        self._left = b""
        if not data:
            if self._member is not None:
                raise OSError(f"its {self._kind} data is cut off")
            return False
        if self._member is None:
            if self._kind == "gzip" and not (data := data.lstrip(b"\0")):
                return True  # tar and tape pad with zeros after the last member
            self._member = self._make()
        try:
            self._ready = memoryview(self._member.decompress(data))
        except (zlib.error, zstandard.ZstdError) as error:
            raise OSError(f"its {self._kind} data is corrupt ({error})") from error
        if self._member.eof:
            self._left, self._member = self._member.unused_data, None
        return True


def decompressed(source: io.BufferedReader, name: str = "") -> io.BufferedReader:
    """The source itself, or what it holds when its first bytes are those of a compressed file.

    The source stays its opener's to close.

    Raises:
        OSError: also from reading what is returned: the data is cut off or corrupt. Everything before was given.
    """
    head = source.peek(4)[:4]
    suffix = next((magic for end, magic in _SUFFIXES.items() if name.endswith(end)), None)
    for magic, (kind, make) in _KINDS.items():
        if head.startswith(magic):
            return io.BufferedReader(_Decompressed(source, kind, make), BUFFER)
        if magic == suffix and magic.startswith(head):
            raise OSError(f"its {kind} data is cut off within the first {len(magic)} bytes")
    return source
