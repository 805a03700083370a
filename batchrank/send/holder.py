"""Keeps the quota of an account for all jobs of this host that share it: one of their processes does, for the others.

Each message is a line of JSON: a list whose first item says what it is. A job asks, tells what became of its requests,
and is told its admissions. Of several jobs that ask, each gets one admission after the other, so that a large job
doesn't starve a small one.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from batchrank.data import Rejection
from batchrank.errors import JobError
from batchrank.send.account_files import Departures
from batchrank.send.connections import Key
from batchrank.send.rate import Admission, Kind, RateLimiter

log = logging.getLogger(__name__)

PROTOCOL = 1
"""Changes with the messages, as jobs of different versions may meet."""
TICK = 1.0
"""Seconds between two lines that tell every job how the account stands, and that its holder is alive."""
LINE = 2**20
"""Bytes of a line at most; most have a hundred."""
_HOLDS = 5
"""Times in a tick that what has not left is looked at."""
_DUE = 0.4
"""Seconds after which what has not left counts from later on: well below the second that it counts for."""
_HELD_UP = 5.0
"""Seconds after which that ends: its job may have given it up."""
_FORGOTTEN = 600.0
"""Seconds after which an admission is forgotten of which nobody told the end, as its request was cut off."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What jobs of one account have to agree about.

    Attributes:
        rpm: requests a minute of each key.
        tpm: tokens a minute of each key.
        keys: the names of the keys; none where there is one.
        protocol: which messages are understood.
    """

    rpm: float
    tpm: float
    keys: tuple[str, ...] = ()
    protocol: int = PROTOCOL

    def __str__(self) -> str:
        keys = f", keys {', '.join(self.keys)}" if self.keys else ""
        return f"rate.rpm {self.rpm:,g}, rate.tpm {self.tpm:,g}{keys}"

    def refuse(self, theirs: "Terms", holder: Mapping[str, Any]) -> None:
        """See that a job agrees with the one that keeps the quota.

        Raises:
            JobError: it doesn't; names both.
        """
        other = f"job {holder['job']} (process {holder['pid']})"
        if theirs.protocol != self.protocol:
            raise JobError(
                f"rate.account: {other} runs another version of batchrank; run the same one in all jobs"
            )
        if theirs != self:
            raise JobError(
                f"rate.account: {other} shares the account and says {theirs}, while this job says {self}; write the "
                "same in both, or name another account"
            )


@dataclass(eq=False, slots=True)
class _Lent:
    """An admission that a job has.

    Attributes:
        admission: what the limiter charged.
        granted: when the job got it.
        noted: when it counts from, as was noted for whoever takes over.
        left: whether its request has left, or never will.
    """

    admission: Admission
    granted: float
    noted: float
    left: bool = False

    @property
    def key(self) -> str:
        return self.admission.key.name if self.admission.key else ""


@dataclass(eq=False, slots=True)
class _Job:
    """A job that is connected.

    Attributes:
        writer: where its answers go.
        asks: what it asks for: numbers of its own, and tokens.
        admitted: what it was admitted and has told no end of, by its numbers.
    """

    writer: asyncio.StreamWriter
    asks: deque[tuple[int, int]] = field(default_factory=deque)
    admitted: dict[int, _Lent] = field(default_factory=dict)

    def tell(self, *message: Any) -> None:
        if not self.writer.is_closing():
            self.writer.write(orjson.dumps(message) + b"\n")


class Holder:
    """Admits the requests of all jobs of an account.

    Args:
        limiter: keeps the quota.
        departures: what was sent, for whoever takes over.
        terms: what jobs have to agree about.
        keys: the keys by name; none where there is one.
        who: tells whose process this is.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        departures: Departures,
        terms: Terms,
        keys: Mapping[str, Key],
        who: Mapping[str, Any],
    ) -> None:
        self._limiter = limiter
        self._departures = departures
        self._terms = terms
        self._keys = keys
        self._who = who
        self._jobs: deque[_Job] = deque()
        self._lent: deque[_Lent] = deque()  # what has not left, by the time it counts from
        self._asked = asyncio.Event()
        self._hears: dict[str, Callable[..., None]] = {
            "ask": self._ask, "departed": self._departed, "unused": self._unused, "settle": self._settle,
            "unbilled": self._unbilled, "throttled": self._throttled, "refused": self._refused,
        }  # fmt: skip

    @asynccontextmanager
    async def serving(self, path: Path) -> AsyncIterator[None]:
        """Listen at a socket for the length of the block."""
        server = await asyncio.start_unix_server(self._connected, path, limit=LINE)
        tasks = [asyncio.ensure_future(self._grant()), asyncio.ensure_future(self._tick())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            server.close()
            for job in self._jobs:
                job.writer.close()
            self._departures.close()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one job until it leaves."""
        job = _Job(writer)
        self._jobs.append(job)
        try:
            job.tell("welcome", asdict(self._terms), self._who)
            job.tell("state", self._state())
            while line := await reader.readline():
                what, *content = orjson.loads(line)
                self._hears[what](job, *content)
        except ConnectionError:
            pass
        except (ValueError, TypeError, KeyError) as error:
            # What it sent before is kept; it joins anew.
            log.warning("rate.account: a job was cut off, as it sent what can't be understood: %r", error)
        finally:
            with suppress(ValueError):
                self._jobs.remove(job)
            writer.close()

    async def _grant(self) -> None:
        """Admit one request of each job that asks after the other."""
        while True:
            job = next((one for one in self._jobs if one.asks), None)
            if job is None:
                self._asked.clear()
                await self._asked.wait()
                continue
            self._jobs.remove(job)
            self._jobs.append(job)
            number, tokens = job.asks.popleft()
            self._hold()
            admission = await self._limiter.acquire(tokens)
            lent = _Lent(admission, admission.at, admission.at)
            self._departures.note(admission.at, admission.charged, lent.key)
            self._lent.append(lent)
            job.admitted[number] = lent
            oldest = next(iter(job.admitted))
            if admission.at - job.admitted[oldest].granted > _FORGOTTEN:
                del job.admitted[oldest]
            job.tell("grant", number, admission.at, admission.charged, lent.key, self._limiter.pace(tokens))

    def _hold(self) -> None:
        """Count what was admitted, and isn't known to have left, from now on: it may leave at any moment."""
        now = asyncio.get_running_loop().time()
        while self._lent and (self._lent[0].left or self._lent[0].admission.at < now - _DUE):
            lent = self._lent.popleft()
            if not lent.left and now - lent.granted < _HELD_UP:
                self._limiter.departed(lent.admission)
                self._lent.append(lent)

    async def _tick(self) -> None:
        while True:
            for _ in range(_HOLDS):
                await asyncio.sleep(TICK / _HOLDS)
                self._hold()
            self._tell_state()

    def _tell_state(self) -> None:
        state = self._state()
        for job in self._jobs:
            job.tell("state", state)

    def _state(self) -> dict[str, Any]:
        stats = self._limiter.stats()
        return {
            "requests_used": stats.requests_used,
            "tokens_used": stats.tokens_used,
            "speed": stats.speed,
            "keys": self._limiter.states(),
            "serving": self._limiter.serving(),
            "jobs": len(self._jobs),
        }

    def _ask(self, job: _Job, number: int, tokens: int) -> None:
        job.asks.append((int(number), int(tokens)))
        self._asked.set()

    def _departed(self, job: _Job, number: int) -> None:
        if lent := job.admitted.get(number):
            lent.left = True
            self._limiter.departed(lent.admission)
            self._departures.note(lent.noted, -lent.admission.charged, lent.key, requests=-1)
            lent.noted = lent.admission.at
            self._departures.note(lent.noted, lent.admission.charged, lent.key)

    def _unused(self, job: _Job, number: int) -> None:
        if lent := job.admitted.pop(number, None):
            lent.left = True

    def _settle(self, job: _Job, number: int, billed: int | None) -> None:
        if lent := job.admitted.pop(number, None):
            self._correct(lent, partial(self._limiter.settle, billed=billed))

    def _unbilled(self, job: _Job, number: int) -> None:
        if lent := job.admitted.pop(number, None):
            self._correct(lent, self._limiter.unbilled)

    def _correct(self, lent: _Lent, end: Callable[[Admission], None]) -> None:
        charged, lent.left = lent.admission.charged, True
        end(lent.admission)
        if more := lent.admission.charged - charged:
            self._departures.note(lent.noted, more, lent.key, requests=0)

    def _throttled(
        self, job: _Job, kind: Kind, retry_after: float | None, sent: float | None, key: str
    ) -> None:
        self._limiter.throttled(kind, retry_after, sent=sent, by=self._keys.get(key))

    def _refused(self, job: _Job, number: int, why: list[Any], certain: int) -> None:
        if lent := job.admitted.get(number):
            self._limiter.refused(lent.admission, Rejection(*why), certain=bool(certain))
            self._tell_state()
