"""Lists the files to read for a job's paths, Hugging Face's saved folders and MTEB's instructions included."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from batchrank.errors import InputError
from batchrank.io import storage
from batchrank.io.opening import COMPRESSED
from batchrank.job.sections import Columns
from batchrank.read import detect, runs
from batchrank.read.base import COLUMNAR, Source
from batchrank.read.columnar import names_in
from batchrank.read.detect import (
    HIDDEN,
    Found,
    choices,
    is_marker,
    name_of,
    refuse_table,
    search,
    table_around,
)
from batchrank.read.entries import Report
from batchrank.read.join import Array

_STDIN = "-"


def named(paths: Iterable[str], format: str = "auto", key: str = "path") -> list[Source]:
    """The files that the paths name: each path in turn, the files of a folder or pattern sorted by name.

    1. ``-``: standard input, JSON lines.
    2. a file: itself, whatever its name.
    3. a folder: the files that ``search`` finds: those of a known suffix; files of columns only where there are no
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
    """A path with the home folder's name in place of ``~``, or a named dataset's folder; an address as it is."""
    if path.startswith(storage.NAMED):
        from batchrank.io.datasets import folder_of

        return folder_of(path)
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


_HUB = "hf://datasets/"
_DEFAULT_SPLIT = "test"
_SUFFIXES = "|".join(re.escape(suffix) for known in detect.INPUTS.values() for suffix in known.suffixes)
_PART = re.compile(
    rf"(?:data/)?(?P<split>[^/]+?)(?:-\d+-of-\d+)?(?:{_SUFFIXES})(?:{'|'.join(map(re.escape, COMPRESSED))})?"
)
"""A file of a split, as the hub's datasets name them: ``test.jsonl``, ``data/test-00000-of-00001.parquet``."""
_STATE, _SPLITS = "state.json", "dataset_dict.json"


def unfolded(paths: Iterable[str], split: str | None) -> list[str]:
    """The paths, with the data files of a saved dataset in place of its folder.

    Raises:
        InputError: there are several splits and the job says not which; or a saved dataset's own list can't be read.
    """
    return [file for path in paths for file in _files(path, split)]


def _files(path: str, split: str | None) -> Iterator[str]:
    folder = local(path)
    names = _members(folder)
    if _SPLITS in names:
        yield from _files(storage.join(folder, _chosen(names[_SPLITS], folder, split)), None)
    elif _STATE in names:
        for file in _listed(names[_STATE], "_data_files"):
            yield storage.join(folder, str(file["filename"] if isinstance(file, dict) else file))
    elif folder.startswith(_HUB) and not storage.has_magic(folder) and storage.is_folder(folder):
        yield from _of_hub(folder, split)
    else:
        yield path


def _of_hub(folder: str, split: str | None) -> list[str]:
    """The files of one split of a dataset on the hub, whose names begin with the split's; else the folder itself.

    Raises:
        InputError: there are several splits and the job says not which, or not one that is there.
    """
    splits: dict[str, list[str]] = {}
    for path in storage.entries(folder, depth=2):
        if match := _PART.fullmatch(storage.relative(path, folder)):
            splits.setdefault(match["split"], []).append(path)
    if not splits:
        return [folder]
    wanted = split or (
        _DEFAULT_SPLIT if _DEFAULT_SPLIT in splits else next(iter(splits)) if len(splits) == 1 else None
    )
    if wanted not in splits:
        raise InputError(
            f"input.split: {storage.shown(folder)} is a dataset with the splits {', '.join(sorted(splits))}; say which"
        )
    return splits[wanted]


def _members(folder: str) -> dict[str, str]:
    """The files in a folder by their names; none where it is no folder."""
    if storage.has_magic(folder) or not storage.is_folder(folder):
        return {}
    return {name_of(path): path for path in storage.entries(folder)}


def _chosen(path: str, folder: str, split: str | None) -> str:
    splits = [str(name) for name in _listed(path, "splits")]
    if split is None and len(splits) == 1:
        return splits[0]
    if split not in splits:
        raise InputError(
            f"input.split: {storage.shown(folder)} is a saved dataset with the splits {', '.join(splits)}; say which"
        )
    return split


def _listed(path: str, key: str) -> list[Any]:
    try:
        with storage.open_stream(path) as file:
            found = orjson.loads(file.read())[key]
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f"{storage.shown(path)} can't be read as a saved dataset's list of {key}: {error}; save the dataset again"
        ) from error
    return list(found)


_NAME = "instruction"
_COLUMNS = Columns(query=_NAME)


def within(queries: Sequence[Source]) -> list[Source]:
    """The files of queries that have a column of instructions."""
    return [source for source in queries if _has_column(source)]


def _has_column(source: Source) -> bool:
    if source.format in COLUMNAR:
        return _NAME in names_in(source)
    if source.format != "jsonl":
        return False
    try:
        with closing(runs.records(source, lambda failure: None)) as records:  # type: ignore[type-var]
            _, record = next(records, (None, {}))
            return _NAME in record
    except OSError:
        return False  # its reader will say what is wrong


def texts(files: Iterable[Source], report: Report) -> Iterator[Array]:
    """Batches of query id and instruction, of the schema that collections of texts have."""
    for source in files:
        yield from runs.read_texts(source, _COLUMNS, report, queries=True)
