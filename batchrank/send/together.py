"""Awaits several things at the same time, and raises the one error that counts, not a group of them."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

from batchrank.errors import BatchrankError, QueryError

Result = TypeVar("Result")


async def together(calls: Sequence[Callable[[], Awaitable[Result]]]) -> list[Result]:
    """What the calls return, in order; one that fails waits for the others, whose answers are being paid for.

    Raises:
        BatchrankError: what one of them raised, rather one that stops the run than one that concerns a query.
    """
    results: dict[int, Result] = {}
    faults: list[BatchrankError] = []

    async def call(number: int) -> None:
        try:
            results[number] = await calls[number]()
        except BatchrankError as fault:
            faults.append(fault)

    async with anyio.create_task_group() as group:
        for number in range(len(calls)):
            group.start_soon(call, number)
    if faults:
        raise min(faults, key=lambda fault: isinstance(fault, QueryError))
    return [results[number] for number in range(len(calls))]
