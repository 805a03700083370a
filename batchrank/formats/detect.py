"""Which reader a file needs, told by its name or by its first bytes."""

from pathlib import PurePosixPath

from batchrank.formats import others, storage, tsv
from batchrank.formats.base import Source
from batchrank.formats.compression import decompressed
from batchrank.formats.table import INPUTS, TEXT_SUFFIXES

_COMPRESSED = (".gz", ".zst")
_PARQUET_MAGIC = b"PAR1"
_FIRST_LINE = 1 << 16
_READERS = {"trec": "tsv"}


def source(path: str, format: str = "auto") -> Source:
    """A file as a source, with the reader that ``format_of`` tells."""
    return Source(storage.shown(path), path, format_of(path, format))


def name_of(path: str) -> str:
    """A file's name without its folder."""
    return PurePosixPath(path.partition("?")[0] if storage.is_remote(path) else path).name


def bare(path: str) -> str:
    """A file's name in small letters, without the suffix of its compression."""
    name = name_of(path).lower()
    return next((name.removesuffix(end) for end in _COMPRESSED if name.endswith(end)), name)


def format_of(path: str, format: str = "auto") -> str:
    """The reader for a file: by the format given, or told by the suffix, or by the first bytes."""
    if format not in ("auto", "beir", "mteb"):
        return _READERS.get(format, format)
    for name, known in INPUTS.items():
        if bare(path).endswith(known.suffixes):
            return name
    if bare(path).endswith(TEXT_SUFFIXES):
        return "tsv"
    try:
        # A pipe can be read only once, and can't be Parquet.
        return _told_by_start(path) if storage.is_file(path) else "jsonl"
    except OSError:
        return "jsonl"  # its reader will say what is wrong


def _told_by_start(path: str) -> str:
    with storage.open_stream(path) as file:
        start = decompressed(file, path).peek(_FIRST_LINE)[:_FIRST_LINE]
    if start.startswith(_PARQUET_MAGIC):
        return "parquet"
    if start.startswith(others.ARROW):
        return "arrow"
    first = start.decode("utf-8", "replace").lstrip("\ufeff \r\n").partition("\n")[0]
    columns = "\t" in first or tsv.kind_of(first.rstrip("\r")) is not None
    return "tsv" if columns and not first.startswith("{") else "jsonl"
