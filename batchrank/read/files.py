"""Paths of the job -> the files to read, in order."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from batchrank.errors import InputError
from batchrank.formats import INPUTS, TEXT_SUFFIXES, Source, detect, storage
from batchrank.formats.detect import bare, name_of

_STDIN = "-"


def named(paths: Iterable[str], format: str = "auto", key: str = "path") -> list[Source]:
    """The files that the paths name: each path in turn, the files of a folder or pattern sorted by name.

    1. ``-``: standard input, JSON lines.
    2. a file: itself, whatever its name.
    3. a folder: the files directly in it that have a known suffix and aren't hidden (``.x``, ``_x``); files of columns
       only where there are no others.
    4. a pattern (``*``, ``?``, ``[...]``, ``**``): the files and folders that match; hidden ones only if it says so.

    A file named twice is read once. ``key`` is the input's key that holds the paths, for messages.

    Raises:
        InputError: a path matches nothing; or standard input is to be something other than JSON lines.
        MissingExtraError: an address needs a library that isn't installed.
    """
    found: dict[str, Source] = {}
    for path in paths:
        if path == _STDIN:
            if format not in ("auto", "jsonl"):
                raise InputError(f"input.{key}: standard input can't be {format}; give a file's path")
            found[path] = Source("standard input", None, "jsonl")
            continue
        for file in _files(local(path), format, key):
            name = file if storage.is_remote(file) else str(Path(file).absolute())
            found.setdefault(name, detect.source(file, format))
    return list(found.values())


def local(path: str) -> str:
    """A path with the home folder's name in place of ``~``; an address as it is."""
    return path if storage.is_remote(path) else str(Path(path).expanduser())


def _files(path: str, format: str, key: str) -> Sequence[str]:
    if storage.is_folder(path):
        if files := _in_folder(path, format):
            return files
        wanted = ", ".join(_suffixes(format))
        raise InputError(
            f"input.{key}: the folder {storage.shown(path)} has no data file in it (*{wanted}); correct the path"
        )
    if storage.exists(path):
        return [path]
    where = "" if storage.is_remote(path) else f" (from {Path.cwd()})"
    if not storage.has_magic(path):
        raise InputError(
            f"input.{key}: no such file or folder: {storage.shown(path)}{where}; correct the path"
        )
    files = list(_matching(path, format))
    if not files:
        raise InputError(f"input.{key}: no file matches {storage.shown(path)}{where}; correct the pattern")
    return files


def _matching(pattern: str, format: str) -> Iterator[str]:
    hidden = name_of(pattern).startswith("_")
    for match in storage.matches(pattern):
        if hidden or not name_of(match).startswith("_"):
            yield from _in_folder(match, format) if storage.is_folder(match) else (match,)


def _in_folder(folder: str, format: str) -> Sequence[str]:
    names = [path for path in storage.entries(folder) if not name_of(path).startswith((".", "_"))]
    for suffixes in _choices(format):
        if found := [path for path in names if bare(path).endswith(suffixes)]:
            return found
    return []


def _choices(format: str) -> list[tuple[str, ...]]:
    """The suffixes to look for in a folder, those that come first ruling the others out."""
    if format == "auto":
        records = (s for known in INPUTS.values() for s in known.suffixes if s not in TEXT_SUFFIXES)
        return [tuple(records), TEXT_SUFFIXES]
    return [INPUTS[format].suffixes if format in INPUTS else INPUTS["tsv"].suffixes]


def _suffixes(format: str) -> list[str]:
    return [suffix for suffixes in _choices(format) for suffix in suffixes]
