"""Publishes finished files in a store (S3 and the like), each whole or not at all, though stores know no rename.

A file is written to a folder here, sent as one object under a temporary name, compared with what was written, and only
then given its name by the store's own copy, which is whole or isn't there. Nothing is ever streamed into an object: a
stream that an exception ends publishes what it holds, and half a Parquet file may well be a valid one.
"""

import base64
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from batchrank.errors import BatchrankError, MissingExtraError, OutputError
from batchrank.io import storage
from batchrank.io.address import Address
from batchrank.io.atomic import Folder, Kept, PendingFile
from batchrank.io.patience import patiently, said

_MD5 = re.compile(r"[0-9a-f]{32}")
_ADVICE = (
    "create the bucket or correct output.path (its region: ?region=eu-central-1), or let these credentials list, get, "
    "put and delete objects there, and run again"
)


def _sent(name: str) -> str:
    """What an object is called until it is known to be whole; as files here are."""
    return f".{name}.tmp"


@contextmanager
def _translated(address: Address, doing: str) -> Iterator[None]:
    """Raise an ``OutputError`` that names the object where the store, or the way to it, refuses."""
    try:
        with storage.as_os_error():
            yield
    except (MissingExtraError, OutputError):
        raise  # one that the store is away too
    except BatchrankError as error:
        raise OutputError(f"output.path: {error}") from error
    except OSError as error:
        unable = isinstance(error.__cause__, NotImplementedError)
        reason = "nothing can be written to such addresses" if unable else said(error)
        raise OutputError(f"{address} can't be {doing}: {reason}; {_ADVICE}") from error


@dataclass(frozen=True, slots=True)
class Held:
    """What a store tells of an object: its size in bytes, and its tag, which another content never has."""

    size: int
    tag: str | None
    md5: str | None


class Store:
    """A folder in a store. It opens nothing until it is asked to do something.

    Args:
        path: its address.
        staging: where files are until they are sent; None where none is written.

    Raises:
        OutputError: from every method: the store refuses, or can't be reached.
        StoreAwayError: likewise, in a run: it has failed for too long.
        MissingExtraError: likewise: the address needs a library that isn't installed.
    """

    def __init__(self, path: Address, staging: Path | None = None) -> None:
        self.path = path
        self._staged = None if staging is None else Folder(staging)

    def create(self, name: str, temporary: str | None = None) -> PendingFile:
        """Start a file here that will be sent and called ``name``."""
        assert self._staged is not None
        return self._staged.create(name, temporary).published_by(self.publish)

    def reopen(self, name: str, temporary: str, kept: Kept) -> PendingFile:
        """Go on with a file that is still here, after the beginning that is to stay."""
        assert self._staged is not None
        return self._staged.reopen(name, temporary, kept).published_by(self.publish)

    def publish(self, name: str, temporary: str) -> str | None:
        """Send a finished file, and remove it here; the tag that its object has."""
        import pyarrow as pa

        assert self._staged is not None
        local = self._staged.path / temporary
        with _translated(self.path / name, "written"):
            if local.stat().st_size:
                with pa.memory_map(str(local)) as file:
                    tag = self.put(name, file.read_buffer())
            else:
                tag = self.put(name, b"")
        self._staged.remove(temporary)
        return tag

    def put(self, name: str, data: Any) -> str | None:
        """Put an object in place, by the steps that the module tells; the tag that it has."""
        return patiently(partial(self._put, name, data, self.path / name))

    def _put(self, name: str, data: Any, told: Address) -> str | None:
        sent, final, size = _sent(name), self.path / name, len(memoryview(data))
        with _translated(told, "written"):
            system, inner = self._system(sent)
            # One call with all of it: what fails in it leaves nothing that closing the stream could publish.
            stream = system.open_output_stream(inner, compression=None)
            stream.write(data)
            stream.close()
            self._compare(sent, data, size)
            self._rename(self.path / sent, final)
            return self._compare(name, data, size).tag

    def held(self, name: str) -> Held:
        """What the store tells of an object.

        Raises:
            FileNotFoundError: there is none.
        """
        system, inner = self._system(name)
        with storage.as_os_error():
            if system.type_name.startswith("py::"):
                files = system.handler.fs
                files.invalidate_cache()
                told = dict(files.info(inner))
                size = int(told["size"])
            else:
                with system.open_input_file(inner) as file:
                    told, size = dict(file.metadata() or {}), file.size()
        known = {key.lower(): v.decode() if isinstance(v, bytes) else str(v) for key, v in told.items() if v}
        tag = (known.get("etag") or known.get("md5hash") or "").strip('"') or None
        md5 = base64.b64decode(known["md5hash"]).hex() if "md5hash" in known else tag
        return Held(size, tag, md5 if md5 and _MD5.fullmatch(md5) else None)

    def names(self) -> list[str]:
        """The names of the objects right below it."""
        with _translated(self.path, "listed"):
            return [found.name for found in self.path.iterdir()]  # which waits by itself

    def size(self, name: str) -> int | None:
        """An object's size in bytes, None when there is none."""
        return patiently(partial(self._size, name))

    def _size(self, name: str) -> int | None:
        with _translated(self.path / name, "looked at"):
            try:
                return self.held(name).size
            except FileNotFoundError:
                return None

    def remove(self, name: str) -> None:
        """Delete an object; nothing when there is none."""
        patiently(partial(self._remove, name))

    def _remove(self, name: str) -> None:
        with _translated(self.path / name, "removed"), suppress(FileNotFoundError):
            system, inner = self._system(name)
            system.delete_file(inner)

    def take(self, source: "Store", name: str) -> None:
        """Move an object here from another folder of the store, in place of one of its name."""
        patiently(partial(self._take, source, name))

    def _take(self, source: "Store", name: str) -> None:
        with _translated(self.path / name, "put in place"):
            self._rename(source.path / name, self.path / name)

    def require_regular(self, name: str) -> None:
        """Nothing stands in an object's way."""

    def sync(self) -> None:
        """What a store has said to have is durable."""

    def drop(self) -> None:
        """Remove what stands for the folder itself, unless something is in it."""
        if not self.names() and self.path.is_dir():
            patiently(self._drop)

    def _drop(self) -> None:
        with _translated(self.path, "removed"):
            system, inner = storage.filesystem(self.path.writable)
            system.delete_dir(inner)

    def close(self) -> None:
        """Let go of the folder here."""
        if self._staged is not None:
            self._staged.close()

    def probe(self) -> None:
        """See that objects can be written, read, listed and removed here; none is left."""
        name = f".batchrank-probe-{uuid4().hex}"
        with _translated(self.path, "written"):
            storage.filesystem(self.path.writable)
        try:
            self._put(
                name, b"batchrank looks whether it can write here; this file can be removed\n", self.path
            )
            found = self.names()
        finally:
            with suppress(OutputError):
                self.remove(_sent(name))
        self.remove(name)
        if name not in found:
            raise OutputError(f"{self.path}: an object that was just put isn't listed; {_ADVICE}")

    def _system(self, name: str) -> tuple[Any, str]:
        system, inner = storage.filesystem((self.path / name).writable)
        return system, inner

    def _rename(self, source: Address, target: Address) -> None:
        system, before = storage.filesystem(source.writable)
        _, after = storage.filesystem(target.writable)
        try:
            system.move(before, after)
        except NotImplementedError:
            system.copy_file(before, after)
            system.delete_file(before)

    def _compare(self, name: str, data: Any, size: int) -> Held:
        """What the store tells of an object that was just put, if it is what was sent; otherwise it is removed.

        Where its checksum is another one, as an encrypted object's may be, the object itself is read.
        """
        found = self.held(name)
        same = found.size == size
        if same and found.md5 is not None:
            known = hashlib.md5(data, usedforsecurity=False).hexdigest()
            same = found.md5 == known or sha256(self.path / name) == hashlib.sha256(data).hexdigest()
        if not same:
            self.remove(name)
            raise OutputError(
                f"{self.path / name}: the store holds {found.size:,} bytes, which are not the {size:,} that were sent; "
                "they are removed: run again"
            )
        return found


def sha256(path: Address) -> str:
    """The hash of an object, which is read for it.

    Raises:
        OSError: it can't be read.
    """
    with path.open() as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def unchanged(path: Address, size: int, known: str, tag: str | None) -> bool:
    """Whether an object is still what was written; it is read only where its tag is another one than then.

    Args:
        path: the object.
        size: its size in bytes.
        known: its SHA-256.
        tag: the tag that it had when it was put.
    """
    try:
        found = Store(path.parent).held(path.name)
        return found.size == size and ((tag is not None and found.tag == tag) or sha256(path) == known)
    except FileNotFoundError:
        return False
