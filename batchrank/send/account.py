"""Asks for the admissions of a job that shares its account's quota with other jobs of the host.

The first of the jobs listens at a socket, and keeps the quota for all of them; it is a client of its own like the
others. When it ends or is killed, one of those that are left takes its place, knowing what was sent in the last minute,
so the quota holds across the change.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import astuple, dataclass
from itertools import count
from typing import Any

import orjson

from batchrank.data import Rejection
from batchrank.errors import JobError
from batchrank.send.account_files import AccountFiles, Departure
from batchrank.send.connections import Key
from batchrank.send.holder import LINE, Holder, Terms
from batchrank.send.rate import Admission, Kind, RateLimiter, Stats, refused_keys

log = logging.getLogger(__name__)

_FRESH = 0.5
"""Seconds that an admission may take to arrive: one that was held up longer might depart within another second."""
_TRIP = 0.1
"""Seconds that an ask and its answer may take between two busy processes; so much is asked for ahead."""
_MOST_AHEAD = 32
_RETRY = 0.02
"""Seconds between two tries to join, while another process is about to listen."""
_SILENT = 5.0
"""Seconds of silence after which people want to know whom the job waits for."""


class Account:
    """A part of an account's quota, as much as the other jobs leave.

    Args:
        files: where its jobs meet.
        terms: what they have to agree about.
        keys: the job's keys.
        limiter: makes what keeps the quota, from what was sent before, should it be this process that does.
        before: what this job has sent in the last minute, in case that it had no account then.
        who: tells whose job this is.
    """

    def __init__(
        self,
        files: AccountFiles,
        terms: Terms,
        keys: Sequence[Key],
        limiter: Callable[[Sequence[Departure]], RateLimiter],
        before: Sequence[Departure],
        who: Mapping[str, Any],
    ) -> None:
        self._files = files
        self._terms = terms
        self._keys = {key.name: key for key in keys} if len(keys) > 1 else {}
        self._limiter = limiter
        self._before = before
        self._who = who
        self._joined = asyncio.Event()
        self._fault: JobError | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._unsent: list[bytes] = []
        self._numbers = count()
        self._asked: dict[int, tuple[int, asyncio.Future[Admission]]] = {}
        self._pace = terms.rpm / 60 * max(1, len(keys))
        self._state: dict[str, Any] = {}
        self._admitted = [0, 0]
        self._waited = 0.0
        self._throttled = Counter[Kind]()
        self._holder: dict[str, Any] = {}

    @property
    def ahead(self) -> int:
        """How many admissions to ask for at a time: more than come back while one is on its way."""
        return min(_MOST_AHEAD, 1 + int(min(self._pace * _TRIP, _MOST_AHEAD)))

    async def serve(self) -> None:
        """Be connected to who keeps the quota, or keep it, until cancelled."""
        async with AsyncExitStack() as stack:
            holds, tries = False, 0
            while True:
                if not holds and (lock := self._files.lock()) is not None:
                    stack.callback(lock.close)
                    await stack.enter_async_context(self._holding())
                    holds = True
                try:
                    reader, writer = await asyncio.open_unix_connection(self._files.socket, limit=LINE)
                except OSError:
                    tries += 1
                    if tries == _SILENT / _RETRY:
                        log.warning(
                            "rate.account: another process keeps %s, but can't be reached", self._files.socket
                        )
                    await asyncio.sleep(_RETRY)
                    continue
                tries = 0
                try:
                    await self._talk(reader, writer)
                except JobError as error:
                    self._fail(error)
                    return
                except (OSError, ValueError, TypeError, KeyError) as error:
                    log.debug("rate.account: the connection is broken, and made anew: %r", error)
                finally:
                    self._writer = None
                    writer.close()
                await asyncio.sleep(_RETRY)

    async def joined(self) -> None:
        """Wait until the job takes part.

        Raises:
            JobError: the others say another quota, or other keys.
        """
        await self._joined.wait()
        if self._fault is not None:
            raise self._fault

    async def acquire(self, tokens: int) -> Admission:
        """Ask for an admission, and wait for it; one that comes too late is not used.

        Raises:
            JobError: the job takes part no more.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            await self.joined()
            number = next(self._numbers)
            future: asyncio.Future[Admission] = loop.create_future()
            self._asked[number] = tokens, future
            if self._connected:  # else it is asked when there is somebody to ask
                self._send("ask", number, tokens)
            try:
                admission = await future
            finally:
                self._asked.pop(number, None)
            if loop.time() - admission.at <= _FRESH:
                break
            self._tell("unused", admission)
        self._waited += loop.time() - began
        self._admitted[0] += 1
        self._admitted[1] += tokens
        return admission

    def departed(self, admission: Admission) -> None:
        """Tell that a request is sent only now."""
        admission.at = asyncio.get_running_loop().time()
        self._tell("departed", admission)

    def settle(self, admission: Admission, billed: int | None) -> None:
        """Tell what a request was billed."""
        self._tell("settle", admission, billed)

    def unbilled(self, admission: Admission) -> None:
        """Tell that a request was rejected."""
        self._tell("unbilled", admission)

    def throttled(
        self,
        kind: Kind,
        retry_after: float | None = None,
        *,
        sent: float | None = None,
        by: Key | None = None,
    ) -> None:
        """Tell that the API refused a request for its rate: all jobs slow down."""
        self._throttled[kind] += 1
        self._send("throttled", kind, retry_after, sent, by.name if by else "")

    def refused(self, admission: Admission, why: Rejection, *, certain: bool) -> bool:
        """Tell that a key was refused; whether there is another one, as far as is known here."""
        serving = self._state.get("serving", [])
        if admission.key is None or not any(name != admission.key.name for name in serving):
            return False
        self._state["serving"] = [name for name in serving if name != admission.key.name]
        self._tell("refused", admission, astuple(why), int(certain))
        return True

    def pace(self, tokens: int) -> float:
        """Requests a second that the account may send, as it was told last; what others leave is not known."""
        return self._pace

    def stats(self) -> Stats:
        """What this job did; of the quota, what all jobs together use."""
        used = self._state.get
        return Stats(
            requests=self._admitted[0],
            tokens=self._admitted[1],
            requests_used=used("requests_used", 0.0),
            tokens_used=used("tokens_used", 0.0),
            waited=self._waited,
            throttled={kind: self._throttled[kind] for kind in ("requests", "tokens", "growth")},
            speed=used("speed", 1.0),
        )

    def states(self) -> list[dict[str, Any]]:
        """How each key stands, for all jobs together."""
        return list(self._state.get("keys", []))

    def serving(self) -> list[str]:
        """The names of the keys that are not refused."""
        return list(self._state.get("serving", []))

    @property
    def notices(self) -> Sequence[str]:
        """What the user should know of keys; of the quota the log of who keeps it tells."""
        return refused_keys(self.states())

    @asynccontextmanager
    async def _holding(self) -> AsyncIterator[None]:
        """Keep the quota for all jobs, for the length of the block."""
        departures = self._files.departures(asyncio.get_running_loop().time())
        limiter = self._limiter(departures.before or ([] if self._joined.is_set() else self._before))
        async with Holder(limiter, departures, self._terms, self._keys, self._who).serving(
            self._files.socket
        ):
            yield

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Listen to who keeps the quota until the connection ends.

        Raises:
            JobError: that one says another quota, or other keys.
        """
        _, terms, self._holder = orjson.loads(await self._line(reader))
        self._terms.refuse(Terms(**terms | {"keys": tuple(terms["keys"])}), self._holder)
        self._writer, unsent, self._unsent = writer, self._unsent, []
        writer.writelines(unsent)
        for number, (tokens, _) in self._asked.items():
            self._send("ask", number, tokens)
        self._joined.set()
        while line := await self._line(reader):
            what, *content = orjson.loads(line)
            if what == "grant":
                self._granted(*content)
            else:
                (self._state,) = content

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        """The next line; of a long silence the user is told."""
        reading = asyncio.ensure_future(reader.readline())
        try:
            await asyncio.wait([reading], timeout=_SILENT)
            if not reading.done():
                log.warning(
                    "rate.account: the process that keeps the quota%s has been silent for %g s; nothing is sent until "
                    "it answers or ends",
                    f" (job {self._holder['job']}, process {self._holder['pid']})" if self._holder else "", _SILENT,
                )  # fmt: skip
            return await reading
        finally:
            reading.cancel()

    def _granted(self, number: int, at: float, charged: int, key: str, pace: float) -> None:
        self._pace = pace
        tokens, future = self._asked.get(number, (0, None))
        if future is not None and not future.done():
            future.set_result(_Granted(at, tokens, charged, self._keys.get(key), number))

    def _tell(self, what: str, admission: Admission, *more: Any) -> None:
        assert isinstance(admission, _Granted)
        self._send(what, admission.number, *more)

    def _send(self, *message: Any) -> None:
        line = orjson.dumps(message) + b"\n"
        if self._writer is not None and self._connected:
            self._writer.write(line)
        else:
            self._unsent.append(line)

    @property
    def _connected(self) -> bool:
        return self._writer is not None and not self._writer.is_closing()

    def _fail(self, error: JobError) -> None:
        self._fault = error
        self._joined.set()
        for _, future in self._asked.values():
            if not future.done():
                future.set_exception(error)


@dataclass(slots=True, eq=False)
class _Granted(Admission):
    """An admission with the number that it was asked for by."""

    number: int = 0
