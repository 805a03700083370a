"""Has the machines of a Ray cluster rank: each process is an actor, which connects to the one that the user started.

Ray finds machines and starts processes there. What these say to the run goes over connections of their own, as it does
between processes of one machine, so that Ray's own stores and logs see neither texts nor keys.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio.to_thread

from batchrank.cluster.channel import BUFFER, Channel, Handler, token, welcome
from batchrank.cluster.processes import LocalStarter, NotStartedError, Process, Spawn
from batchrank.cluster.raycluster import connected, fate, nodes, resources
from batchrank.job import running

log = logging.getLogger(__name__)

_WAITING = 30.0
"""Seconds after which people are told that the cluster has no room yet."""


class RayProcess:
    """An actor."""

    def __init__(self, done: Any) -> None:
        self._done = done

    async def fate(self) -> str:
        """How it ended, as far as Ray tells, which takes a while where its machine is lost."""
        return await anyio.to_thread.run_sync(self._fate)

    def _fate(self) -> str:
        import ray

        ready, _ = ray.wait([self._done], timeout=5)
        if not ready:
            return "it no longer answers"
        try:
            ray.get(ready[0])
        except Exception as error:  # whatever Ray calls it
            return fate(error)
        return "its connection broke"


class RayStarter:
    """Starts actors, and takes their connections.

    Args:
        settings: what the job says.
        name: the job's, which actors are named after.
        host: the address of this machine that others reach.
        local: starts what has to be on this machine.
    """

    def __init__(self, settings: running.Ray, name: str, host: str, local: LocalStarter) -> None:
        self._settings = settings
        self._name = name
        self._host = host
        self._local = local
        self._port = 0
        self._started = self._serving = 0
        self._expected: dict[bytes, asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {}

    async def listen(self) -> asyncio.Server:
        """Take connections; those who don't know a secret that was told to an actor are turned away."""
        server = await asyncio.start_server(self._connected, self._host, 0, limit=BUFFER)
        self._port = server.sockets[0].getsockname()[1]
        return server

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        secret = await welcome(reader, self._expected)
        if secret is None or (future := self._expected.pop(secret)).done():
            writer.close()
        else:
            future.set_result((reader, writer))

    @asynccontextmanager
    async def start(
        self, role: str, handlers: Mapping[str, Handler], spawn: Spawn
    ) -> AsyncIterator[tuple[Process, Channel]]:
        """A process for a role, as ``Starter`` tells; the reader is where the files are."""
        if role == "reader":
            async with self._local.start(role, handlers, spawn) as started:
                yield started
            return
        import ray

        secret = token()
        connected = self._expected[secret] = asyncio.get_running_loop().create_future()
        self._started += 1
        options = resources(self._settings) | {"name": f"batchrank:{self._name}:worker-{self._started}"}
        actor = ray.remote(_Ranker).options(**options).remote()
        done = actor.serve.remote(self._host, self._port, secret)
        process = RayProcess(done)
        try:
            reader, writer = await self._arrival(connected, process, done)
            channel = Channel(reader, writer, handlers, spawn)
            self._serving += 1
            try:
                yield process, channel
            finally:
                self._serving -= 1
                channel.close()
        finally:
            self._expected.pop(secret, None)
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(partial(_end, actor, done))

    async def _arrival(
        self, connected: "asyncio.Future[Any]", process: RayProcess, done: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """An actor's connection, once the cluster has room for it.

        Raises:
            NotStartedError: it ended before it was there.
        """
        ended, said = asyncio.ensure_future(done), False
        try:
            while not connected.done():
                await asyncio.wait([connected, ended], timeout=_WAITING, return_when="FIRST_COMPLETED")
                if ended.done() and not connected.done():
                    ended.exception()  # told below
                    why = await process.fate()
                    raise NotStartedError(f"a process could not be started in the Ray cluster: {why}")
                if not connected.done() and not self._serving:
                    log.warning("waiting for the Ray cluster to have room for a process that ranks")
                elif not connected.done() and not said:
                    said = True
                    log.warning("the Ray cluster has no room for one more that ranks; the others go on")
        finally:
            ended.cancel()
        found: tuple[asyncio.StreamReader, asyncio.StreamWriter] = connected.result()
        return found


class _Ranker:
    """What an actor is: a process that ranks until there is no more to do."""

    def serve(self, host: str, port: int, secret: bytes) -> None:
        """Connect to the run, and rank."""
        from batchrank.cluster import child

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(host, port, limit=BUFFER)
            writer.write(secret)
            return reader, writer

        child.run("ranker", connect)


def _end(actor: Any, done: Any) -> None:
    """Let an actor end by itself for a moment, then end it."""
    import ray

    ray.wait([done], timeout=2)
    with suppress(Exception):  # it is gone, or the cluster is
        ray.kill(actor)


@asynccontextmanager
async def ray_starter(
    settings: running.Ray, name: str, hidden: Collection[str]
) -> AsyncIterator[tuple[RayStarter, int]]:
    """Connect to a Ray cluster, and tell how many processes are to rank there, at first where that is to be found out.

    Args:
        settings: what the job says.
        name: the job's.
        hidden: environment variables that no other process gets.

    Raises:
        MissingExtraError: Ray isn't installed.
        JobError: there is no such cluster.
    """
    async with connected(settings, hidden) as host:
        starter = RayStarter(settings, name, host, LocalStarter(hidden))
        if settings.workers == "auto":  # one for each machine, and then what is found out
            size = max(1, sum(node.room > 0 for node in await anyio.to_thread.run_sync(nodes, settings)))
        else:
            size = settings.workers
        async with await starter.listen():
            yield starter, size
