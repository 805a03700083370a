"""Names what an output in a store holds, with as much of ``pathlib.Path``'s interface as outputs need.

So what reads or names an output is written once, for folders here and for addresses such as ``s3://bucket/nightly``.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

from batchrank.io import storage
from batchrank.io.patience import patiently

_SMALL_AT_ONCE = "allow_delayed_open=true"
"""Has pyarrow send a small S3 object by one request instead of three, which also leaves nothing behind when killed."""


class Address:
    """A file or a folder in a store.

    Its text is for people and for keys of the ledger, without the options that may follow a question mark;
    ``os.fspath`` gives all of it, for whoever opens it.
    """

    def __init__(self, path: str) -> None:
        base, mark, options = path.partition("?")
        self._base, self._options = base.rstrip("/"), mark + options

    def __str__(self) -> str:
        return self._base

    def __repr__(self) -> str:
        return f"Address({self._base!r})"

    def __fspath__(self) -> str:
        return self._base + self._options

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and self._base == other._base

    def __hash__(self) -> int:
        return hash(self._base)

    def __truediv__(self, name: str) -> "Address":
        return Address(f"{self._base}/{name}{self._options}")

    @property
    def name(self) -> str:
        """The last part."""
        return self._base.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The end of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "Address":
        """The folder in which it is."""
        return Address(self._base.rpartition("/")[0] + self._options)

    @property
    def writable(self) -> str:
        """The whole address with what makes writing to this kind of store sparing."""
        if not self._base.startswith("s3://") or "allow_delayed_open" in self._options:
            return self.__fspath__()
        return f"{self._base}{self._options}{'&' if self._options else '?'}{_SMALL_AT_ONCE}"

    @property
    def folder_name(self) -> str:
        """A name for a folder here that belongs to it: readable, and another one for each address."""
        words = re.sub(r"[^A-Za-z0-9.]+", "-", self._base).strip("-.")[:80]
        return f"{words}-{hashlib.sha256(self._base.encode()).hexdigest()[:8]}"

    def absolute(self) -> "Address":
        """Itself."""
        return self

    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        return patiently(partial(storage.exists, self.__fspath__()))

    def is_dir(self) -> bool:
        """Whether there is anything below it."""
        return patiently(partial(storage.is_folder, self.__fspath__()))

    def is_symlink(self) -> bool:
        """Never: stores have no links."""
        return False

    def iterdir(self) -> Iterator["Address"]:
        """The files right below it."""
        return map(Address, patiently(partial(storage.entries, self.__fspath__())))

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open it for reading.

        Raises:
            OSError: it can't be opened.
        """
        assert mode == "rb"
        return storage.open_stream(self.__fspath__())

    def read_bytes(self) -> bytes:
        """All that is in it.

        Raises:
            OSError: it can't be read.
        """

        def read() -> bytes:
            with self.open() as file:
                return file.read()

        return patiently(read)


Where: TypeAlias = Path | Address
"""Where an output, or a file of it, is."""


def located(path: str | Path | Address) -> Where:
    """Where a path or an address leads."""
    if isinstance(path, Address):
        return path
    if isinstance(path, str) and storage.is_remote(path):
        return Address(path)
    return Path(os.path.expanduser(path))  # noqa: PTH111 pathlib raises where there is no home
