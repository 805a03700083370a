"""Folders that Hugging Face's ``save_to_disk`` wrote -> their Arrow files, because other files stand beside these.

A dataset's folder has a ``state.json`` that lists its data files; ``cache-*.arrow`` in it are of no account. A folder
with ``dataset_dict.json`` holds such a folder for each split.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from batchrank.errors import InputError
from batchrank.io import storage
from batchrank.read.detect_ import name_of
from batchrank.read.reader import local

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
    else:
        yield path


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
