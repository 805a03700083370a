"""Connects to a Ray cluster, and tells what its machines have and what a process that ranks takes of them."""

import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread

from batchrank.errors import JobError, MissingExtraError, install_line
from batchrank.job import running

_REACHABLE = 10.0
"""Seconds in which a cluster's head has to take a connection."""
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of a cluster.

    Attributes:
        id: Ray's name for it.
        address: its address.
        room: processes that rank for which it has room while it does nothing else.
        cpus: processors that Ray may use.
        memory: memory that it may, bytes.
    """

    id: str
    address: str
    room: int
    cpus: float
    memory: float


@asynccontextmanager
async def connected(settings: running.Ray, hidden: Collection[str]) -> AsyncIterator[str]:
    """Connect this process to the cluster, unless it is connected already; its address in there.

    Args:
        settings: what the job says.
        hidden: environment variables that no other process gets.

    Raises:
        MissingExtraError: Ray isn't installed.
        JobError: there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtraError(f"engine.ray needs Ray: {install_line('ray')}") from None
    ours = not ray.is_initialized()
    if ours:
        await anyio.to_thread.run_sync(_connect, settings, hidden)
    try:
        yield ray.util.get_node_ip_address()
    finally:
        if ours:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(ray.shutdown)


def _connect(settings: running.Ray, hidden: Collection[str]) -> None:
    import ray

    if settings.address.startswith("ray://"):
        raise JobError(
            "engine.ray.address: the run has to be inside the cluster, as its processes connect to it: submit it "
            "with `ray job submit -- batchrank run job.yaml --ray auto`"
        )
    try:
        host, _, port = settings.address.rpartition(":")
        if host and port.isdigit():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=_REACHABLE).close()
        with _without(hidden):
            ray.init(address=settings.address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        why = str(error).rstrip(".")
        raise JobError(
            f"engine.ray.address: {settings.address}: {why}; start a cluster with `ray start --head`, or use local"
        ) from error


@contextmanager
def _without(names: Collection[str]) -> Iterator[None]:
    """Take variables out of the environment, which what is started inherits."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def nodes(settings: running.Ray) -> list[Node]:
    """The machines of the cluster that this process is connected to."""
    import ray

    each = resources(settings)
    found = []
    for one in ray.nodes():
        if one["Alive"]:
            has = one["Resources"]
            cpus, memory = float(has.get("CPU", 0)), float(has.get("memory", 0))
            room = int(cpus / each["num_cpus"])
            if "memory" in each:
                room = min(room, int(memory / each["memory"]))
            found.append(Node(one["NodeID"], one["NodeManagerAddress"], room, cpus, memory))
    return sorted(found, key=lambda one: (one.address, one.id))


def resources(settings: running.Ray) -> dict[str, Any]:
    """What a process that ranks takes, as Ray has it."""
    memory = {} if settings.memory is None else {"memory": memory_bytes(settings.memory)}
    return {"num_cpus": settings.cpus, **memory}


def memory_bytes(text: str) -> int:
    """Bytes of an amount such as ``700MiB``."""
    found = re.fullmatch(r"([0-9.]+)\s*([KMGT]?)i?B?", text)
    assert found is not None
    return int(float(found[1]) * _UNITS[found[2]])


def fate(error: Exception) -> str:
    """What an error of Ray's says, whose text has many lines: the first of its own, or the cause that ends it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next(iter(lines), type(error).__name__).rstrip(".")
