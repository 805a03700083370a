"""Ends a run in time, early enough that what is in flight is answered by then, and foretells what won't be done.

``Until`` reads what the user asks for, ``Pace`` tells how far a run will come; both are pure. ``Deadline`` waits.
"""

import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Protocol, Self

import anyio

from batchrank.errors import BatchrankError, JobError, TimeReachedError
from batchrank.ledger import state as clock
from batchrank.pipeline.summary import Progress
from batchrank.send.stats import quantile

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
"""Seconds."""
_SPAN = re.compile(r"(?:[0-9]{1,6}[smhd])+", re.IGNORECASE)
_CLOSING = 4.0
"""Seconds to write what was ranked once the last answer is there, and for processes that rank to end."""
_SLOWER = 1.5
"""How much slower than nearly all answers so far the last ones may be."""
_MOST_OF = 0.5
"""The part of a short run's time that may be left for its end."""
_LOOK = 1.0
"""Seconds between two looks at how far the run has come."""
_EVIDENCE = 10.0, 20
"""Seconds, and queries of this process, before anything is foretold: sending starts slowly."""
_SURE = 0.95
"""A run that would come further than that may still make it, as no pace is known so well."""


@dataclass(frozen=True, slots=True)
class Until:
    """When a run has to have ended.

    Attributes:
        at: the time, in seconds since 1970.
        said: what the user calls it: ``06:00``, or ``the end of 2h``.
        span: the time that the user gave, such as ``2h``; None where it is a time of day.
    """

    at: float
    said: str
    span: str | None = None

    @property
    def ended(self) -> str:
        """What is said of a run that it ended."""
        option = f"--until {self.said}" if self.span is None else f"--max-time {self.span}"
        return f"{option} leaves no time to send more"

    @classmethod
    def after(cls, text: str, now: float) -> Self:
        """So long from now: ``2h``, ``90m``, ``1h30m``.

        Raises:
            JobError: it is no span of time.
        """
        text = text.strip()
        if not _SPAN.fullmatch(text):
            raise JobError(f"--max-time: {text!r} is no span of time; write one such as 2h, 90m or 1h30m")
        seconds = sum(int(n) * _UNITS[unit.lower()] for n, unit in re.findall(r"([0-9]+)([a-zA-Z])", text))
        if not seconds:
            raise JobError(f"--max-time: {text} leaves no time at all; write one such as 2h, 90m or 1h30m")
        return cls(now + seconds, f"the end of {text}", text)

    @classmethod
    def clock(cls, text: str, now: float) -> Self:
        """The next time that the clock here shows ``06:00``.

        Raises:
            JobError: it is no time of day.
        """
        text = text.strip()
        try:
            wanted = time.fromisoformat(text)
        except ValueError:
            wanted = None
        if wanted is None or ":" not in text or wanted.tzinfo is not None:
            raise JobError(
                f"--until: {text!r} is no time of day; write it as 06:00, by the clock of this machine"
            )
        here = datetime.fromtimestamp(now)
        day = here.date() + timedelta(days=here.time() >= wanted)
        return cls(datetime.combine(day, wanted).timestamp(), text)


def first(span: str | None, clock_time: str | None, now: float) -> Until | None:
    """The earlier of two ends, as the command line names them; None where it names none.

    Args:
        span: so long from now.
        clock_time: the next time that the clock here shows so.
        now: the time, in seconds since 1970.

    Raises:
        JobError: as of ``Until``.
    """
    ends = [Until.after(span, now)] if span is not None else []
    ends += [Until.clock(clock_time, now)] if clock_time is not None else []
    return min(ends, key=lambda end: end.at, default=None)


class Pace:
    """How fast a run gets on, from how far it was when."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float, str | None]] = deque()

    def add(self, at: float, share: float, gate: str | None) -> None:
        """Note how far it is: seconds since its start, the part of the input that is done, what holds it back now."""
        seen = self._seen
        while len(seen) > 2 and seen[1][0] < at / 2:
            seen.popleft()
        if not seen or at - seen[-1][0] >= at / 100:
            seen.append((at, share, gate))

    def ahead(self, seconds: float, begun: tuple[float, float]) -> float:
        """The part of the input that will be done so many seconds after what was noted last.

        It is told by the better of two paces, since the run began and of late, as only what is clear is to be told.

        Args:
            seconds: how long from then.
            begun: seconds since the start, and the part that was done, when this process began to get on.
        """
        at, share, _ = self._seen[-1]
        since = [begun, self._seen[0][:2]]
        paces = [(share - before) / (at - then) for then, before in since if at > then]
        return min(1.0, share + seconds * max(paces, default=0.0))

    @property
    def gate(self) -> str | None:
        """What held the run back most often of late."""
        return Counter(gate for _, _, gate in self._seen).most_common(1)[0][0]


def binding(progress: Progress, gate: str | None) -> str:
    """What holds a run back, as a user may change it."""
    if gate == "rate":
        if progress.throttled and progress.quota_used < _SURE / 2:
            return "the server's own limit (429) binds"
        return f"rate.{progress.scarcer} binds"
    if gate in ("concurrency", "queries"):
        return "the time that the server takes to answer binds (rate.concurrency)"
    told = {"budget": "the cap binds (budget)", "outage": "nothing succeeds", "memory": "memory binds"}
    return told.get(gate or "", "reading the input binds")


class Stoppable(Protocol):
    """The part of a run that a deadline needs."""

    def progress(self) -> Progress | None:
        """How it stands."""

    def stop(self, reason: BatchrankError, *, drain: float | None = None) -> None:
        """End it early."""


class Deadline:
    """Watches a run, and stops it in time.

    Args:
        until: when it has to have ended; None for any time.
        drain: seconds that requests in flight are given at most.
        told: takes what the user should know.

    Attributes:
        forecast: that the run won't be done in time, how far it will be, and why; None while that isn't clear.
    """

    def __init__(self, until: Until | None, drain: float, told: Callable[[str], object]) -> None:
        self.forecast: str | None = None
        self.notice: str | None = None
        self._until = until
        self._drain = drain
        self._told = told
        self._pace = Pace()
        self._begun: tuple[float, int] | None = None

    async def watch(self, run: Stoppable) -> None:
        """Watch until the run has to stop, or this is cancelled."""
        if (until := self._until) is None:
            return
        span, started = until.at - clock.wall(), anyio.current_time()
        while True:
            progress, left = run.progress(), until.at - clock.wall()
            margin = self.margin(span, progress)
            if left <= margin:
                reason = f"{until.ended}; run the job again, and it goes on where it stopped"
                run.stop(TimeReachedError(reason), drain=max(0.0, left - _CLOSING))
                return
            if progress is not None:
                self._foretell(progress, anyio.current_time() - started, left - margin)
            await anyio.sleep(min(_LOOK, left - margin))

    def margin(self, span: float, progress: Progress | None) -> float:
        """Seconds before the end at which nothing more is sent, by how long answers have taken so far."""
        slowest = None if progress is None else quantile(progress.latency, 0.999)
        drain = self._drain if slowest is None else min(self._drain, _SLOWER * slowest)
        return min(drain + _CLOSING, _MOST_OF * max(0.0, span))

    def _foretell(self, progress: Progress, at: float, left: float) -> None:
        """Tell whether it is clear, ``at`` seconds after the start, that the run won't be done in what is ``left``."""
        done = progress.queries + progress.failed
        if self._begun is None:
            self._begun = at, done
        then, before = self._begun
        if done == before:
            return  # while what an earlier process has done is passed over, its share of the input isn't known
        self._pace.add(at, progress.share, progress.gate)
        seconds, queries = _EVIDENCE
        if at - then < seconds or done - before < queries or not progress.share:
            return
        ahead = self._pace.ahead(left, (then, progress.share * before / done))
        if ahead > _SURE or self._until is None:
            self.forecast = None
            return
        self.forecast = (
            f"at this pace {ahead:.0%} by {self._until.said}; {binding(progress, self._pace.gate)}"
        )
        if self.notice is None:
            self.notice = f"it won't be done in time: {self.forecast}"
            self._told(self.notice)
