"""Paces requests, or tokens, with aiolimiter's bucket, because what leaves evenly never fills a window in one burst.

The bucket holds seconds and leaks one each second. A request puts in what it takes at the rate of the moment, so that
a slow-down makes requests dearer and never has to change the bucket.
"""

from aiolimiter import AsyncLimiter

_LONGEST_DEBT = 60.0
"""Seconds that bills beyond their predictions delay at most: what a minute holds is all that a quota counts."""


class Bucket:
    """One ``AsyncLimiter``, and what bills changed since; for one caller at a time, as it lets small amounts go first.

    Args:
        tolerance: seconds that may be left in it when the next request goes: so much is ready at once after a rest.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._limiter = AsyncLimiter(tolerance, tolerance)
        self._owed = 0.0  # seconds that are to be put in yet; if negative, so many of those in it don't count

    def correct(self, seconds: float) -> None:
        """Have so many seconds more be in it, or fewer if negative: then who waits should wait anew."""
        owed = self._owed + seconds
        self._owed = owed if seconds < 0 else max(self._owed, min(owed, _LONGEST_DEBT))

    async def drained(self) -> None:
        """Wait until no more is left than the tolerance."""
        if self._owed < 0 and self._limiter.has_capacity(self._limiter.max_rate + self._owed):
            self._limiter = AsyncLimiter(self._tolerance, self._tolerance)
            self._owed = 0.0  # all that was left is given back
        while True:
            owed = self._owed
            await self.fill(0.0)
            if max(owed, self._owed) <= 0:
                return

    async def fill(self, seconds: float) -> None:
        """Put so many seconds in, and what is owed, once it is drained: at once where it is."""
        given_back, more = max(0.0, -self._owed), max(0.0, self._owed + seconds)
        self._limiter.max_rate = self._tolerance + given_back + more
        await self._limiter.acquire(more)
        self._owed += seconds - more
