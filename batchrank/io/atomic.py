"""Makes files appear in a folder complete or not at all, so that nobody reads half of one.

The folder is held open, so that nothing is ever written anywhere else.
"""

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from batchrank.errors import OutputError

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BUFFER = 1 << 20
"""1 MiB: fewer system calls, and still little memory for each open file."""


@contextmanager
def translated(path: str, doing: str) -> Iterator[None]:
    """Raise an ``OutputError`` that names the file where the system refuses."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path} can't be {doing}: {reason}; free space or correct output.path or its permissions, and run again"
        ) from error


class Folder:
    """An output folder, held open, so that no file in it can be redirected elsewhere while the job runs."""

    def __init__(self, path: str | Path) -> None:
        """Make the folder where it is missing, and open it.

        Raises:
            OutputError: it can't be made or opened, or is a file.
        """
        self.path = Path(path).expanduser()
        with translated(str(self.path), "used as output folder"):
            self.path.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def create(self, name: str, temporary: str | None = None) -> "PendingFile":
        """Start a file that will be called ``name``; a left-over of its temporary name is replaced.

        Raises:
            OutputError: the name is taken by a link, a folder or a device; or the system refuses.
        """
        temporary = temporary or f".{name}.tmp"
        self.require_regular(name)
        with translated(str(self.path / name), "written"):
            self.remove(temporary)
            fd = os.open(temporary, _NEW, 0o666, dir_fd=self._fd)
        return PendingFile(self, name, temporary, fd)

    def reopen(self, name: str, temporary: str, kept: "Kept") -> "PendingFile":
        """Go on with a file under its temporary name, after the beginning that is to stay.

        Raises:
            OutputError: its beginning is another one, or it is gone; or the system refuses.
        """
        with translated(str(self.path / temporary), "written"):
            fd = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        file = PendingFile(self, name, temporary, fd)
        if not file.keep(fd, kept):
            file.leave()
            raise OutputError(f"{self.path / temporary} was changed while it was read; run the job again")
        return file

    def put(self, name: str, data: bytes) -> None:
        """Write a file durably and as a whole; an ``OutputError`` where the system refuses."""
        file = self.create(name)
        try:
            file.write(data)
            file.publish()
        finally:
            file.discard()
        self.sync()

    def publish(self, name: str, temporary: str) -> None:
        """Give a file its final name. ``sync`` makes the name durable."""
        self.require_regular(name)
        with translated(str(self.path / name), "put in place"):
            os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def take(self, source: "Folder", name: str) -> None:
        """Move a file here from another folder of the same disk, in place of one of its name; not yet durable.

        Raises:
            OutputError: the name is taken by a link, a folder or a device; or the system refuses.
        """
        self.require_regular(name)
        with translated(str(self.path / name), "put in place"):
            os.rename(name, name, src_dir_fd=source._fd, dst_dir_fd=self._fd)

    def make_folder(self, name: str) -> None:
        """Make a folder in this one, durably; nothing when there is one.

        Raises:
            OutputError: the name is taken by a link or a file; or the system refuses.
        """
        with translated(str(self.path / name), "made"):
            if self._stat(name) is None:
                os.mkdir(name, dir_fd=self._fd)
                os.fsync(self._fd)
            found = self._stat(name)
        if found is None or not stat.S_ISDIR(found.st_mode):
            raise OutputError(
                f"{self.path / name} is not a folder; it is left alone: remove it, and run again"
            )

    def size(self, name: str) -> int | None:
        """A regular file's size in bytes, None when there is none."""
        with translated(str(self.path / name), "looked at"):
            found = self._stat(name)
        return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else None

    def sync(self) -> None:
        """Make the folder's names durable."""
        with translated(str(self.path), "made durable"):
            os.fsync(self._fd)

    def names(self) -> list[str]:
        """The names of the regular files in the folder."""
        with translated(str(self.path), "listed"), os.scandir(self._fd) as entries:
            return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]

    def remove(self, name: str) -> None:
        """Delete a file, or a link and not what it points to; nothing when there is none."""
        with translated(str(self.path / name), "removed"):
            if self._stat(name) is not None:
                os.unlink(name, dir_fd=self._fd)

    def drop(self) -> None:
        """Remove the folder itself if it is empty."""
        with suppress(OSError):
            self.path.rmdir()

    def close(self) -> None:
        """Let go of the folder."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _stat(self, name: str) -> os.stat_result | None:
        """What the system tells of a name, without following it; None when there is no such file."""
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def require_regular(self, name: str) -> None:
        """Refuse a name that is taken by anything but a regular file.

        Raises:
            OutputError: it is a link, a folder or a device.
        """
        with translated(str(self.path / name), "looked at"):
            found = self._stat(name)
        if found is not None and not stat.S_ISREG(found.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a regular file"
            raise OutputError(
                f"{self.path / name} is {what}; it is left alone: remove it, or choose another output.path"
            )


@dataclass(frozen=True, slots=True)
class Kept:
    """The beginning of a file that stays: so many bytes, with this SHA-256."""

    bytes: int
    sha256: str

    def stands(self, path: Path) -> bool:
        """Whether a file begins with it."""
        try:
            with path.open("rb") as file:
                return bool(_hash(file, self.bytes).hexdigest() == self.sha256)
        except OSError:
            return False


def digest(path: Path) -> str | None:
    """The SHA-256 of a file; None where it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _hash(file: BinaryIO, count: int) -> Any:
    """The hash of the next so many bytes, or of what there is."""
    known = hashlib.sha256()
    while count > 0 and (data := file.read(min(count, _BUFFER))):
        known.update(data)
        count -= len(data)
    return known


class PendingFile(io.RawIOBase):
    """A file under its temporary name; counts and hashes what is written.

    After ``discard`` it takes writes and forgets them, as encoders that are given up still write their footers.

    Attributes:
        tag: what a store tells of the published file, which another content never has; None for a file here.
    """

    def __init__(self, folder: Folder, name: str, temporary: str, fd: int) -> None:
        self.name = name
        self.tag: str | None = None
        self._publish: Callable[[str, str], str | None] = folder.publish
        self.bytes = 0
        self._folder, self._temporary = folder, temporary
        self._file: BinaryIO | None = os.fdopen(fd, "wb", buffering=_BUFFER)
        self._hash = hashlib.sha256()
        self._published = False

    @property
    def sha256(self) -> str:
        """The hash of all that was written, in hexadecimal."""
        return self._hash.hexdigest()

    def published_by(self, publish: Callable[[str, str], str | None]) -> Self:
        """Have it published elsewhere than in its folder, by a call with its name and its temporary one."""
        self._publish = publish
        return self

    def writable(self) -> bool:
        """Always true, as files here are written only."""
        return True

    def write(self, data: Any, /) -> int:
        """Write all of the data, or raise an ``OutputError``."""
        view = memoryview(data).cast("B")
        if self._file is not None:
            with self._translated():
                self._file.write(view)
            self._hash.update(view)
            self.bytes += len(view)
        return len(view)

    def push(self) -> None:
        """Hand what was written to the system, so that it outlives this process."""
        if self._file is not None:
            with self._translated():
                self._file.flush()

    def keep(self, fd: int, kept: Kept) -> bool:
        """Begin after what stays of an earlier file; whether it is there."""
        with self._translated(), os.fdopen(os.dup(fd), "rb") as file:
            self._hash = _hash(file, kept.bytes)
            if self.sha256 != kept.sha256:
                return False
            os.ftruncate(fd, kept.bytes)
            os.lseek(fd, kept.bytes, os.SEEK_SET)
        self.bytes = kept.bytes
        return True

    def mark(self) -> Kept:
        """Make durable what was written so far, and tell it."""
        assert self._file is not None
        with self._translated():
            self._file.flush()
            os.fsync(self._file.fileno())
        return Kept(self.bytes, self.sha256)

    def publish(self) -> None:
        """Make the contents durable and give the file its final name; the folder is still to be synced."""
        self.mark()
        self.leave()
        self.tag = self._publish(self.name, self._temporary)
        self._published = True

    def leave(self) -> None:
        """Write no more, and leave the file as it is."""
        if self._file is not None:
            # Closing the buffer would write what it holds, which may be what failed.
            cast(io.BufferedWriter, self._file).raw.close()
            self._file = None

    def discard(self) -> None:
        """Give the file up and remove it, unless it is published."""
        self.leave()
        if not self._published:
            self._folder.remove(self._temporary)

    def _translated(self) -> AbstractContextManager[None]:
        return translated(str(self._folder.path / self.name), "written")
