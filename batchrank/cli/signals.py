"""Ends the process as signals ask for: a run drains first, anything else is unwound, and none shows a traceback.

1. While modules are imported: at once (``batchrank.__main__``).
2. Outside of a run: SIGINT raises ``SystemExit``, so that what is open is closed; the second one ends at once.
3. In a run: SIGINT, SIGTERM and SIGHUP are told to it, which drains; the second one ends at once.
4. Once the command is done: at once.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_HEEDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def code_of(number: int) -> int:
    """The exit code that tells of a signal."""
    return 128 + number


def unwind_on_interrupt() -> None:
    """Let SIGINT unwind the process from now on; where it is ignored (``nohup``, a shell's job), it stays so."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _unwind)


def leave_on_interrupt() -> None:
    """Let SIGINT end the process at once from now on, as there is nothing left to do."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)


@contextmanager
def heeding(told: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Tell of signals, in the running event loop, until the context is left; one that is ignored stays so.

    The loops' own way would put back Python's handler for SIGINT in the end, and with it the traceback.
    """
    loop = asyncio.get_running_loop()

    def tell(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(told, signal.Signals(number))

    before = {number: signal.getsignal(number) for number in _HEEDED}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, tell)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, before[number])


def _unwind(number: int, frame: FrameType | None) -> None:
    signal.signal(number, _leave)
    raise SystemExit(code_of(number))


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(code_of(number))
