"""Tells which reader a file needs, by its name or its first bytes: the table of file formats stands here."""

from pathlib import PurePosixPath
from urllib.parse import unquote

from batchrank.io import opening as foreign
from batchrank.io import storage
from batchrank.io.opening import COMPRESSED, decompressed, in_utf8
from batchrank.read import columnar, jsonl, textfiles
from batchrank.read.base import InputFormat, Source

INPUTS: dict[str, InputFormat] = {
    "jsonl": InputFormat((".jsonl", ".ndjson", ".json"), jsonl.read),
    "parquet": InputFormat((".parquet", ".pq"), columnar.read),
    "arrow": InputFormat((".arrow", ".feather", ".ipc"), columnar.read),
    "csv": InputFormat((".csv",), textfiles.read),
    "tsv": InputFormat((".tsv", ".trec", ".run"), textfiles.read),
}
"""Formats whose records may hold the texts of a query's documents."""

TEXT_SUFFIXES = (*INPUTS["csv"].suffixes, *INPUTS["tsv"].suffixes)
"""Of files of columns: runs, qrels, collections; see ``tsv``."""


_PARQUET_MAGIC = b"PAR1"
_FIRST_LINE = 1 << 16
_COLUMNS = (3, 4, 6)
_NULL = "__HIVE_DEFAULT_PARTITION__"
_READERS = {"trec": "tsv"}


def source(path: str, format: str = "auto", *, role: str = "") -> Source:
    """A file as a source, with the reader that ``format_of`` tells; ``role`` is that of ``Source``."""
    role = role or ("run" if format == "trec" else "")
    return Source(storage.shown(path), path, format_of(path, format), role, partition(path))


def name_of(path: str) -> str:
    """A file's name without its folder."""
    return PurePosixPath(path.partition("?")[0] if storage.is_remote(path) else path).name


def bare(path: str) -> str:
    """A file's name in small letters, without the suffix of its compression."""
    name = name_of(path).lower()
    return next((name.removesuffix(end) for end in COMPRESSED if name.endswith(end)), name)


def format_of(path: str, format: str = "auto") -> str:
    """The reader for a file: by the format given, or told by the suffix, or by the first bytes."""
    if format not in ("auto", "beir", "mteb"):
        return _READERS.get(format, format)
    for name, known in INPUTS.items():
        if bare(path).endswith(known.suffixes):
            return name
    try:
        # A pipe can be read only once, and can't be Parquet.
        return _told_by_start(path) if storage.is_file(path) else "jsonl"
    except OSError:
        return "jsonl"  # its reader will say what is wrong


def _told_by_start(path: str) -> str:
    with storage.open_stream(path) as file:
        start = in_utf8(decompressed(file, path)).peek(_FIRST_LINE)[:_FIRST_LINE]
    if start.startswith(_PARQUET_MAGIC):
        return "parquet"
    if start.startswith(foreign.ARROW):
        return "arrow"
    text = start.decode("utf-8", "replace").lstrip("\ufeff \r\n")
    first = text.partition("\n")[0].rstrip("\r")
    if first.startswith(("{", "[")):
        return "jsonl"
    if "\t" in first or len(first.split()) in _COLUMNS:
        return "tsv"
    return "csv" if first.count(",") else "jsonl"


def partition(path: str) -> dict[str, str | None]:
    """The columns that a file's folders name: ``lang=en/part-0.parquet`` is of language ``en``."""
    folders = (path.partition("?")[0] if storage.is_remote(path) else path).split("/")[:-1]
    pairs = [folder.partition("=") for folder in folders if "=" in folder]
    return {key: None if value == _NULL else unquote(value) for key, _, value in pairs if key}
