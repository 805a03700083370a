"""Compressed files, known by their first bytes: gzip, Zstandard, bzip2 and xz, several members or frames in a row too.

Neither the standard library's gzip nor zstandard's own reader serves here: the first loses what it had already
decompressed when a member is corrupt, the second takes a file that was cut off for a complete one.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, cast

import zstandard

BUFFER = 1 << 20
COMPRESSED = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz")
"""What the names of compressed files end in."""
# Compressed bytes decompressed at a time. Zstandard makes at most 32 KiB of one byte, bzip2 20 KiB: this bounds the
# memory.
_STEP = 2048
_WINDOW = 1 << 31
"""What ``zstd --long=31``, its longest, looks back; a file that needs less takes less memory."""
_XZ_MEMORY = 1 << 31


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _gzip() -> _Decompressor:
    return zlib.decompressobj(wbits=31)


def _zstd() -> _Decompressor:
    return cast(_Decompressor, zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj())


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


_GZIP, _ZSTD, _BZIP2, _XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0"
# Before each of its frames pzstd writes one that is to be skipped.
_SKIPPABLE = tuple(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))
_KINDS: dict[tuple[bytes, ...], tuple[str, Callable[[], _Decompressor]]] = {
    (_GZIP,): ("gzip", _gzip),
    (_ZSTD, *_SKIPPABLE): ("zstd", _zstd),
    (_BZIP2,): ("bzip2", bz2.BZ2Decompressor),
    (_XZ,): ("xz", _xz),
}
_SUFFIXES = {".gz": _GZIP, ".gzip": _GZIP, ".zst": _ZSTD, ".zstd": _ZSTD, ".bz2": _BZIP2, ".xz": _XZ}
_HEAD = 6
_FAULTS = (zlib.error, zstandard.ZstdError, lzma.LZMAError, EOFError, OSError, MemoryError)


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
            if self._kind != "zstd" and not (data := data.lstrip(b"\0")):
                return True  # tar, tape and xz pad with zeros after the last member
            self._member = self._make()
        try:
            self._ready = memoryview(self._member.decompress(data))
        except _FAULTS as error:
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
    head = source.peek(_HEAD)[:_HEAD]
    suffix = next((magic for end, magic in _SUFFIXES.items() if name.lower().endswith(end)), None)
    for magics, (kind, make) in _KINDS.items():
        if head.startswith(magics):
            return io.BufferedReader(_Decompressed(source, kind, make), BUFFER)
        if suffix in magics and suffix.startswith(head):
            raise OSError(f"its {kind} data is cut off within the first {len(suffix)} bytes")
    return source
