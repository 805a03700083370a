"""Traffic for the limiter's tests, in virtual time."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from virtual_time import VirtualTimeLoop

from batchrank.send.limiter import Limiter

T = TypeVar("T")
Admission = tuple[float, int]
MANY = 5e9


def virtually(main: Coroutine[Any, Any, T], late: float = 1e-6) -> T:
    """Run in virtual time with timers that wake late; what a callback of the loop raises is raised at the end."""
    faults: list[Any] = []
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(late)) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: faults.append(context))
        result = runner.run(main)
    assert not faults
    return result


def now() -> float:
    return asyncio.get_running_loop().time()


async def saturate(limiter: Limiter, tokens: int, seconds: float) -> list[Admission]:
    """Always have a request ready, for so long, billed at once as predicted; what was admitted and when."""
    end, admitted = now() + seconds, []
    while now() < end:
        limiter.settle(await limiter.acquire(tokens), tokens)
        admitted.append((now(), tokens))
    return admitted


def fullest(admitted: list[Admission], seconds: float) -> tuple[int, int]:
    """The most requests and the most tokens in any half-open window."""
    window: deque[Admission] = deque()
    tokens = most_requests = most_tokens = 0
    for time, amount in admitted:
        window.append((time, amount))
        tokens += amount
        while time - window[0][0] >= seconds:
            tokens -= window.popleft()[1]
        most_requests, most_tokens = max(most_requests, len(window)), max(most_tokens, tokens)
    return most_requests, most_tokens


async def rate(limiter: Limiter, tokens: int = 1, seconds: float = 1) -> float:
    return len(await saturate(limiter, tokens, seconds)) / seconds
