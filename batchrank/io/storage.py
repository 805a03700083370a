"""Reaches files here and elsewhere alike: by a local path, or an address such as ``s3://bucket/folder/file.parquet``.

s3, gs, abfs and hdfs are pyarrow's own; every other scheme (hf, http, memory, ...) is fsspec's. Credentials and
endpoints come from where those libraries look for them: the environment and their configuration files.
"""

import fnmatch
import glob
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

from batchrank.errors import BatchrankError, InputError, MissingExtraError, install_line

BUFFER = 1 << 20
"""1 MiB: remote storage answers few large requests faster than many small ones."""
_NATIVE = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs")
_MAGIC = re.compile(r"[*\[]")
_ANY_DEPTH = 100
"""More levels of folders than any data set has."""


NAMED = "ir_datasets://"
"""What the address of a dataset begins with that ir_datasets knows by name."""
_SHORT = {"beir:": f"{NAMED}beir/", "ir_datasets:": NAMED}


def address_of(path: str) -> str:
    """A path; a dataset's name (``beir:scifact``, ``ir_datasets:vaswani``) as the address that it stands for."""
    short = next((short for short in _SHORT if path.startswith(short) and "://" not in path), None)
    return path if short is None else _SHORT[short] + path.removeprefix(short)


def is_remote(path: str) -> bool:
    """Whether a path is an address."""
    return "://" in path


def shown(path: str) -> str:
    """A path as messages show it: an address without what follows a question mark."""
    return (
        path.partition("?")[0] if is_remote(path) else os.fsencode(path).decode("utf-8", "backslashreplace")
    )


def open_stream(path: str) -> io.BufferedReader:
    """Open a file for reading from its start to its end.

    Raises:
        OSError: it can't be opened.
        MissingExtraError: the address needs a library that isn't installed.
    """
    if not is_remote(path):
        return io.BufferedReader(io.FileIO(path), BUFFER)
    system, inner = _resolve(path)
    with as_os_error():
        stream = system.open_input_stream(inner, compression=None)
    return io.BufferedReader(cast(io.RawIOBase, _Remote(stream)), BUFFER)


def filesystem(path: str) -> tuple[Any, str]:
    """Return pyarrow's filesystem for a path and the path within it; None as filesystem for this machine's."""
    return _resolve(path) if is_remote(path) else (None, path)


def stamp(path: str) -> tuple[int, int]:
    """A file's size in bytes and the time of its last change in nanoseconds, 0 where unknown.

    Raises:
        OSError: there is no such file.
    """
    if not is_remote(path):
        stat = Path(path).stat()
        return stat.st_size, stat.st_mtime_ns
    info = _info(path)
    if not info.is_file:
        raise FileNotFoundError(f"there is no {shown(path)}")
    return info.size or 0, info.mtime_ns or 0


def is_file(path: str) -> bool:
    """Whether there is such a file."""
    return bool(_info(path).is_file) if is_remote(path) else Path(path).is_file()


def is_folder(path: str) -> bool:
    """Whether there is such a folder."""
    return _is_folder(_info(path)) if is_remote(path) else Path(path).is_dir()


def exists(path: str) -> bool:
    """Whether there is anything of that name: a file, a folder, a pipe."""
    return is_file(path) or is_folder(path) if is_remote(path) else Path(path).exists()


def has_magic(path: str) -> bool:
    """Whether a path is a pattern; in addresses ``?`` begins their options, so only ``*`` and ``[`` count."""
    return bool(_MAGIC.search(path.partition("?")[0])) if is_remote(path) else glob.has_magic(path)


def matches(pattern: str) -> list[str]:
    """The files and folders that a pattern matches, sorted; ``**`` is any number of folders."""
    if not is_remote(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    address, mark, options = pattern.partition("?")
    fixed = _MAGIC.split(address)[0].rpartition("/")[0]
    depth = address.removeprefix(fixed).count("/")
    found = _below(fixed + mark + options, _ANY_DEPTH if "**" in address else depth)
    parts = address.split("/")
    return sorted(p for p in found if _fits(p.partition("?")[0].rstrip("/").split("/"), parts))


def entries(folder: str, depth: int = 1) -> list[str]:
    """The paths of the files in a folder and, with a depth above 1, in folders below it, sorted."""
    if is_remote(folder):
        return sorted(p for p in _below(folder, depth) if not p.partition("?")[0].endswith("/"))
    return sorted(str(p) for p in _local(Path(folder), depth))


def subfolders(folder: str) -> list[str]:
    """The paths of the folders in a folder, sorted."""
    if is_remote(folder):
        found = [p.partition("?") for p in _below(folder, 1)]
        return sorted(a.rstrip("/") + mark + options for a, mark, options in found if a.endswith("/"))
    return sorted(str(p) for p in Path(folder).iterdir() if p.is_dir())


def parent(path: str) -> str:
    """The folder in which a file or folder is; empty where there is none."""
    if not is_remote(path):
        above = str(Path(path).absolute().parent)
        return "" if above == str(Path(path).absolute()) else above
    address, mark, options = path.partition("?")
    above = address.rstrip("/").rpartition("/")[0]
    return "" if above.endswith((":/", ":")) else above + mark + options


def join(folder: str, name: str) -> str:
    """The path of a file in a folder."""
    if not is_remote(folder):
        return str(Path(folder) / name)
    address, mark, options = folder.partition("?")
    return f"{address.rstrip('/')}/{name}{mark}{options}"


def relative(path: str, folder: str) -> str:
    """The path of a file below a folder, as seen from the folder, with slashes."""
    if not is_remote(folder):
        return Path(path).relative_to(folder).as_posix()
    return path.partition("?")[0].removeprefix(folder.partition("?")[0].rstrip("/") + "/")


def _local(folder: Path, depth: int) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_file():
            yield entry
        elif depth > 1 and entry.is_dir() and not entry.name.startswith("."):
            yield from _local(entry, depth - 1)


def _below(folder: str, depth: int) -> Iterator[str]:
    """What is below a remote folder as addresses; those of folders end in a slash."""
    from pyarrow import fs

    system, inner = _resolve(folder)
    address, mark, options = folder.partition("?")
    try:
        with as_os_error():
            found = system.get_file_info(fs.FileSelector(inner, recursive=False, allow_not_found=True))
    except OSError as error:
        raise InputError(f"{address} can't be listed: {error}; correct the path or the access") from error
    for info in found:
        here = f"{address.rstrip('/')}/{info.base_name}"
        yield f"{here}{'/' if _is_folder(info) else ''}{mark}{options}"
        if _is_folder(info) and depth > 1:
            yield from _below(f"{here}{mark}{options}", depth - 1)


def _fits(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _is_folder(info: Any) -> bool:
    return bool(info.type.name == "Directory")


def _info(path: str) -> Any:
    system, inner = _resolve(path)
    try:
        with as_os_error():
            return system.get_file_info(inner)
    except OSError as error:
        raise InputError(
            f"{shown(path)} can't be reached: {error}; correct the path or the access"
        ) from error


@lru_cache(maxsize=256)
def _resolve(path: str) -> tuple[Any, str]:
    """The filesystem and the path within it.

    Raises:
        MissingExtraError: the scheme needs a library that isn't installed.
        InputError: no library knows the scheme.
    """
    # Its store libraries take a while to load, and most jobs need none of them.
    import pyarrow as pa
    from pyarrow import fs

    scheme = urlsplit(path).scheme
    if scheme in _NATIVE:
        try:
            address, mark, options = path.partition("?")
            system, inner = fs.FileSystem.from_uri(quote(address, safe="/:@") + mark + options)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{shown(path)} can't be reached: {error}; correct the address") from error
        return system, inner
    try:
        from fsspec.core import url_to_fs

        inner_system, inner = url_to_fs(path)
    except ImportError as error:
        raise MissingExtraError(
            f"{scheme}:// needs more than is installed ({error}): {install_line('remote')}"
        ) from None
    except ValueError as error:
        raise InputError(f"{shown(path)}: {error}; correct the path") from None
    return fs.PyFileSystem(fs.FSSpecHandler(inner_system)), inner


@contextmanager
def as_os_error() -> Iterator[None]:
    """Raise whatever a store's library raises as what a file here would: each has errors of its own."""
    try:
        yield
    except (OSError, BatchrankError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


class _Remote(io.RawIOBase):
    """A stream of pyarrow's as Python's buffered readers want it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        with as_os_error():
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._read += len(data)
        return len(data)

    def tell(self) -> int:
        return self._read

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
