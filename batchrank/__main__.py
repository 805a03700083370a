"""Starts ``batchrank`` and ``python -m batchrank``; imported first of all, so that Ctrl-C is clean from the start."""

import atexit
import os
import signal
from types import FrameType

_INTERRUPTED = 130


def _at_once(number: int, frame: FrameType | None) -> None:
    os._exit(_INTERRUPTED)  # nothing is open yet that would have to be put in order


def main() -> None:
    """Run the command line. Its imports take most of a second, in which Ctrl-C has to work already."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _at_once)
    # The interpreter's own end puts back the system's way, which is to die of the signal.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    from batchrank.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
