"""Starts slowly, because an API may refuse requests whose rate rises too quickly."""

import math

from batchrank.limiter.account import INCIDENT, SLOWEST

_RAMP, _LONGEST_RAMP, _IDLE = 3.0, 60.0, 30.0
_CLOSED = 1 / 32
"""The part of the quota that is asked for while nothing is accepted."""


class Ramp:
    """Slow start: from a part of the quota to all of it within seconds, again after a rest."""

    def __init__(self, start: float) -> None:
        self.first = math.inf
        self._start, self._seconds = start, _RAMP
        self._accepted, self._closed = True, False
        self._began = self._last = self._refused_at = -math.inf

    def touch(self, now: float) -> None:
        """Tell that a request is admitted."""
        if now - self._last > _IDLE:
            self._began = now
            self.first = min(self.first, now)
        self._last = now

    def speed(self, now: float) -> float:
        """The part of the quota that is asked for now."""
        if self._closed:
            return min(_CLOSED, self._start)
        done = (now - self._began) / self._seconds
        return 1.0 if done >= 1 else self._start + (1 - self._start) * max(done, 0.0)

    def accepted(self, now: float, sent: float) -> None:
        """Learn that a request was accepted, which was sent at a time."""
        if not self._accepted and sent > self._began:
            self._accepted = True
            self._began = now if self._closed else self._began
            self._closed = False

    def again(self, now: float) -> bool:
        """Start over, from lower and for longer; whether this is news.

        Where nothing was accepted since the last time it was no growth that was refused: that teaches nothing.
        """
        if now - self._refused_at < INCIDENT:
            return False
        self._refused_at = self._began = now
        self._closed = not self._accepted
        if not self._closed:
            self._accepted = False
            self._start = max(self._start / 2, SLOWEST)
            self._seconds = min(self._seconds * 2, _LONGEST_RAMP)
        return True
