"""Waits for a store that is away, or overloaded, for as long as a run waits for its endpoint.

A store that answers 503 for a minute, or can't be reached for two, should not end a night's job. What a run does with
its output is tried again until the store has failed for too long; what can't pass, such as a denied access or a bucket
that isn't there, is told at once.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from batchrank.errors import BatchrankError, InterruptedRunError, StoreAwayError, TimeReachedError

T = TypeVar("T")
log = logging.getLogger(__name__)

_LONGEST_PAUSE = 30.0
"""Seconds between two tries at most, so that a store that is back is noticed soon."""
_QUIET = 5.0
"""Seconds after which people want to know why nothing is written."""
_PASSING = re.compile(
    r"SLOW_?DOWN|NETWORK_CONNECTION|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|THROTTLING|REQUEST_TIMEOUT|UNAVAILABLE"
    r"|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|HTTP status (?:429|50[0234])|curlCode: \d+|timed out|connection reset",
    re.IGNORECASE,
)
"""What pyarrow's libraries for stores say of failures that may pass."""
_NOISE = re.compile(r"When .*?: (?=AWS Error)| \(Request ID: \w*\)")
"""What AWS's library says besides the reason: our own temporary names, and a number."""
_STATUSES = frozenset({429, 500, 502, 503, 504})
_CONNECTIONS = frozenset({"ClientConnectionError", "ClientPayloadError", "HTTPClientError"})
"""What those of fsspec's call a line that breaks (aiohttp, botocore), besides Python's own errors."""


def said(error: BaseException) -> str:
    """What a store's error says, without what its library says besides the reason."""
    return _NOISE.sub("", str(error))


def passing(error: BaseException) -> bool:
    """Whether a failure is one of the kind that passes: of the line, or of a server that is down or overloaded."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConnectionError | TimeoutError) or _PASSING.search(str(seen)):
            return True
        if getattr(seen, "status", None) in _STATUSES or getattr(seen, "code", None) in _STATUSES:
            return True
        if _CONNECTIONS.intersection(kind.__name__ for kind in type(seen).__mro__):
            return True
        seen = seen.__cause__
    return False


class Patience:
    """Tries again what a store fails at, for as long as it may be away. Threads may share it.

    Args:
        seconds: how long a store may fail without any success.
        clock: tells the time, in seconds.
        wait: waits for so many seconds; returns whether to give up.
    """

    def __init__(
        self,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._since: float | None = None
        self._why = ""

    def heed(self, reason: BatchrankError) -> None:
        """Wait no longer where somebody stops the run: what fails now has failed."""
        if isinstance(reason, InterruptedRunError | TimeReachedError):
            self._stopped.set()

    def trouble(self) -> str | None:
        """What is waited for, once it is for a few seconds; None while all is well."""
        since = self._since
        if since is None or self._clock() - since < _QUIET:
            return None
        return (
            f"the output's store has failed for {self._clock() - since:.0f} s, and is waited for: {self._why}"
        )

    def keep(self, work: Callable[[], T]) -> T:
        """What a piece of work returns, which can be done again from its start.

        Raises:
            StoreAwayError: the store has failed for too long.
            Exception: whatever else the work raises.
        """
        pause = 1.0
        while True:
            started = self._clock()
            try:
                found = work()
            except (BatchrankError, OSError) as error:
                if isinstance(error, StoreAwayError) or not passing(error):
                    raise
                self._failed(error, started, pause)
            else:
                if self._since is not None:
                    self._since = None
                    log.info("the output's store works again")
                return found
            self._wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _failed(self, error: Exception, started: float, pause: float) -> None:
        self._why = said(error.__cause__ or error)  # without what a person would have to do
        if self._since is None:
            self._since = started  # the libraries try for some seconds themselves
            log.warning("the output's store fails, and is waited for: %s", self._why)
        away = self._clock() - self._since
        if self._stopped.is_set() or away + pause > self._seconds:
            raise StoreAwayError(
                f"the output's store has failed for {away:.0f} s (retry.outage: {self._seconds:g}): {self._why}; "
                "nothing is lost, as all answers are in the ledger: run the job again later to go on"
            ) from error

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have it for all that is done in the context, in threads and tasks that begin there too."""
        before = _current.set(self)
        try:
            yield
        finally:
            _current.reset(before)


_current: ContextVar[Patience | None] = ContextVar("patience", default=None)


def waited_for() -> str | None:
    """What is waited for in this context, as ``Patience.trouble`` tells; None where nothing is."""
    patience = _current.get()
    return None if patience is None else patience.trouble()


def patiently(work: Callable[[], T]) -> T:
    """What a piece of work returns, as ``Patience.keep`` tells; by default it is done once."""
    patience = _current.get()
    return work() if patience is None else patience.keep(work)
