"""Paths of the job -> the files to read, in order."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from batchrank.errors import InputError
from batchrank.formats import INPUTS, Source

_STDIN = "-"
_COMPRESSED = (".gz", ".zst")
_PARQUET_MAGIC = b"PAR1"


def find(paths: Iterable[str], format: str = "auto") -> list[Source]:
    """The files that the paths name: each path in turn, the files of a folder or pattern sorted by name.

    1. ``-``: standard input, JSON lines.
    2. a file: itself, whatever its name.
    3. a folder: the files directly in it that have a known suffix and aren't hidden (``.x``, ``_x``).
    4. a pattern (``*``, ``?``, ``[...]``, ``**``): the files and folders that match; hidden ones only if it says so.

    A file named twice is read once.

    Raises:
        InputError: a path matches nothing; or standard input is to be something other than JSON lines.
    """
    found: dict[str, Source] = {}
    for path in paths:
        if path == _STDIN:
            if format not in ("auto", "jsonl"):
                raise InputError(f"input.path: standard input can't be {format}; give a file's path")
            found[path] = Source("standard input", None, "jsonl")
            continue
        for file in _files(str(Path(path).expanduser()), format):
            name = os.fsencode(file).decode("utf-8", "backslashreplace")
            found.setdefault(str(Path(file).absolute()), Source(name, file, _format(file, format)))
    return list(found.values())


def _files(path: str, format: str) -> list[str]:
    if Path(path).is_dir():
        if files := list(_in_folder(path, format)):
            return files
        wanted = ", ".join(_suffixes(format))
        raise InputError(
            f"input.path: the folder {path} has no data file in it (*{wanted}); correct the path"
        )
    if Path(path).exists():
        return [path]
    if not glob.has_magic(path):
        raise InputError(f"input.path: no such file or folder: {path} (from {Path.cwd()}); correct the path")
    hidden = Path(path).name.startswith("_")
    matches = sorted(m for m in glob.glob(path, recursive=True) if hidden or not Path(m).name.startswith("_"))
    files = [f for m in matches for f in (_in_folder(m, format) if Path(m).is_dir() else (m,))]
    if not files:
        raise InputError(f"input.path: no file matches {path} (from {Path.cwd()}); correct the pattern")
    return files


def _in_folder(folder: str, format: str) -> Iterator[str]:
    suffixes = _suffixes(format)
    for entry in sorted(Path(folder).iterdir()):
        if entry.is_file() and not entry.name.startswith((".", "_")) and _bare(entry.name).endswith(suffixes):
            yield str(entry)


def _suffixes(format: str) -> tuple[str, ...]:
    formats = INPUTS.values() if format == "auto" else [INPUTS[format]]
    return tuple(suffix for known in formats for suffix in known.suffixes)


def _bare(name: str) -> str:
    """A file's name in small letters, without the suffix of its compression."""
    name = name.lower()
    return next((name.removesuffix(end) for end in _COMPRESSED if name.endswith(end)), name)


def _format(path: str, format: str) -> str:
    """The format given, or told by the suffix, or by the first bytes."""
    if format != "auto":
        return format
    for name, known in INPUTS.items():
        if _bare(path).endswith(known.suffixes):
            return name
    try:
        # A pipe can be read only once, and can't be Parquet.
        if Path(path).is_file():
            with Path(path).open("rb") as file:
                return "parquet" if file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC else "jsonl"
    except OSError:
        pass  # its reader will say so
    return "jsonl"
