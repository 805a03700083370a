"""Locks an output folder for one job at a time, and replaces an earlier complete output by tonight's as a whole."""

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from batchrank.errors import BatchrankError, OutputError
from batchrank.io.address import Address, Where
from batchrank.io.atomic import Folder, translated
from batchrank.write.destination import Destination, opened
from batchrank.write.folder import (
    DECIDED,
    LOCK,
    NEXT,
    SUMMARY,
    OutputFolder,
    is_left,
    is_output,
    write_summary,
)

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What file systems say that know no such locks; there the ledger's own lock has to do."""


class Claim:
    """A folder's lock, which the system releases when the process ends, however it ends.

    Attributes:
        record: what the last job that had the folder noted; None when there is nothing that can be read.

    Args:
        folder: the folder, made where it is missing.

    Raises:
        OutputError: another process has the lock, or the system refuses.
    """

    def __init__(self, folder: Path) -> None:
        Folder(folder).close()
        path = folder / LOCK
        with translated(str(path), "opened"):
            self._fd = os.open(path, _FLAGS, 0o644)
        self.record = OutputFolder(folder).owner()
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return
            self.close()
            who = (
                ""
                if self.record is None
                else f" ({self.record.get('job')}, process {self.record.get('pid')})"
            )
            raise OutputError(
                f"{folder}: another batchrank process{who} is writing to this folder; wait for it to end, or choose "
                "another output.path"
            ) from None

    def note(self, record: dict[str, Any]) -> None:
        """Note in the folder which job it belongs to from now on.

        Raises:
            OutputError: the system refuses.
        """
        with translated(LOCK, "written"):
            data = orjson.dumps(record)
            os.ftruncate(self._fd, os.pwrite(self._fd, data, 0))

    def close(self) -> None:
        """Let others have the folder."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def refuse_claimed(folder: Path) -> None:
    """Refuse a folder that another process is writing to; it is not locked by that, nor made.

    Raises:
        OutputError: another process has the lock.
    """
    if (folder / LOCK).exists():
        Claim(folder).close()


def nearest(folder: Path) -> Path:
    """The folder itself, or the closest one above it that is there."""
    return next(parent for parent in [folder, *folder.absolute().parents] if os.path.lexists(parent))


def refuse_unwritable(folder: Path, kind: type[BatchrankError]) -> None:
    """Refuse a folder in which nothing can be written, or that can't be made; it isn't made either.

    Raises:
        BatchrankError: of the kind given; the message says why.
    """
    there = nearest(folder)
    if not there.is_dir():
        what = "is a file" if there.is_file() else "is no folder"
        raise kind(
            f"{there} {what}, and a folder is needed there; choose another output.path, or another ledger"
        )
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise kind(f"nothing can be written to {there}: {error.strerror or error}") from None


def aside(folder: Where) -> Where:
    """The folder for an output that is to replace another one; made where it is missing.

    Raises:
        OutputError: it can't be made, or something else has its name.
    """
    if isinstance(folder, Address):  # a store has no folders to make
        return folder / NEXT
    outer = Folder(folder)
    try:
        outer.make_folder(NEXT)
    finally:
        outer.close()
    return folder / NEXT


def decide(folder: Where) -> None:
    """Decide durably that what is in ``.next`` replaces what the folder holds; all of it is complete and durable.

    Raises:
        OutputError: a file can't take its place, because a link or a folder has its name; or the system refuses.
    """
    with _both(folder) as (inner, outer):
        inner.sync()
        moved = {name: inner.size(name) for name in sorted(inner.names()) if is_output(name)}
        for name in moved:
            outer.require_regular(name)
        removed = [name for name in sorted(outer.names()) if name not in moved and is_left(name)]
    write_summary(folder / NEXT / DECIDED, {"moved": moved, "removed": removed})


def carry_out(folder: Where) -> bool:
    """Carry out a switch that was decided, from wherever it stands; whether there was one.

    Raises:
        OutputError: a file is lost or can't take its place, or what was decided can't be read.
    """
    decided = _decided(folder / NEXT / DECIDED)
    if decided is None:
        return False
    moved, removed = decided
    with _both(folder) as (inner, outer):
        if inner.size(SUMMARY) is not None:
            outer.remove(SUMMARY)
            outer.sync()
        for name in (name for name in moved if name != SUMMARY):
            _move(folder, inner, outer, name, moved[name])
        for name in removed:
            outer.remove(name)
        _move(folder, inner, outer, SUMMARY, moved[SUMMARY])
        outer.sync()
        inner.sync()
        _dissolve(inner, outer)
    return True


def dissolve(folder: Where) -> None:
    """Remove what a run that was never completed left in ``.next``.

    Raises:
        OutputError: the system refuses.
    """
    if not (folder / NEXT).is_dir() or (folder / NEXT).is_symlink():
        return
    with _both(folder) as (inner, outer):
        _dissolve(inner, outer)


@contextmanager
def _both(folder: Where) -> Iterator[tuple[Destination, Destination]]:
    """What is to replace, and what is to be replaced."""
    inner, outer = opened(folder / NEXT), opened(folder)
    try:
        yield inner, outer
    finally:
        inner.close()
        outer.close()


def _dissolve(inner: Destination, outer: Destination) -> None:
    inner.remove(DECIDED)
    inner.sync()
    for name in inner.names():
        if is_left(name):
            inner.remove(name)
    inner.drop()  # unless somebody else's file is in it
    outer.sync()


def _move(folder: Where, inner: Destination, outer: Destination, name: str, size: int) -> None:
    if inner.size(name) is not None:
        outer.take(inner, name)
    elif outer.size(name) != size:
        raise OutputError(
            f"{folder / name} is lost: neither it nor {folder / NEXT / name} is the file of {size:,} bytes that the "
            f"last run wrote; restore it, or remove {folder / NEXT} and run again with --fresh"
        )


def _decided(path: Where) -> tuple[dict[str, int], list[str]] | None:
    """What was decided: the files to move with their sizes, and those to remove; None when nothing was.

    A name in it that no output has is refused: nothing else is ever moved or removed.
    """
    try:
        data: Any = orjson.loads(path.read_bytes())
        moved, removed = dict(data["moved"]), list(data["removed"])
        if SUMMARY in moved and all(map(is_output, moved)) and all(map(is_left, removed)):
            return moved, removed
        reason = "it names files that no run writes"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error)
    raise OutputError(
        f"{path}, which says how the output was to be replaced, can't be used: {reason}; remove {path.parent} to keep "
        "what is in place, and run again with --fresh"
    )
