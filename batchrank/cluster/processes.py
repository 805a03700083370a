"""Starts processes on this machine, each with one end of a socket pair: no port, no file, and nobody else is let in."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import anyio.to_thread

from batchrank.cluster.channel import BUFFER, Channel, Handler
from batchrank.cluster.messages import Standing
from batchrank.cluster.queue import Hands
from batchrank.errors import RunStoppedError

Spawn: TypeAlias = Callable[..., object]
"""Starts a task for a call: it takes the function, the call's number, its name and its values."""
_PATIENCE = 5.0
"""Seconds for a process to end by itself once it was told that there is no more, before it is killed."""


class NotStartedError(RunStoppedError):
    """Raised when a process could not be started; it may be worth another try."""


class Process(Protocol):
    """A process of the crew."""

    async def fate(self) -> str:
        """How it ended, for messages."""


@dataclass(slots=True, eq=False)
class Member:
    """A process that ranks.

    Attributes:
        process: the process.
        channel: what it is talked to by.
        hands: what it has to rank.
        standing: how far it has come, as it told last.
        ended: whether it has said that it is done.
        heard: when it said something last.
    """

    process: Process
    channel: Channel
    hands: Hands = field(default_factory=Hands)
    standing: Standing = field(default_factory=Standing)
    ended: bool = False
    heard: float = 0.0


class Starter(Protocol):
    """What starts processes."""

    def start(
        self, role: str, handlers: Mapping[str, Handler], spawn: Spawn
    ) -> AbstractAsyncContextManager[tuple[Process, Channel]]:
        """A process for a role, ``reader`` or ``ranker``, for as long as the block lasts.

        Args:
            role: what it is to do.
            handlers: what it may call.
            spawn: starts a task for each call.

        Raises:
            NotStartedError: it could not be started.
        """


class LocalProcess:
    """A child process."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self.child = child

    async def fate(self) -> str:
        """How it ended."""
        code = self.child.poll()
        if code is None:
            return "it closed its connection"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """Wait a little for its end, then bring it about."""
        try:
            self.child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class LocalStarter:
    """Starts child processes of this one; they end when it does, even if it is killed.

    Args:
        hidden: environment variables that they don't get, as they hold what only this process needs.
    """

    def __init__(self, hidden: Collection[str] = ()) -> None:
        self._hidden = hidden

    @asynccontextmanager
    async def start(
        self, role: str, handlers: Mapping[str, Handler], spawn: Spawn
    ) -> AsyncIterator[tuple[Process, Channel]]:
        """A child process for a role, as ``Starter`` tells."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", "batchrank.cluster.child", role, str(theirs.fileno())]
            child = subprocess.Popen(  # noqa: S603, ASYNC220 our own module; starting it takes a millisecond
                command,
                pass_fds=[theirs.fileno()],
                stdin=None if role == "reader" else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                process_group=0,  # so that Ctrl-C comes to this process alone, which says what is to be done
                env=self._environment(),
            )
        process = LocalProcess(child)
        try:
            reader, writer = await asyncio.open_connection(sock=ours, limit=BUFFER)
            channel = Channel(reader, writer, handlers, spawn)
            try:
                yield process, channel
            finally:
                channel.close()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(process.end)

    def _environment(self) -> dict[str, str]:
        """This process's own, and what Python was told to find modules by."""
        kept = {name: value for name, value in os.environ.items() if name not in self._hidden}
        return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
