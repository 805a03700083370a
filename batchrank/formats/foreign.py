"""Files that no reader takes, told by their first bytes, so that a message can say what they are and what to do."""

_TABLE = (
    (b"PK\x03\x04", "a zip archive (Excel's files are such, too)", "unpack it, or export the sheet as CSV"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"\x04\x22\x4d\x18", "compressed by lz4", "decompress it: lz4 -d"),
    (b"\xff\x06\x00\x00sNaPpY", "compressed by Snappy", "decompress it"),
    (b"\xd0\xcf\x11\xe0", "an older Excel file", "export the sheet as CSV"),
    (b"ARROW1", "an Arrow IPC (Feather) file", "write it as Parquet: pyarrow.parquet.write_table"),
    (b"Obj\x01", "an Avro file", "write it as Parquet or JSON lines"),
    (b"ORC", "an ORC file", "write it as Parquet: pyarrow.orc.read_table, pyarrow.parquet.write_table"),
    (b"SQLite format 3\0", "a SQLite database", "export the table as CSV: sqlite3 -header -csv"),
    (b"\x89HDF\r\n", "an HDF5 file", "write it as Parquet"),
    (b"\x80\x04\x95", "a Python pickle", "write it as JSON lines"),
    (b"\x80\x05\x95", "a Python pickle", "write it as JSON lines"),
    (b"%PDF-", "a PDF file", "give its texts as JSON lines"),
    (b"<!DOCTYPE html", "an HTML page", "see what was downloaded in the file's place"),
    (b"<!doctype html", "an HTML page", "see what was downloaded in the file's place"),
    (b"<html", "an HTML page", "see what was downloaded in the file's place"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull"),
)
_TAR = slice(257, 262), b"ustar"
START = 512
"""So many first bytes tell."""


class ForeignError(OSError):
    """Raised when a file is of a kind that isn't read; its text says which, and what to do."""


def refuse_foreign(start: bytes) -> None:
    """Refuse a file that begins with these bytes, when no reader takes it.

    Raises:
        ForeignError: it is of a kind known and not read.
    """
    for magic, what, remedy in _TABLE:
        if start.startswith(magic):
            raise ForeignError(f"it is {what}; {remedy}")
    where, magic = _TAR
    if start[where] == magic:
        raise ForeignError("it is a tar archive; unpack it: tar -xf")
