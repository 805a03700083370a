"""Parts that go to processes on other machines and come back, whoever dies in the midst of it."""

import asyncio
import hashlib
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from jobs import rows, write_jsonl
from test_cluster_channel import pair

from batchrank.cluster.channel import BUFFER, Channel
from batchrank.cluster.handover import Depot, fetch
from batchrank.cluster.stage import Layout, StagedPart
from batchrank.errors import Place
from batchrank.job.sections import Input
from batchrank.outcomes import Failure

pytestmark = pytest.mark.anyio


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_what_comes_late_from_one_that_died_is_dropped(tmp_path: Path) -> None:
    """Its last calls may be served after it was given up, when another process may write a file of the same name."""
    dead, alive = Depot(tmp_path, {}), Depot(tmp_path, {})
    await dead.handlers()["file"]("ranking-00000.jsonl", b"ro", True)
    await dead.close()
    await alive.handlers()["file"]("ranking-00000.jsonl", b"ro", True)
    await dead.handlers()["file"]("ranking-00000.jsonl", b"ws", False)
    await dead.handlers()["file"]("ranking-00001.jsonl", b"rows", True)
    assert await dead.handlers()["placed"]("ranking-00000.jsonl", hashlib.sha256(b"rows").hexdigest()) is None
    await alive.handlers()["file"]("ranking-00000.jsonl", b"ws", False)
    await alive.handlers()["placed"]("ranking-00000.jsonl", hashlib.sha256(b"rows").hexdigest())
    await alive.close()
    assert files(tmp_path) == {"ranking-00000.jsonl": b"rows"}


async def test_one_that_is_given_up_while_its_file_is_written_is_waited_for(tmp_path: Path) -> None:
    """Nothing of it is open when its parts go to another process."""
    dead = Depot(tmp_path, {})
    async with anyio.create_task_group() as group:
        group.start_soon(dead._file, "ranking-00000.jsonl", b"x" * 2**24, True)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        await dead.close()
        assert not files(tmp_path)


async def test_a_part_that_is_carried_lies_in_the_folder_of_who_ranks_it(tmp_path: Path) -> None:
    """That is removed by somebody even if the process is killed, and the texts of its queries with it."""
    source, own = tmp_path / "source", tmp_path / "own"
    own.mkdir()
    items = [Failure(Place("in.jsonl", "line", 1), None, "broken-json", "a bad record")]
    source.write_bytes(pickle.dumps(items))
    part = StagedPart(3, 30, 1, source)
    depot = Depot(tmp_path, {3: part})
    async with pair(depot.handlers()) as (near, _):
        here = await fetch(near, part, own)
    assert here.path.parent == own and list(here.read()) == items


def reads(end: socket.socket) -> "subprocess.Popen[str]":
    """A process that reads, for who is at the other end."""
    command = [sys.executable, "-m", "batchrank.cluster.child", "reader", str(end.fileno())]
    return subprocess.Popen(command, pass_fds=[end.fileno()], stderr=subprocess.PIPE, text=True)


@pytest.mark.real_clock
async def test_a_process_whose_account_dies_ends_without_a_word(tmp_path: Path) -> None:
    """It waits for an answer then, and that there will be none is no fault of its own."""
    ours, theirs = socket.socketpair()
    write_jsonl(tmp_path / "in.jsonl", rows(20, 5))
    layout = Layout(Input(path=(str(tmp_path / "in.jsonl"),)), 10, 0, 0, tmp_path, 0)
    with theirs:
        process = reads(theirs)
    waits = anyio.Event()

    async def hello(_: dict[str, str]) -> Layout:
        return layout

    async def staged(*_: object) -> None:
        waits.set()
        await anyio.sleep_forever()

    reader, writer = await asyncio.open_connection(sock=ours, limit=BUFFER)
    async with anyio.create_task_group() as group:
        channel = Channel(reader, writer, {"hello": hello, "staged": staged}, group.start_soon)
        group.start_soon(channel.serve)
        await waits.wait()
        channel.close()
        group.cancel_scope.cancel()
    _, errors = await anyio.to_thread.run_sync(process.communicate)
    assert (process.returncode, errors) == (0, "")
