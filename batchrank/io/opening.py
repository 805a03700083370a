"""Opens files by their first bytes, as names may mislead: compression, text encoding, formats that no reader takes."""

import bz2
import codecs
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, cast

import zstandard

_RECODING_BUFFER = 1 << 16
"""64 KiB: text in other encodings is rare, so its buffer may be small."""
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(start: bytes) -> str | None:
    """What a text that begins so is written in; None for UTF-8, which is read as it is."""
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    if len(start) >= 2 and start[0] and not start[1]:
        return "utf-32-le" if start[2:4] == b"\0\0" else "utf-16-le"
    if len(start) >= 2 and start[1] and not start[0]:
        return "utf-16-be"
    return None


def in_utf8(text: io.BufferedReader) -> io.BufferedReader:
    """A text in UTF-8, whatever it is written in.

    Raises:
        OSError: from reading what is returned: the text is not what its start says.
    """
    encoding = encoding_of(text.peek(4)[:4])
    return text if encoding is None else io.BufferedReader(_Recoded(text, encoding), _RECODING_BUFFER)


class _Recoded(io.RawIOBase):
    def __init__(self, source: io.BufferedReader, encoding: str) -> None:
        self._source, self._encoding = source, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._ready and not self._ended:
            data = self._source.read(_RECODING_BUFFER)
            self._ended = not data
            try:
                self._ready = memoryview(self._decoder.decode(data, final=self._ended).encode())
            except UnicodeError as error:
                raise OSError(f"its {self._encoding.upper()} text is cut off or corrupt ({error})") from error
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


BUFFER = 1 << 20
"""1 MiB of decompressed bytes: fewer calls, and still little memory."""
COMPRESSED = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz")
"""What the names of compressed files end in."""
# Compressed bytes decompressed at a time. Zstandard makes at most 32 KiB of one byte, bzip2 20 KiB: this bounds the
# memory.
_STEP = 2048
"""Compressed bytes at a time: few, as they may expand a thousandfold, and what they give is all in memory."""
_WINDOW = 1 << 31
"""What ``zstd --long=31``, its longest, looks back; a file that needs less takes less memory."""
_XZ_MEMORY = 1 << 31
"""2 GiB, like zstd's window; ``xz -9`` needs no more than 65 MiB."""


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
"""Bytes of the longest first bytes of a compressed file, those of xz."""
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


HEAD = 512
"""Bytes that suffice to tell."""

PARQUET = b"PAR1"
ARROW = (b"ARROW1\0\0", b"\xff\xff\xff\xff")
"""How Arrow IPC begins: as a file, as a stream."""

_WRITE = "write it as Parquet"
_EXPORT = "export a table of it: duckdb FILE -c \"COPY (FROM documents) TO 'data.parquet'\""
_PICKLE = f"{_WRITE}; a pickle may run code when it is opened, so none ever is"
_HTML = "an HTML page", "see what was downloaded in the file's place"

# Where the mark stands, the mark, what it marks, what to do.
_COMPRESSED = (
    (0, b"\x1f\x8b", "compressed as a whole (gzip)", "decompress it: gunzip FILE"),
    (0, b"\x28\xb5\x2f\xfd", "compressed as a whole (Zstandard)", "decompress it: zstd -d FILE"),
    (0, b"BZh", "compressed as a whole (bzip2)", "decompress it: bunzip2 FILE"),
    (0, b"\xfd7zXZ\0", "compressed as a whole (xz)", "decompress it: xz -d FILE"),
)
_OTHERS = (
    (0, b"\x04\x22\x4d\x18", "compressed with LZ4", "decompress it: lz4 -d FILE"),
    (0, b"\xff\x06\x00\x00sNaPpY", "compressed with Snappy", "decompress it"),
    (
        0,
        b"PK\x03\x04",
        "a ZIP archive (Excel's files are ZIP archives, too)",
        "unpack it: unzip FILE; or export the sheet as CSV",
    ),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (257, b"ustar", "a tar archive", "unpack it: tar -xf FILE"),
    (0, b"\xd0\xcf\x11\xe0", "an older Excel file", "export the sheet as CSV"),
    (
        0,
        b"ORC",
        "an ORC file",
        f"{_WRITE}: pyarrow.parquet.write_table(pyarrow.orc.read_table(FILE), 'data.parquet')",
    ),
    (0, b"FEA1", "Feather of version 1", f"{_WRITE}: pandas.read_feather(FILE).to_parquet('data.parquet')"),
    (0, b"Obj\x01", "an Avro file", f"{_WRITE}, or as JSON lines"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", f"{_WRITE}: pandas.read_hdf(FILE).to_parquet('data.parquet')"),
    (0, b"SQLite format 3\0", "a SQLite database", _EXPORT),
    (8, b"DUCK", "a DuckDB database", _EXPORT),
    (0, b"\x93NUMPY", "a numpy array", f"{_WRITE}, or as JSON lines"),
    *((0, bytes([0x80, version]), "a Python pickle", _PICKLE) for version in range(2, 6)),
    (0, b"%PDF-", "a PDF file", "give its texts as JSON lines"),
    *((0, mark, *_HTML) for mark in (b"<!DOCTYPE html", b"<!doctype html", b"<html")),
    (
        0,
        b"version https://git-lfs",
        "a pointer of Git LFS, not the file itself",
        "fetch the file: git lfs pull",
    ),
)


class ForeignError(OSError):
    """Raised when a file is of a format that isn't read; its text says which, and what to do.

    It is an ``OSError`` because such a file is one that can't be read, wherever only that counts.

    Attributes:
        cause: that of the failure which stands for the file.
    """

    def __init__(self, message: str, cause: str = "wrong-format") -> None:
        super().__init__(message)
        self.cause = cause


def told(head: bytes, *, compressed: bool = True) -> ForeignError | None:
    """What to say of a file that begins like this; None when it is none of the formats that are known but not read.

    Args:
        head: the first bytes, ``HEAD`` of them where there are so many.
        compressed: whether what text files are read through counts.
    """
    for at, mark, what, advice in (*_COMPRESSED, *_OTHERS) if compressed else _OTHERS:
        if head[at : at + len(mark)] == mark:
            return ForeignError(f"the file is {what}, which can't be read as it is; {advice}")
    return None


def no_text(head: bytes) -> ForeignError | None:
    """What to say of a file that should be text and, decompressed, begins like this; None where it may be text."""
    if head.startswith(PARQUET):
        return ForeignError(
            "this is Parquet, not text; give it as an uncompressed file (standard input can't be Parquet) whose name "
            "ends in .parquet, or set input.format: parquet",
        )
    if head.startswith(ARROW):
        return ForeignError(
            "this is Arrow IPC (Feather), not text; give it as an uncompressed file (standard input can't be Arrow) "
            "whose name ends in .arrow, or set input.format: arrow",
        )
    return told(head, compressed=False)


def no_parquet(head: bytes) -> ForeignError:
    """What to say of a file that should be Parquet and doesn't begin like it."""
    if (known := told(head)) is not None:
        return known
    if head[:1].isascii() and head.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] in (b"{", b"["):
        what = "it begins like JSON: name it .jsonl, or set input.format: jsonl"
    else:
        what = f"it begins with {head[:8]!r} instead of {PARQUET!r}: set input.format, or see what wrote the file"
    return ForeignError(f"the file is no Parquet file, although it is to be read as one; {what}")


def encrypted() -> ForeignError:
    """What to say of Parquet that is encrypted as a whole or in some of its columns."""
    return ForeignError(
        "the file is encrypted Parquet, as a whole or in some columns, and no key can be given here; write it again "
        "without encryption",
        "encrypted-file",
    )
