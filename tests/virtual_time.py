"""An asyncio event loop whose clock jumps from timer to timer, so that tests of waiting take no time.

What the loop does when it would block:

1. Some I/O or a callback from a thread is ready: handle it; the clock stands still.
2. A thread works for the loop: wait for it in real time; the clock stands still.
3. A timer is pending: jump a microsecond past it. (Landing exactly on it would flatter code whose float
   residue re-arms a timer at "now"; a real clock never does. For the same reason a timer that is set for "now"
   is due a moment later: on a real clock time has passed by then, here it would be set for ever.)
4. None of these: nothing can ever happen, so the test fails as a deadlock.

Threads known to be working: those of ``anyio.to_thread``, ``run_in_executor`` and ``asyncio.to_thread``; any
``threading.Thread`` whose method ``busy()`` returns true; and what a ``busy_while`` predicate tells.
Other threads and processes are not waited for: test those with ``@pytest.mark.real_clock``.
"""

import asyncio
import os
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, Unpack

START = 1000.0  # seconds; the same in every test
LATE = 1e-6
FROZEN_LIMIT = 60.0
_LONG_JUMP = 0.5
_GRACE = 0.0005
_DEADLOCK_GRACE = 1.0
_POLL = 0.01
_MOMENT = 2e-9  # more than the resolution that asyncio assumes of a clock

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_predicates: list[Callable[[], bool]] = []


class DeadlockError(RuntimeError):
    """Raised when no timer, I/O or thread is left that could wake the loop, or a thread waits for it."""


@contextmanager
def busy_while(predicate: Callable[[], bool]) -> Iterator[None]:
    """Keep virtual time frozen while ``predicate()`` is true; it is called in the loop's thread, often.

    It must stay true until the thread has called ``call_soon_threadsafe``, as a thread's ``busy()`` must.
    """
    _predicates.append(predicate)
    try:
        yield
    finally:
        _predicates.remove(predicate)


class _Selector(selectors.DefaultSelector):
    """The system's selector, except that waiting for a timer moves ``now`` instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.late = LATE
        self.working: Callable[[], list[str]] = list

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        frozen_since = time.monotonic()
        while not ready and timeout != 0 and (working := self.working()):
            if time.monotonic() - frozen_since > FROZEN_LIMIT:
                raise DeadlockError(
                    f"virtual time stood still for {FROZEN_LIMIT:g} s, waiting for: {working}"
                )
            ready = super().select(_POLL)
        if ready or timeout == 0:
            return ready
        # A thread that has just finished reported back before it ceased to count as working.
        return super().select(0) or self._in_flight(timeout) or self._jump(timeout)

    def _in_flight(self, timeout: float | None) -> list[Any]:
        """Give the kernel a moment for loopback data, the longer the more a false jump would spoil."""
        if timeout is None:
            return super().select(_DEADLOCK_GRACE)
        if len(self.get_map()) == 1:  # only the loop's own wake-up pipe
            return []
        os.sched_yield()
        return super().select(_GRACE if timeout > _LONG_JUMP else 0)

    def _jump(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise DeadlockError("no timer, I/O or thread is left that could wake the loop")
        self.now += timeout + self.late
        return []


class _Watched(Executor):
    """An executor that tells the loop which futures are unfinished."""

    def __init__(self, executor: Executor, futures: "set[Future[Any]]") -> None:
        self._executor, self._futures = executor, futures

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        future = self._executor.submit(fn, *args, **kwargs)
        self._futures.add(future)
        return future


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A selector event loop in virtual time from ``START`` on; timers wake ``late`` seconds late."""

    def __init__(self, late: float = LATE) -> None:
        self._clock = _Selector()
        self._clock.late = late
        super().__init__(self._clock)
        self._clock.working = self._working
        self._thread_futures: set[Future[Any]] = set()
        self._loop_futures: set[asyncio.Future[Any]] = set()
        self._threads: ThreadPoolExecutor | None = None

    def time(self) -> float:
        return self._clock.now

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return super().call_at(max(when, self.time() + _MOMENT), callback, *args, context=context)

    def advance(self, seconds: float) -> None:
        """Move the clock on, as if the loop's thread had been kept busy for so long."""
        self._clock.now += seconds

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> "asyncio.Future[T]":
        if executor is None:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(thread_name_prefix="asyncio")
                self.set_default_executor(self._threads)  # so that it is shut down with the loop
            executor = self._threads
        future = super().run_in_executor(_Watched(executor, self._thread_futures), func, *args)
        self._loop_futures.add(future)
        return future

    def _working(self) -> list[str]:
        """Who works for this loop right now. A future counts until the loop itself has seen its result."""
        self._thread_futures -= {f for f in self._thread_futures if f.done()}
        self._loop_futures -= {f for f in self._loop_futures if f.done()}
        names = [repr(f) for f in [*self._loop_futures, *self._thread_futures]]
        names += [t.name for t in threading.enumerate() if _is_busy(t, self)]
        return names + [repr(p) for p in _predicates if p()]


def _is_busy(thread: threading.Thread, loop: asyncio.AbstractEventLoop) -> bool:
    idle = getattr(thread, "idle_workers", None)  # an anyio worker thread: idle once the loop has its result
    if idle is not None and getattr(thread, "loop", None) is loop:
        return thread not in idle and not getattr(thread, "stopping", False)
    busy = getattr(thread, "busy", None)
    return callable(busy) and bool(busy())
