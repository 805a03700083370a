"""Judges the machines of a Ray cluster, and where the ledger is, before a job is run there (``batchrank check``)."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import anyio

from batchrank.cluster.messages import differing
from batchrank.cluster.nodes import PLACED, Cluster, Found, Seen, look_at_nodes
from batchrank.errors import ExitCode
from batchrank.job.config import Job
from batchrank.job.running import Ray
from batchrank.write.switch import nearest

Judged: TypeAlias = tuple[bool | None, str, ExitCode]
"""Whether it is well, None for a note; what was found; and what a run would end with because of it."""
_MEMORY = 350 * 2**20
"""Bytes that a process which ranks takes: 290 to 320 MiB were measured, and a little more is no harm."""
_PASSING = {"overlay": "the container", "tmpfs": "the machine's memory", "ramfs": "the machine's memory"}
"""File systems that last no longer than what holds them."""


def cluster(job: Job, part_bytes: float) -> Iterator[Judged]:
    """Look at the cluster that a job is to run on, and say what is to be known.

    Args:
        job: the job, which names a cluster.
        part_bytes: what a part of its input takes on the disk of who ranks it.

    Raises:
        MissingExtraError: Ray isn't installed.
        JobError: there is no such cluster.
    """
    settings = job.engine.ray
    assert settings is not None
    found = anyio.run(look_at_nodes, settings, job.name or "job", job.key_variables)
    yield from judged(found, settings, part_bytes)
    if job.ledger_path is not None:
        yield _ledger(job.ledger_path)


def judged(there: Cluster, settings: Ray, part_bytes: float, *, placed: float = PLACED) -> Iterator[Judged]:
    """Say what was found on each machine, and whether there is room for the job.

    1. It is too small: a note, as others may do.
    2. No process could be started there, though there was room: a run stops when it meets with that.
    3. There was no room in time: a note, as a run waits for it.
    4. Other versions, or no way to this process: a run stops.
    5. Too little memory or disk for as many processes as have room: a note; not even for one: a run fails.

    Args:
        there: what was found.
        settings: what the job says.
        part_bytes: what a part takes on disk.
        placed: seconds in which a process had to answer.
    """
    each = f"{settings.cpus:g} CPU" + (f" and {settings.memory}" if settings.memory else "")
    shared = Counter(one.node.address for one in there.found)
    for one in there.found:
        node = one.node
        name = f"{node.address} ({node.id[:6]})" if shared[node.address] > 1 else node.address
        if not node.room:
            has = f"{node.cpus:g} CPU" + (f" and {_size(node.memory)}" if settings.memory else "")
            yield None, f"{name}: ranks nothing, as it has {has} for Ray, less than {each}", ExitCode.COMPLETE
        elif one.failed is not None:
            text = f"{name}: a process could not be started in the Ray cluster: {one.failed}"
            yield False, f"{text}; install the same batchrank there", ExitCode.FAILED
        elif one.seen is None:
            text = (
                f"{name}: had no room for a process of {each} within {placed:g} s; a run waits until it has"
            )
            yield None, text, ExitCode.COMPLETE
        else:
            yield from _seen(name, one, one.seen, there.host, part_bytes)
    yield from _room(there.found, settings, each)


def _seen(name: str, one: Found, seen: Seen, host: str, part_bytes: float) -> Iterator[Judged]:
    well = True
    if (other := differing(seen.versions)) is not None:
        yield False, f"{name}: {other}; install the same there", ExitCode.FAILED
        well = False
    if seen.unreached is not None:
        text = f"{name}: can't connect to this process at {host}: {seen.unreached}"
        yield False, f"{text}; open all ports between the machines of the cluster", ExitCode.FAILED
        well = False
    room = one.node.room
    if seen.disk < part_bytes * room:
        text = f"{name}: {_size(seen.disk)} are free in {seen.folder}, and each of {room:,} that rank takes about "
        text += f"{_size(part_bytes)} there; make room, set TMPDIR there, or lower output.part_documents"
        enough = seen.disk >= part_bytes
        yield None if enough else False, text, ExitCode.COMPLETE if enough else ExitCode.FAILED
        well = well and enough
    if seen.memory is not None and seen.memory < _MEMORY * room:
        text = f"{name}: {_size(seen.memory)} of memory are free, and each of {room:,} that rank takes about "
        yield (
            None,
            f"{text}{_size(_MEMORY)}; set engine.ray.memory, so that Ray starts fewer",
            ExitCode.COMPLETE,
        )
    if well:
        versions = ", ".join(f"{name} {version}" for name, version in seen.versions.items())
        free = f"{_size(seen.disk)} in {seen.folder}"
        free = free if seen.memory is None else f"{_size(seen.memory)} of memory, {free}"
        text = f"{name}: {versions}; connects to {host}; free: {free}; room for {room:,} that rank"
        yield True, text, ExitCode.COMPLETE


def _room(found: list[Found], settings: Ray, each: str) -> Iterator[Judged]:
    """Whether all processes have room; what else keeps them from ranking is told machine by machine."""
    room = sum(one.node.room for one in found)
    if not room:
        text = f"no machine has {each} for a process that ranks: add one (`ray start`), or lower engine.ray.cpus or"
        yield False, f"{text} memory; if the cluster grows by itself, a run waits for that", ExitCode.STOPPED
    elif all(one.seen is None and one.failed is None for one in found):
        text = f"no machine had room for a process of {each}: others use the cluster, see `ray status`"
        yield False, f"{text}; a run waits until there is some", ExitCode.STOPPED
    elif settings.workers != "auto" and settings.workers > room:
        text = f"engine.ray.workers: {settings.workers:,}, and there is room for {room:,}; the others wait for it"
        yield None, text, ExitCode.COMPLETE


def _ledger(path: Path, table: Path = Path("/proc/self/mountinfo")) -> Judged:
    try:
        kind = file_system(nearest(path.parent).resolve(), table.read_text())
    except OSError:
        kind = None
    if kind is None:
        return (
            True,
            f"the ledger is at {path}; see that it is on a volume that outlives this machine",
            ExitCode.COMPLETE,
        )
    if kind in _PASSING:
        text = f"the place of the ledger is on {kind}, and lost with {_PASSING[kind]}, with all paid answers"
        return None, f"{text}; put it on a volume (ledger: /mnt/volume/ledger.sqlite)", ExitCode.COMPLETE
    return True, f"the place of the ledger is on {kind}", ExitCode.COMPLETE


def file_system(path: Path, table: str) -> str | None:
    """The kind of file system that a path is on; None where the table doesn't tell.

    Args:
        path: an absolute path without links.
        table: what ``/proc/self/mountinfo`` holds.
    """
    best, kind = -1, None
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = fields[4].encode().decode("unicode_escape")  # a space in it is written as \040
        if path.is_relative_to(point) and len(point) >= best:  # of two at one place the later one counts
            best, kind = len(point), after.split(" ")[0]
    return kind


def _size(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"
