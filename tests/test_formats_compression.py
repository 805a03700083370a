"""Compressed files, whole and broken."""

import bz2
import gzip
import io
import lzma

import pytest
import zstandard

from batchrank.io.opening import decompressed

TEXT = b"".join(b'{"line": %d}\n' % i for i in range(50_000))


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def pzstd(data: bytes) -> bytes:
    """As pzstd writes: before each frame one that is to be skipped and says how long the next one is."""
    frame = zst(data)
    return b"\x50\x2a\x4d\x18\x04\0\0\0" + len(frame).to_bytes(4, "little") + frame


def long_zst(data: bytes) -> bytes:
    """As ``zstd --long=31``: its reader must look back further than by default."""
    parameters = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(data) + compressor.flush()


KINDS = [(gzip.compress, b"gzip"), (zst, b"zstd"), (bz2.compress, b"bzip2"), (lzma.compress, b"xz")]


def lines(data: bytes, name: str = "") -> list[bytes]:
    found = []
    file = decompressed(io.BufferedReader(io.BytesIO(data)), name)
    try:
        while line := file.readline():
            found.append(line)
    except OSError as error:
        found.append(str(error).encode())
    return found


@pytest.mark.parametrize(
    "compress", [gzip.compress, zst, pzstd, long_zst, bz2.compress, lzma.compress, bytes]
)
def test_members_in_a_row_are_one_text(compress: type[bytes]) -> None:
    """What ``cat a.gz b.gz`` makes is read to its end; a plain file is read as it is."""
    assert b"".join(lines(compress(TEXT[:300_000]) + compress(TEXT[300_000:]))) == TEXT


def test_zeros_after_the_last_member_are_padding() -> None:
    """Tapes and tar pad gzip files with zeros, and xz pads its own."""
    assert b"".join(lines(gzip.compress(TEXT) + bytes(5000))) == TEXT
    assert b"".join(lines(lzma.compress(TEXT) + bytes(4) + lzma.compress(b"end"))) == TEXT + b"end"


def test_a_skippable_frame_is_skipped() -> None:
    """Zstandard frames of metadata hold no text."""
    assert b"".join(lines(zst(TEXT) + b"\x50\x2a\x4d\x18\x04\0\0\0meta" + zst(b"end"))) == TEXT + b"end"


@pytest.mark.parametrize(("compress", "kind"), KINDS)
@pytest.mark.parametrize("cut", [1, 3, 9, 2000])
def test_all_lines_before_a_cut_are_given(compress: type[bytes], kind: bytes, cut: int) -> None:
    """A file cut off anywhere gives every line that is complete, then says that it is cut off."""
    whole = compress(TEXT[:300_000]) + compress(TEXT[300_000:])
    *found, error = lines(whole[:-cut])
    assert error == b"its " + kind + b" data is cut off"
    assert TEXT.startswith(b"".join(found))
    # Zstandard decodes block by block, of at most 128 KiB, bzip2 of 900: of it at least the first member is there.
    assert len(b"".join(found)) >= 300_000 - len(found[-1])


@pytest.mark.parametrize(("compress", "kind"), KINDS)
def test_a_corrupt_member_is_named_after_the_good_ones(compress: type[bytes], kind: bytes) -> None:
    """Members before a corrupt one are given."""
    *found, error = lines(compress(b"good\n") + compress(TEXT)[:6] + b"\xff" * 1000)
    assert found == [b"good\n"]
    assert error.startswith(b"its " + kind + b" data is corrupt")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.jsonl.BZ2", "a.jsonl.xz"])
def test_an_empty_file_with_the_suffix_is_cut_off(name: str) -> None:
    """No compressed file is empty: one that is was never written to its end."""
    with pytest.raises(OSError, match="cut off within the first"):
        lines(b"", name)
