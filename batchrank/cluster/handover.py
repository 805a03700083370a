"""Carries parts to and from processes on other machines, which share no folder with the one that the user started.

What goes to them is what the reader laid out; what comes back are finished files, which that one puts in place itself.
"""

from dataclasses import replace
from pathlib import Path

import anyio.to_thread

from batchrank.cluster.channel import Channel, Handler
from batchrank.cluster.stage import StagedPart
from batchrank.errors import OutputError
from batchrank.io.address import Where
from batchrank.io.atomic import PendingFile
from batchrank.pipeline.checkpoint import Checkpoint
from batchrank.write.destination import Destination, opened

_PIECE = 4 * 2**20
"""Bytes that are carried at a time, so that answers are not held up by a part."""


async def fetch(channel: Channel, part: StagedPart, folder: Path) -> StagedPart:
    """A part with its items in a folder of this machine, from where the caller removes them."""
    path, at = folder / part.path.name, 0
    with path.open("wb") as file:
        while piece := await channel.call("content", part.number, at):
            await anyio.to_thread.run_sync(file.write, piece)
            at += len(piece)
    return replace(part, path=path)


async def hand_over(channel: Channel, checkpoint: Checkpoint, folder: Path) -> None:
    """Give the files of a finished part to the process that puts them in place, and remove them here.

    Raises:
        OutputError: that can't, or they didn't arrive as they were written.
    """
    for name, digest in checkpoint.digests.items():
        path = folder / name
        with await anyio.to_thread.run_sync(path.open, "rb") as file:
            first = True
            while piece := await anyio.to_thread.run_sync(file.read, _PIECE):
                await channel.call("file", name, piece, first)
                first = False
        if (tag := await channel.call("placed", name, digest)) is not None:
            checkpoint.tags[name] = tag
        await anyio.to_thread.run_sync(path.unlink)


class Depot:
    """The other end, for one process that ranks elsewhere.

    A call of one that dies may be served when it was given up already. Nothing of it is written then: another process
    has its parts, and writes files of the same names.

    Args:
        folder: where finished files are put in place.
        parts: the parts that the process has, by number.
        staging: where they are written before, if the folder is an address.
    """

    def __init__(self, folder: Where, parts: dict[int, StagedPart], staging: Path | None = None) -> None:
        self._folder, self._staging = folder, staging
        self._parts = parts
        self._open: dict[str, PendingFile] = {}
        self._held: Destination | None = None
        self._turn = anyio.Lock()
        self._closed = False

    def handlers(self) -> dict[str, Handler]:
        """What the process may call."""
        return {"content": self._content, "file": self._file, "placed": self._placed}

    async def _content(self, number: int, at: int) -> bytes:
        def read() -> bytes:
            with self._parts[number].path.open("rb") as file:
                file.seek(at)
                return file.read(_PIECE)

        return await anyio.to_thread.run_sync(read)

    async def _file(self, name: str, piece: bytes, first: bool) -> None:
        def write() -> None:
            if self._held is None:
                self._held = opened(self._folder, self._staging)
            if first:
                self._open[name] = self._held.create(name)
            self._open[name].write(piece)

        async with self._turn:
            if not self._closed:
                await anyio.to_thread.run_sync(write)

    async def _placed(self, name: str, digest: str) -> str | None:
        def place() -> str | None:
            assert self._held is not None
            file = self._open.pop(name)
            if file.sha256 != digest:
                file.discard()
                raise OutputError(
                    f"{self._folder / name} did not arrive from another machine as it was written there; run the "
                    "job again: it goes on where it stopped"
                )
            file.publish()
            self._held.sync()
            return file.tag

        async with self._turn:
            return None if self._closed else await anyio.to_thread.run_sync(place)

    async def close(self) -> None:
        """Give up what has not arrived as a whole, once what is being written is."""
        with anyio.CancelScope(shield=True):
            async with self._turn:
                self._closed = True
                for file in self._open.values():
                    file.discard()
                if self._held is not None:
                    self._held.close()
