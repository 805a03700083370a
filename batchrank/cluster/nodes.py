"""Looks at each machine of a Ray cluster from a process there, as one that ranks would find it, and changes nothing."""

import asyncio
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread

from batchrank.cluster.channel import token, welcome
from batchrank.cluster.messages import versions
from batchrank.cluster.raycluster import Node, connected, fate, nodes, resources
from batchrank.job import running

PLACED = 60.0
"""Seconds in which a process has to be started and to answer: a minute is longer than any idle cluster takes."""
_REACHED = 10.0
"""Seconds in which a connection has to come about: longer than any healthy network takes."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a process on a machine saw.

    Attributes:
        versions: what the bytes of a part depend on there.
        unreached: why it could not connect to the process that was started here; None where it could.
        memory: bytes of memory that are free; None where the system doesn't tell.
        disk: bytes that are free where temporary files go, and ``folder`` tells where that is.
        folder: see there.
    """

    versions: dict[str, str]
    unreached: str | None
    memory: int | None
    disk: int
    folder: str


@dataclass(frozen=True, slots=True)
class Found:
    """What came of looking at a machine.

    Attributes:
        node: the machine.
        seen: what was seen there; None where nothing was.
        failed: how starting a process there failed; None where it was not tried, or there was no room in time.
    """

    node: Node
    seen: Seen | None = None
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """What came of looking at all of them.

    Attributes:
        host: the address of this machine by which they connect to a run.
        found: machine by machine.
    """

    host: str
    found: list[Found]


async def look_at_nodes(
    settings: running.Ray, name: str, hidden: Collection[str], *, placed: float = PLACED
) -> Cluster:
    """Start a process on each machine that is large enough for one that ranks, and tell what it sees.

    Args:
        settings: what the job says of the cluster.
        name: the job's, which the processes are named after.
        hidden: environment variables that no other process gets.
        placed: seconds in which each has to be started and to answer.

    Raises:
        MissingExtraError: Ray isn't installed.
        JobError: there is no such cluster.
    """
    async with connected(settings, hidden) as host, _answering(host) as (port, secret):
        there = await anyio.to_thread.run_sync(nodes, settings)
        looking = partial(_look_at_all, there, settings, name, (host, port, secret), placed)
        return Cluster(host, await anyio.to_thread.run_sync(looking))


@asynccontextmanager
async def _answering(host: str) -> AsyncIterator[tuple[int, bytes]]:
    """Take connections as a run does, and answer those who know the secret; the port and the secret."""
    secret = token()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await welcome(reader, [secret]) is not None:
            writer.write(secret)
            with suppress(OSError):
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[1], secret


def _look_at_all(
    there: list[Node], settings: running.Ray, name: str, here: tuple[str, int, bytes], placed: float
) -> list[Found]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    looking = ray.remote(look)
    waiting: dict[Any, Node] = {}
    found = [Found(node) for node in there if not node.room]
    for node in there:
        if node.room:
            options = resources(settings) | {
                "name": f"batchrank:{name}:check",
                "max_retries": 0,
                "scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False),
            }
            waiting[looking.options(**options).remote(*here)] = node
    ready, late = ray.wait(list(waiting), num_returns=len(waiting), timeout=placed) if waiting else ([], [])
    for one in ready:
        try:
            found.append(Found(waiting[one], Seen(*ray.get(one))))
        except Exception as error:  # whatever Ray calls it
            found.append(Found(waiting[one], failed=fate(error)))
    for one in late:
        ray.cancel(one, force=True)
        found.append(Found(waiting[one]))
    return sorted(found, key=lambda one: (one.node.address, one.node.id))


def look(host: str, port: int, secret: bytes) -> tuple[dict[str, str], str | None, int | None, int, str]:
    """What is to be told of the machine that this runs on, as the values of a ``Seen``."""
    folder = tempfile.gettempdir()
    return versions(), _unreached(host, port, secret), free_memory(), shutil.disk_usage(folder).free, folder


def _unreached(host: str, port: int, secret: bytes) -> str | None:
    try:
        with socket.create_connection((host, port), timeout=_REACHED) as line:
            line.sendall(secret)
            if line.recv(len(secret), socket.MSG_WAITALL) == secret:
                return None
            return "something else answers there"
    except OSError as error:
        return str(error)


def free_memory(system: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes of memory that may be taken without swapping; None where the system doesn't tell."""
    with suppress(OSError, ValueError):
        for line in system.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 2**10
    return None
