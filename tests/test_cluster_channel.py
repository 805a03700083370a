"""Calls between the processes of one run."""

import asyncio
import pickle
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from batchrank.cluster.channel import BUFFER, Channel, ChannelClosedError, token, welcome
from batchrank.errors import (
    BatchrankError,
    BudgetReachedError,
    ExitCode,
    InterruptedRunError,
    QueryError,
    RunStoppedError,
)

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def pair(handlers: dict[str, Any]) -> AsyncIterator[tuple[Channel, Channel]]:
    """Two ends; the second one has handlers."""
    ends = socket.socketpair()
    async with anyio.create_task_group() as group:
        channels = []
        for end, known in zip(ends, ({}, handlers), strict=True):
            reader, writer = await asyncio.open_connection(sock=end, limit=BUFFER)
            channels.append(Channel(reader, writer, known, group.start_soon))
            group.start_soon(channels[-1].serve)
        yield channels[0], channels[1]
        for channel in channels:
            channel.close()


async def test_calls_cross_and_each_gets_its_own_result() -> None:
    """Results come in any order and reach who asked, however large they are."""
    first = anyio.Event()

    async def double(value: bytes) -> bytes:
        if len(value) < 10:
            await first.wait()
        else:
            first.set()
        return value + value

    async with pair({"double": double}) as (near, _):
        found: dict[int, bytes] = {}

        async def call(number: int, value: bytes) -> None:
            found[number] = await near.call("double", value)

        async with anyio.create_task_group() as group:
            group.start_soon(call, 0, b"x")
            group.start_soon(call, 1, b"y" * 3_000_000)
    assert found == {0: b"xx", 1: b"y" * 6_000_000}


@pytest.mark.parametrize(
    "error",
    [
        QueryError("too-long", "document 'd' is longer", attempts=3),
        BudgetReachedError("budget.max_tokens: 5 could be passed", later=True),
        InterruptedRunError("interrupted by SIGINT", 2),
        RunStoppedError("the API rejects every request"),
    ],
)
async def test_an_error_arrives_as_what_it_is(error: BatchrankError) -> None:
    """Cause, exit code and text of whatever the other end raises."""

    async def fail() -> None:
        raise error

    async with pair({"fail": fail}) as (near, _):
        with pytest.raises(type(error)) as caught:
            await near.call("fail")
    assert str(caught.value) == str(error)
    assert vars(caught.value) == vars(error)
    assert caught.value.exit_code in ExitCode


async def test_who_waits_is_told_that_the_other_process_is_gone() -> None:
    """Nobody waits for ever for a process that died."""

    async def never() -> None:
        await anyio.sleep_forever()

    async with pair({"never": never}) as (near, far):

        async def die() -> None:
            far.close()

        async with anyio.create_task_group() as group:
            group.start_soon(die)
            with pytest.raises(ChannelClosedError):
                await near.call("never")
            group.cancel_scope.cancel()
        with pytest.raises(ChannelClosedError):
            await near.call("never")
        near.tell("never")


class _Trap:
    """Does something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a stranger's pickle was opened",)


@pytest.mark.parametrize("said", [b"", b"x" * 31, b"x" * 32, pickle.dumps(_Trap()).ljust(64, b".")])
async def test_a_stranger_is_turned_away_before_anything_is_unpickled(said: bytes) -> None:
    """Who doesn't know the run's secret is not let in, whatever it sends."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    with theirs:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        assert await welcome(reader, [token(), token()]) is None
    writer.close()


async def test_who_knows_the_secret_is_let_in() -> None:
    """The secret is all that is read before the first call."""
    secret = token()
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    with theirs:
        theirs.sendall(secret + b"rest")
        assert await welcome(reader, [token(), secret]) == secret
        assert await reader.readexactly(4) == b"rest"
    writer.close()
