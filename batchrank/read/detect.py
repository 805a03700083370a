"""Tells from a file's first bytes that it is of a format that isn't read here, so that it isn't called damaged."""

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
        "a ZIP archive (Excel's files are such, too)",
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
