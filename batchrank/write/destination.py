"""Opens the place where an output's files are published: a folder here, or one in a store."""

from pathlib import Path
from typing import Any, Protocol

from batchrank.io.address import Address, Where, located
from batchrank.io.atomic import Folder, Kept, PendingFile, digest
from batchrank.io.objects import Store, unchanged


class Destination(Protocol):
    """Where files are published under their names, each whole or not at all.

    Raises:
        OutputError: from every method: it can't be used.
    """

    def create(self, name: str, temporary: str | None = None) -> PendingFile:
        """Start a file that ``PendingFile.publish`` gives its name."""

    def reopen(self, name: str, temporary: str, kept: Kept) -> PendingFile:
        """Go on with a file that has no name yet, after the beginning that is to stay."""

    def put(self, name: str, data: bytes) -> str | None:
        """Publish a small file."""

    def names(self) -> list[str]:
        """The files in it."""

    def size(self, name: str) -> int | None:
        """A file's size in bytes, None when there is none."""

    def remove(self, name: str) -> None:
        """Delete a file; nothing when there is none."""

    def take(self, source: Any, name: str) -> None:
        """Move a file here from another folder of the same kind, in place of one of its name."""

    def require_regular(self, name: str) -> None:
        """Refuse a name at which no file can be put."""

    def sync(self) -> None:
        """Make the names durable."""

    def drop(self) -> None:
        """Remove the folder itself, unless something is in it."""

    def close(self) -> None:
        """Let go of it."""


def opened(where: str | Where, staging: Path | None = None) -> Destination:
    """The destination at a path or an address; a folder here is made where it is missing.

    Args:
        where: the folder.
        staging: the folder here in which files are written before they are sent to an address.

    Raises:
        OutputError: it can't be used.
    """
    found = located(where)
    return Store(found, staging) if isinstance(found, Address) else Folder(found)


def stands(path: Where, size: int, sha256: str, tag: str | None) -> bool:
    """Whether a published file is still what was written, as ``PendingFile`` told of it."""
    return unchanged(path, size, sha256, tag) if isinstance(path, Address) else digest(path) == sha256
