"""Writes what a run leaves beside its rankings: the dead letters and the summary, as text files that appear whole."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from batchrank.io.atomic import Folder, Kept
from batchrank.outcomes import Failure


def write_text(path: str | Path, text: str) -> None:
    """Write a file in UTF-8, durably and as a whole, in place of an older one.

    Raises:
        OutputError: it can't be written.
    """
    path = Path(path)
    folder = Folder(path.parent)
    try:
        file = folder.create(path.name)
        try:
            # An id that came from Python may hold half a surrogate pair, which no file can.
            file.write(text.encode("utf-8", "replace"))
            file.publish()
        finally:
            file.discard()
        folder.sync()
    finally:
        folder.close()


_OPTIONS = (
    orjson.OPT_INDENT_2
    | orjson.OPT_SORT_KEYS
    | orjson.OPT_NON_STR_KEYS
    | orjson.OPT_SERIALIZE_NUMPY
    | orjson.OPT_APPEND_NEWLINE
)


class FailureLog:
    """The dead letters, one JSON line each, in the order in which they come.

    While the run goes on they are in ``<stem>.partial<suffix>`` (``failed.partial.jsonl``), each passed on to the
    system at once, so that a killed run shows what failed so far; ``close`` makes them durable and gives the file
    its name. So a file of that name is always a complete one, empty when nothing failed.

    Args:
        path: the file's name in the end.
        kept: the beginning of an earlier process's partial file, which stays.

    Raises:
        OutputError: here and from every method: the file can't be written.
    """

    def __init__(self, path: str | Path, kept: Kept | None = None) -> None:
        path = Path(path)
        self._folder = Folder(path.parent)
        names = path.name, partial(path).name
        self._file = self._folder.reopen(*names, kept) if kept else self._folder.create(*names)
        self.count = 0

    def write(self, failure: Failure) -> None:
        """Append one failure."""
        place = failure.place
        data = {
            "query_id": failure.query_id,
            "cause": failure.cause,
            "message": failure.message,
            "attempts": failure.attempts,
            "file": place.file,
            place.unit: place.number,
        }
        # Not orjson: an id that came from Python may hold half a surrogate pair, which only escapes can carry.
        self._file.write(json.dumps(data).encode() + b"\n")
        self._file.push()
        self.count += 1

    def mark(self) -> Kept:
        """What stands in the file so far; durable from now on."""
        return self._file.mark()

    def close(self) -> None:
        """Put the file in place."""
        self._file.publish()
        self._folder.sync()
        self._folder.close()

    def abort(self) -> None:
        """Leave the partial file as it is. After ``close`` it does nothing."""
        self._file.leave()
        self._folder.close()


def partial(path: Path) -> Path:
    """Where dead letters are while the run goes on."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def write_summary(path: str | Path, data: Mapping[str, Any]) -> None:
    """Write a JSON object, indented and with sorted keys, durably and as a whole; NaN becomes null.

    Raises:
        OutputError: the file can't be written.
    """
    path = Path(path)
    folder = Folder(path.parent)
    try:
        file = folder.create(path.name)
        try:
            file.write(orjson.dumps(dict(data), option=_OPTIONS))
            file.publish()
        finally:
            file.discard()
        folder.sync()
    finally:
        folder.close()
