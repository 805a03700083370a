"""What the emulator has seen and done, for tests and reports."""

from array import array
from collections import Counter
from dataclasses import dataclass, field


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
