"""Starts ``batchrank`` and ``python -m batchrank``; imported first of all, so that Ctrl-C is clean from the start."""

import atexit
import gc
import os
import signal
from types import FrameType

_IMPORTED = 250_000
"""Objects after which garbage is looked for: imports make fewer, and nearly all of them stay."""


def _at_once(number: int, frame: FrameType | None) -> None:
    # The code is that of ``ExitCode``, which isn't imported yet; nor is anything open that had to be put in order.
    os._exit(128 + number)


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _at_once)
    # The interpreter's own end puts back the system's way, which is to die of the signal.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    # Looking for garbage while modules are imported, and among all of them at the end, takes a fifth of short commands.
    gc.set_threshold(_IMPORTED, 20, 20)
    atexit.register(gc.freeze)
    from batchrank.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
