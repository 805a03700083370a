"""Quotas as the API enforces them: requests and tokens in any minute and in any second, and how fast they grow."""

import math
from collections import deque
from dataclasses import dataclass

from batchrank.emulator.rejections import REJECTIONS, Rejection


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
