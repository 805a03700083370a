"""Whether the API works at all: tells an outage, which passes, from requests that fail by themselves. Pure."""

from batchrank.errors import OutageError
from batchrank.records import Rejection

UNREACHABLE = "unreachable"
"""The rejection code of a request that can't have arrived."""
_MANY = 5
"""So many different queries failing without any success between them: not the queries' fault."""
_FIRST_BUDGET, _MOST_BUDGET, _EARNED = 100.0, 1000.0, 0.5


class Health:
    """Judges failed attempts by what else is going on.

    An attempt counts against its query only while others succeed, or while few others fail: an outage must not
    turn every query that meets it into a dead letter. How long an outage may last is limited by time instead.
    A budget for the whole run limits retries that may cost money: each takes 1, a success earns half.

    Args:
        outage: seconds without any success after which the run stops.
    """

    def __init__(self, outage: float) -> None:
        self._outage = outage
        self._since: float | None = None
        self._failing: set[int] = set()
        self._budget = _FIRST_BUDGET

    def succeeded(self) -> None:
        """Learn that a request was answered."""
        self._since = None
        self._failing.clear()
        self._budget = min(self._budget + _EARNED, _MOST_BUDGET)

    def throttled(self, now: float, why: Rejection) -> None:
        """Learn that a request was told to come back later.

        Raises:
            OutageError: nothing else has happened for too long.
        """
        self._check_time(now, why)

    def failed(self, query: int, now: float, why: Rejection, *, costly: bool) -> bool:
        """Learn that a request failed; whether this counts as one of its attempts.

        Args:
            query: the position of the query it was for.
            now: seconds, by a clock that never goes back.
            why: what came back.
            costly: whether the attempt may have been billed.

        Raises:
            OutageError: no request has succeeded for too long, or the retry budget is used up.
        """
        self._failing.add(query)
        counts = why.code != UNREACHABLE and len(self._failing) < _MANY
        self._check_time(now, why)
        if counts or costly:
            self._budget -= 1
        if self._budget < 0:
            raise OutageError(
                f"too many requests fail for the number that succeed; the last failure: {why}. {_hint(why)}"
            )
        return counts

    def _check_time(self, now: float, why: Rejection) -> None:
        if self._since is None:
            self._since = now
        if now - self._since > self._outage:
            raise OutageError(
                f"no request has succeeded for {now - self._since:.0f} s (retry.outage: {self._outage:g}); the last "
                f"failure: {why}. {_hint(why)}"
            )


def _hint(why: Rejection) -> str:
    if why.code == "malformed":
        return "If the server is well, endpoint.url or endpoint.wire is wrong; else run the job again later"
    if why.code == UNREACHABLE:
        return "Check endpoint.url and the network, and run the job again"
    return "Run the job again later: it goes on where it stopped"
