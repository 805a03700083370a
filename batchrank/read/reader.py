"""Paths of the job -> the files to read, in order."""

from collections.abc import Iterable
from pathlib import Path

from batchrank.errors import InputError
from batchrank.io import storage
from batchrank.read import detect_ as detect
from batchrank.read.base import Source
from batchrank.read.folders import HIDDEN, Found, choices, is_marker, refuse_table, search, table_around

_STDIN = "-"


def named(paths: Iterable[str], format: str = "auto", key: str = "path") -> list[Source]:
    """The files that the paths name: each path in turn, the files of a folder or pattern sorted by name.

    1. ``-``: standard input, JSON lines.
    2. a file: itself, whatever its name.
    3. a folder: the files that ``folders`` tells: those of a known suffix; files of columns only where there are no
       others.
    4. a pattern (``*``, ``?``, ``[...]``, ``**``): the files and folders that match; hidden ones (``.x``, ``_x``) and
       what is in them only if it says so.

    A file named twice is read once. ``key`` is the input's key that holds the paths, for messages.

    Raises:
        InputError: a path matches nothing, or is a table's folder; or standard input is to be something other than JSON
            lines.
        MissingExtraError: an address needs a library that isn't installed.
    """
    found: dict[str, Source] = {}
    for path in paths:
        if path == _STDIN:
            if format not in ("auto", "jsonl"):
                raise InputError(f"input.{key}: standard input can't be {format}; give a file's path")
            found[path] = Source("standard input", None, "jsonl")
            continue
        for file in looked_up(local(path), format, key).files:
            name = file if storage.is_remote(file) else str(Path(file).absolute())
            found.setdefault(name, detect.source(file, format))
    return list(found.values())


def local(path: str) -> str:
    """A path with the home folder's name in place of ``~``; an address as it is."""
    return path if storage.is_remote(path) else str(Path(path).expanduser())


def looked_up(path: str, format: str, key: str) -> Found:
    """The files that one path names, and what it names that isn't read.

    Raises:
        InputError: there is none.
    """
    found = Found()
    if storage.is_folder(path):
        search(path, format, found)
        if not found.files:
            wanted = ", ".join(f"*{suffix}" for suffixes in choices(format) for suffix in suffixes)
            raise InputError(
                f"input.{key}: the folder {storage.shown(path)} has no data file in it ({wanted}){_left(found)}; "
                "correct the path"
            )
        return found
    if storage.exists(path):
        found.files.append(path)
        if (table := table_around(path)) is not None:
            found.told.append(
                f"input.{key}: {storage.shown(path)} is a file of the table {storage.shown(table)}: it was read as it "
                "is, and may hold rows that were overwritten or deleted"
            )
        return found
    where = "" if storage.is_remote(path) else f" (from {Path.cwd()})"
    if not storage.has_magic(path):
        raise InputError(
            f"input.{key}: no such file or folder: {storage.shown(path)}{where}; correct the path"
        )
    _match(path, format, found)
    if not found.files:
        raise InputError(
            f"input.{key}: no file matches {storage.shown(path)}{where}{_left(found)}; correct the pattern"
        )
    return found


def _left(found: Found) -> str:
    """What there is all the same."""
    first = next(iter(found.left.items()), None)
    return f"; {storage.shown(first[0])} is not read ({first[1]})" if first else ""


def _match(pattern: str, format: str, found: Found) -> None:
    address = pattern.partition("?")[0] if storage.is_remote(pattern) else pattern
    parts = address.split("/")
    fixed = next(i for i, part in enumerate(parts) if storage.has_magic(part))
    hidden = any(part.startswith(HIDDEN) and part not in (".", "..") for part in parts[fixed:])
    checked: set[str] = set()
    for match in storage.matches(pattern):
        below = match.partition("?")[0] if storage.is_remote(match) else match
        names = below.rstrip("/").split("/")
        at = next((i for i, name in enumerate(names) if i >= fixed and name.startswith(HIDDEN)), None)
        if at is not None and not hidden:
            if not is_marker(names[at]):
                found.left["/".join(names[: at + 1])] = f"its name begins with {names[at][0]}"
        elif storage.is_folder(match):
            search(match.rstrip("/"), format, found)
        else:
            if (folder := storage.parent(match)) not in checked:
                checked.add(folder)
                if (table := table_around(match)) is not None:
                    refuse_table(table)
            found.files.append(match)
