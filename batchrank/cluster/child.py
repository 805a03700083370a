"""Runs in each process of a crew: connects to the one that the user started, and does what that says."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio

from batchrank.cluster.channel import BUFFER, Channel
from batchrank.errors import BatchrankError
from batchrank.pipeline.workers import settle_process

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that often go to all processes of a job; the one that the user started says what follows from them."""


class _Told(logging.Handler):
    """Tells what is logged to the process that the user started, which has the log."""

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._channel, self._loop = channel, loop

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(
                self._channel.tell, "log", record.name, record.levelno, record.getMessage()
            )


async def serve(
    role: str, connect: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
) -> None:
    """Do what a role asks for until that is done; the process ends at once when the one that it serves is gone.

    Args:
        role: ``reader`` or ``ranker``.
        connect: connects to the other process.
    """
    from batchrank.cluster.messages import versions
    from batchrank.cluster.rank import rank
    from batchrank.cluster.stage import stage

    reader, writer = await connect()
    async with anyio.create_task_group() as group:
        ended = False

        def end_with_it() -> None:
            if not ended:
                os._exit(0)  # a thread may be in the midst of something that nobody wants any more

        channel = Channel(reader, writer, None, group.start_soon, end_with_it)
        logger = logging.getLogger("batchrank")
        logger.addHandler(_Told(channel, asyncio.get_running_loop()))
        logger.propagate = False
        group.start_soon(channel.serve)
        try:
            terms = await channel.call("hello", versions())
        except BatchrankError:
            os._exit(0)  # this process can't take part, and the other end says why
        logger.setLevel(terms.level)
        if role == "reader":
            try:
                await stage(channel, terms)
            except BatchrankError as error:
                await channel.call("staged", None, 0.0, error)
        else:
            await channel.call("ended", await rank(channel, terms))
        ended = True
        channel.close()
        group.cancel_scope.cancel()


def run(
    role: str, connect: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
) -> None:
    """Serve in an event loop of this process's own, as ``serve`` tells."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    settle_process()
    options: dict[str, bool] = {}
    with suppress(ImportError):
        import uvloop  # noqa: F401 only to see whether it is there

        options["use_uvloop"] = True
    anyio.run(serve, role, connect, backend_options=options)


def main(role: str, descriptor: int) -> None:
    """Serve over a socket that this process inherited."""
    end = socket.socket(fileno=descriptor)

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(sock=end, limit=BUFFER)

    run(role, connect)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
