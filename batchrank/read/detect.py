"""Tells which reader a file needs, and which files of a folder are data, so that nothing is left out silently."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import unquote

from batchrank.errors import InputError
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
"""64 KiB: the first line is longer only in JSON, which its first character tells."""
_COLUMNS = (3, 4, 6)
"""Columns of the files of the field that white space separates: MS MARCO's runs, qrels, TREC runs."""
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


HIDDEN = ("_", ".")
_MARKERS = (
    "_SUCCESS",
    "_metadata",
    "_common_metadata",
    "_started",
    "_committed",
    ".DS_Store",
    ".gitattributes",
)
"""Names that hold no data, ever: not worth a word."""
_UNFINISHED = "_temporary"
_FEW = 5
"""Files that a notice names, so that a folder of thousands fits a line."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table format: the folder that tells it, what it is called, and how its rows are exported."""

    mark: str
    name: str
    export: str


TABLES = (
    Table("_delta_log", "Delta", "DuckDB's delta_scan('{}'), or Polars' scan_delta('{}').sink_parquet"),
    Table("metadata", "Iceberg", "DuckDB's iceberg_scan('{}'), or Polars' scan_iceberg"),
    Table(".hoodie", "Hudi", "Spark's read.format('hudi').load('{}')"),
)


@dataclass(slots=True)
class Found:
    """The files that paths name, and what isn't read.

    Attributes:
        files: to be read, in order.
        left: what isn't, and why.
        told: what else should be known.
    """

    files: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def notes(self, key: str) -> list[str]:
        """What a user should know, a sentence each; ``key`` is the input's key that holds the paths."""
        read = set(self.files)
        left = {path: why for path, why in self.left.items() if path not in read and not _holds(path, read)}
        shown = [f"{storage.shown(path)} ({why})" for path, why in list(left.items())[:_FEW]]
        more = [f"and {len(left) - _FEW:,} more"] if len(left) > _FEW else []
        count = f"{len(read):,} {'file was' if len(read) == 1 else 'files were'} read"
        found = [f"input.{key}: {count}; not read: {', '.join([*shown, *more])}"] if left else []
        return [*found, *dict.fromkeys(self.told)]


def _holds(folder: str, files: set[str]) -> bool:
    return any(file.startswith(f"{folder.rstrip('/')}/") for file in files)


def search(folder: str, format: str, found: Found) -> None:
    """Look for a folder's data files.

    Raises:
        InputError: it is a table of Delta, Iceberg or Hudi, or a part of one.
    """
    refuse_table(folder)
    if _is_part(name_of(folder.rstrip("/"))) and (table := table_around(folder.rstrip("/"))) is not None:
        refuse_table(table)
    candidates: list[str] = []
    for path in _walk(folder, found):
        name = name_of(path)
        if not name.startswith(HIDDEN):
            candidates.append(path)
        elif not is_marker(name):
            found.left[path] = f"its name begins with {name[0]}"
    taken = _taken(candidates, format)
    found.files += taken
    for path in set(candidates) - set(taken):
        found.left[path] = _why(path, format)
    found.left = dict(sorted(found.left.items()))


def is_marker(name: str) -> bool:
    """Whether a file of this name never holds data."""
    return name.startswith(_MARKERS) or name.endswith(".crc")


def _walk(folder: str, found: Found) -> Iterator[str]:
    yield from storage.entries(folder)
    for below in storage.subfolders(folder):
        name = name_of(below.rstrip("/"))
        if name == _UNFINISHED:
            found.left[below] = "Spark was still writing here: data files may be missing"
        elif name.startswith(HIDDEN):
            if storage.entries(below):
                found.left[below] = f"its name begins with {name[0]}"
        elif "=" in name:
            yield from _walk(below, found)
        else:
            found.left[below] = "a folder; name it, or use a pattern such as **/*.parquet"


def _taken(paths: Sequence[str], format: str) -> list[str]:
    for suffixes in choices(format):
        if taken := [path for path in paths if bare(path).endswith(suffixes)]:
            return taken
    return []


def _why(path: str, format: str) -> str:
    if format not in ("auto", "beir", "mteb"):
        return f"input.format is {format}"
    if bare(path).endswith(TEXT_SUFFIXES):
        return "text files of columns are read only where there are no other data files"
    return "its suffix tells no format; name the file itself to read it"


def choices(format: str) -> list[tuple[str, ...]]:
    """Groups of suffixes to look for in a folder; once files of one group are found, the later groups don't count."""
    if format in ("auto", "beir", "mteb"):
        records = (s for known in INPUTS.values() for s in known.suffixes if s not in TEXT_SUFFIXES)
        return [tuple(records), TEXT_SUFFIXES]
    return [INPUTS[format].suffixes if format in INPUTS else INPUTS["tsv"].suffixes]


def refuse_table(folder: str) -> None:
    """Refuse a folder that holds a table of some format, because its files may hold rows that were deleted since.

    Raises:
        InputError: it is one.
    """
    if (table := table_at(folder)) is not None:
        shown = storage.shown(folder)
        raise InputError(
            f"input.path: {shown} is a table of {table.name}: its files may hold rows that were overwritten or "
            f"deleted. Export what it holds now as Parquet, and give that: {table.export.replace('{}', shown)}"
        )


def table_at(folder: str) -> Table | None:
    """The table format of a folder, if it is a table's."""
    if folder.startswith(("http://", "https://")):
        return None  # a server's pages can't be listed
    try:
        return next((table for table in TABLES if _is_table(folder, table)), None)
    except (InputError, OSError):
        return None  # whoever reads it will say what is wrong


def _is_table(folder: str, table: Table) -> bool:
    mark = storage.join(folder, table.mark)
    if not storage.is_folder(mark):
        return False
    if table.name != "Iceberg":
        return True
    names = map(name_of, storage.entries(mark))
    return any(name.endswith((".metadata.json", ".avro")) or name == "version-hint.text" for name in names)


def _is_part(name: str) -> bool:
    """Whether a folder of this name may be a part of the table around it: a partition, or where Iceberg keeps data."""
    return "=" in name or name == "data"


def table_around(path: str) -> str | None:
    """The folder of the table that a file, or a partition, is a part of, if it is."""
    folder = storage.parent(path)
    while folder:
        if table_at(folder) is not None:
            return folder
        if not _is_part(name_of(folder.rstrip("/"))):
            return None
        folder = storage.parent(folder)
    return None
