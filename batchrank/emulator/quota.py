"""Enforces quotas as the API does, and counts what the emulator has seen, for tests and reports."""

import math
from array import array
from collections import Counter, deque
from dataclasses import dataclass, field

from batchrank.emulator.refusals import REJECTIONS, Rejection


class Window:
    """What was admitted within the last ``seconds``, against a capacity.

    An empty window admits anything, as the capacity of a second may be less than one request.
    """

    def __init__(self, seconds: float, capacity: float) -> None:
        self._seconds = seconds
        self._capacity = capacity
        self._admitted: deque[tuple[float, int]] = deque()
        self._total = 0

    def has_room(self, now: float, amount: int) -> bool:
        """Whether ``amount`` more fits at time ``now`` (seconds, never going back)."""
        while self._admitted and self._admitted[0][0] <= now - self._seconds:
            self._total -= self._admitted.popleft()[1]
        return not self._admitted or self._total + amount <= self._capacity

    def add(self, now: float, amount: int) -> None:
        """Admit."""
        self._admitted.append((now, amount))
        self._total += amount


class Growth:
    """Lets the requests of any second be at most ``factor`` times those of the second before, or ``start``."""

    def __init__(self, factor: float, start: int) -> None:
        self._factor, self._start = factor, start
        self._admitted: deque[float] = deque()

    def has_room(self, now: float) -> bool:
        """Whether one more request is no steeper growth than allowed."""
        while self._admitted and self._admitted[0] <= now - 2:
            self._admitted.popleft()
        recent = sum(at > now - 1 for at in self._admitted)
        before = len(self._admitted) - recent
        return recent + 1 <= max(self._start, self._factor * before)

    def add(self, now: float) -> None:
        """Admit."""
        self._admitted.append(now)


@dataclass(frozen=True, slots=True)
class Limits:
    """A quota: requests and tokens a minute (infinite for none), and which windows enforce it."""

    rpm: float
    tpm: float
    per_second: bool
    growth: float | None
    growth_start: int


class Quota:
    """The quota of one model; every admitted request counts, a refused one does not."""

    def __init__(self, limits: Limits) -> None:
        spans = (60.0, 1.0) if limits.per_second else (60.0,)
        self._requests = [Window(span, _share(limits.rpm, span)) for span in spans]
        self._tokens = [Window(span, limits.tpm * span / 60) for span in spans]
        self._growth = None if limits.growth is None else Growth(limits.growth, limits.growth_start)

    def admit(self, now: float, tokens: int) -> Rejection | None:
        """Admit one request of so many tokens at time ``now`` in seconds, or say which of the 429s it gets."""
        if not all(window.has_room(now, 1) for window in self._requests):
            return REJECTIONS["429-requests"]
        if not all(window.has_room(now, tokens) for window in self._tokens):
            return REJECTIONS["429-tokens"]
        if self._growth is not None:
            if not self._growth.has_room(now):
                return REJECTIONS["429-growth"]
            self._growth.add(now)
        for window in self._requests:
            window.add(now, 1)
        for window in self._tokens:
            window.add(now, tokens)
        return None


def _share(rpm: float, span: float) -> float:
    """What a quota per minute allows in a span: whole requests."""
    return rpm if math.isinf(rpm) else math.ceil(rpm * span / 60)


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came in: number from 1, seconds by the loop's clock, path, headers, body."""

    number: int
    at: float
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Counts:
    """What the emulator has seen and done.

    Attributes:
        requests: requests that came in.
        statuses: answers by HTTP status; 0 for requests that got none.
        faults: faults by name.
        documents: documents billed.
        tokens: tokens billed.
        billed: how often each body was billed, by the digest of path and body.
        arrivals: when each request came, in seconds by the loop's clock.
        bills: when each billed request came, and its tokens.
        open: requests being answered right now.
        most_open: the most that ever were at a time.
    """

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    documents: int = 0
    tokens: int = 0
    billed: Counter[bytes] = field(default_factory=Counter)
    arrivals: "array[float]" = field(default_factory=lambda: array("d"))
    bills: list[tuple[float, int]] = field(default_factory=list)
    open: int = 0
    most_open: int = 0

    @property
    def paid_twice(self) -> int:
        """Billed requests beyond the first of each body."""
        return self.billed.total() - len(self.billed)

    def most_in(self, seconds: float) -> int:
        """The most requests that came within any such span."""
        most = start = 0
        for end, at in enumerate(self.arrivals):
            while self.arrivals[start] <= at - seconds:
                start += 1
            most = max(most, end - start + 1)
        return most

    def most_tokens_in(self, seconds: float) -> int:
        """The most tokens of requests that came within any such span."""
        most = start = total = 0
        for at, tokens in self.bills:
            total += tokens
            while self.bills[start][0] <= at - seconds:
                total -= self.bills[start][1]
                start += 1
            most = max(most, total)
        return most
