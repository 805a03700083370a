"""Gives an attempt up when its time is over, but reads first what has arrived, because that is paid for.

A process that was stopped, or whose event loop was kept busy, wakes with the time-out and the answer at the same
moment, and the time-out would win. So the last word is never the timer's: the loop gets another look at its sockets,
and a longer one where it has not looked for a while.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_LAST_LOOK = 0.1
"""Seconds to read what has arrived when the time is over."""
_LATE = 0.5
"""Seconds by which a timer of a loop that is well is never late: if it is, nobody has read for a while."""
_AWAKE = 2.0
"""Seconds to read then: hundreds of answers may wait, and the rest of a long one is still on its way."""
_LOOKS = 3
"""Looks at most, so that a loop that is always late gives up too."""


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Let the block take so many seconds, and what reading takes of that which arrived in time.

    Raises:
        TimeoutError: the time is over, and the block was cancelled.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        timers: list[asyncio.TimerHandle] = []

        def expire(due: float) -> None:
            now = loop.time()
            late, looks = now - due > _LATE, len(timers) - 1
            if looks >= _LOOKS or (looks and not late):
                limit.reschedule(now)
            else:
                wait(now + (_AWAKE if late else _LAST_LOOK))

        def wait(due: float) -> None:
            timers.append(loop.call_at(due, expire, due))

        wait(loop.time() + seconds)
        try:
            yield
        finally:
            timers[-1].cancel()
