"""Locks an output folder, so that two jobs never write to it at a time, and tells whose unfinished output is in it."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import orjson

from batchrank.errors import OutputError
from batchrank.io.atomic import Folder, translated

LOCK = ".batchrank.lock"
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
        self.record: dict[str, Any] | None = _record(self._fd)
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
        """Say whose folder it is from now on.

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


def owner(folder: Path) -> dict[str, Any] | None:
    """What the last job that had a folder noted, without taking the lock; None when there is nothing."""
    try:
        fd = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _record(fd)
    finally:
        os.close(fd)


def _record(fd: int) -> dict[str, Any] | None:
    try:
        data = orjson.loads(os.pread(fd, 1 << 16, 0))
    except (OSError, orjson.JSONDecodeError):
        return None
    return data if isinstance(data, dict) else None
