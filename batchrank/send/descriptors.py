"""Keeps the number of connections within what the system lets this process open, and tells when that was too little."""

import errno
import math

_WANTED = 8192
"""File descriptors to ask the system for: far more than requests are ever in flight; more would only cost it memory."""
_RESERVE = 96
"""Descriptors that are left for files: input, output, ledger, libraries, and connections that are being closed."""


def open_files() -> float:
    """How many files and connections this process may have open, after raising that as far as the system lets it."""
    try:
        import resource
    except ImportError:  # a system without such limits
        return math.inf
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (ValueError, OSError):  # macOS says "infinite" and means less
            pass
    return math.inf if soft == resource.RLIM_INFINITY else soft


def connections(files: float, *, each: int = 1) -> float:
    """How many connections that leaves room for, at least one; ``each`` of them takes so many descriptors."""
    return max(1, (files - _RESERVE) // each) if files < math.inf else math.inf


def out_of_files(fault: BaseException) -> str | None:
    """What to tell of a fault that comes from too few descriptors; None for any other."""
    number = getattr(fault, "errno", None) or getattr(getattr(fault, "os_error", None), "errno", None)
    if number == errno.EMFILE:
        return (
            f"this process may have {open_files():,.0f} files and connections open, and has; raise that limit "
            "(ulimit -n), or set rate.concurrency lower"
        )
    if number == errno.ENFILE:
        return "this machine has as many files and connections open as it can; set rate.concurrency lower"
    return None
