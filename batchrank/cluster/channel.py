"""Lets two processes of one run call each other's functions, over a socket that nobody else is let in to.

What is said goes as frames: a length, and a pickled list of messages. Messages that come up in one turn of the event
loop share a frame, so that the number of system calls adapts to the load by itself. Pickle is safe here because both
ends are this program: a socket pair that a child process inherits, or an address of which the other end has proved by a
secret that it was told of it, before anything is unpickled.
"""

import asyncio
import hmac
import pickle
import secrets
import struct
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from batchrank.errors import BatchrankError

Handler: TypeAlias = Callable[..., Awaitable[Any]]
_LENGTH: Final = struct.Struct(">Q")
BUFFER: Final = 2**22
"""Bytes that are read ahead, which is room for some dozens of requests."""
TOKEN_BYTES = 32
"""The length of the secret by which a process proves that it was told of the address."""
_GREETING = 10.0
"""Seconds in which it has to."""


class ChannelClosedError(ConnectionError):
    """Raised in who waits for a result when the other process is gone."""


class Channel:
    """One end. ``serve`` it for as long as the other end is there.

    Attributes:
        closed: whether the other end is gone.

    Args:
        reader: what comes in.
        writer: what goes out.
        handlers: what the other end may call, by name; None where ``know`` will tell, for which calls wait. Each call
            is a task of ``start``'s, so that a call whose caller dies still comes to its end: an answer that is being
            paid for is kept.
        start: starts such a task.
        lost: called when the other end is gone, before whoever waits for it is told.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handlers: Mapping[str, Handler] | None,
        start: Callable[..., object],
        lost: Callable[[], object] = lambda: None,
    ) -> None:
        self._lost = lost
        self._reader = reader
        self._writer = writer
        self._handlers: Mapping[str, Handler] = {}
        self._known = asyncio.Event()
        self._start = start
        self._out: list[tuple[Any, ...]] = []
        self._wake = asyncio.Event()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self.closed = False
        if handlers is not None:
            self.know(handlers)

    @property
    def machine(self) -> str:
        """The address of the machine that the other end is on; empty for this one."""
        peer = self._writer.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    def know(self, handlers: Mapping[str, Handler]) -> None:
        """Learn what the other end may call; what it has called already is done now."""
        self._handlers = handlers
        self._known.set()

    async def call(self, name: str, *values: Any) -> Any:
        """What the other end's handler returns.

        Raises:
            BatchrankError: what it raised.
            ChannelClosedError: the other end is gone.
        """
        if self.closed:
            raise ChannelClosedError(name)
        self._number += 1
        number = self._number
        future = self._calls[number] = asyncio.get_running_loop().create_future()
        self._say((number, name, values))
        try:
            return await future
        finally:
            self._calls.pop(number, None)

    def tell(self, name: str, *values: Any) -> None:
        """Call a handler whose result nobody needs."""
        if not self.closed:
            self._say((0, name, values))

    async def serve(self) -> None:
        """Take what comes until the other end is gone, or until cancelled."""
        writing = asyncio.create_task(self._write())
        try:
            while True:
                size = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))[0]
                for message in pickle.loads(await self._reader.readexactly(size)):  # noqa: S301 our own end
                    self._take(*message)
        except (asyncio.IncompleteReadError, OSError):
            self._lost()
        finally:
            self.close()
            writing.cancel()
            await asyncio.wait([writing])

    def close(self) -> None:
        """Close this end; whoever waits for the other one is told."""
        self.closed = True
        self._wake.set()
        self._writer.close()
        for future in self._calls.values():
            if not future.done():
                future.set_exception(ChannelClosedError("the other process is gone"))
                future.exception()  # told; whoever waits gets it all the same
        self._calls.clear()

    def _say(self, message: tuple[Any, ...]) -> None:
        self._out.append(message)
        self._wake.set()

    async def _write(self) -> None:
        try:
            while not self.closed:
                await self._wake.wait()
                await asyncio.sleep(0)  # what else this turn of the loop brings goes along
                self._wake.clear()
                messages, self._out = self._out, []
                data = pickle.dumps(messages, pickle.HIGHEST_PROTOCOL)
                self._writer.write(_LENGTH.pack(len(data)) + data)  # in one, as each write is a system call
                await self._writer.drain()
        except OSError:
            self._reader.feed_eof()

    def _take(self, number: int, name: str | None, value: Any) -> None:
        """A call, one that wants no result (number 0), or the result of a call of ours (no name)."""
        if name is not None:
            self._start(self._handle, number, name, value)
            return
        future = self._calls.pop(number, None)
        if future is None or future.done():
            return
        result, error = value
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    async def _handle(self, number: int, name: str, values: tuple[Any, ...]) -> None:
        await self._known.wait()
        try:
            result: tuple[Any, BatchrankError | None] = await self._handlers[name](*values), None
        except BatchrankError as error:
            result = None, error
        if number and not self.closed:
            self._say((number, None, result))


def token() -> bytes:
    """A secret for one run."""
    return secrets.token_bytes(TOKEN_BYTES)


async def welcome(reader: asyncio.StreamReader, secrets: Iterable[bytes]) -> bytes | None:
    """The one of several secrets that who connects knows, None for none; nothing else that it sends has been read."""
    try:
        async with asyncio.timeout(_GREETING):
            said = await reader.readexactly(TOKEN_BYTES)
    except (TimeoutError, asyncio.IncompleteReadError, OSError):
        return None
    return next((secret for secret in list(secrets) if hmac.compare_digest(said, secret)), None)
