"""Tells an endpoint that is down, which passes, from requests that fail by themselves, by what else succeeded.

A failed attempt counts against its request only if the endpoint worked at that time: something succeeded since the
attempt began. Otherwise an outage would turn every query that meets it into a dead letter; and if failures counted only
while few queries fail, a few bad ones would stop a job for ever. Pure.
"""

from batchrank.errors import OutageError
from batchrank.requests import Rejection

UNREACHABLE = "unreachable"
"""The rejection code of a request that can't have arrived."""
_QUIET = 5.0
"""Seconds without any success after which people want to know why."""
_MANY = 32
"""Failures of the server's in a row, without any success, after which it is taken to be down: each further request may
be billed and give nothing, and one probe tells as much."""
_FIRST_BUDGET, _MOST_BUDGET, _EARNED = 100.0, 1000.0, 0.5
"""Retries that may be billed and that no bad document explains: so many at first, and at most, and half a one earned by
each success, so that a server that loses two answers in five ends the run instead of doubling its bill."""


class OutageDetector:
    """Keeps track of successes and failures.

    Args:
        outage: seconds without any success after which the run stops.
        accepted: whether this endpoint has ever taken a request of this run.
    """

    def __init__(self, outage: float, *, accepted: bool) -> None:
        self.accepted = accepted
        self._outage = outage
        self._succeeded = float("-inf")
        self._since: float | None = None
        self._why: Rejection | None = None
        self._budget = _FIRST_BUDGET
        self._in_a_row = 0

    def succeeded(self, now: float) -> None:
        """Learn that a request was answered."""
        self.accepted = True
        self._succeeded = now
        self._since = self._why = None
        self._in_a_row = 0
        self._budget = min(self._budget + _EARNED, _MOST_BUDGET)

    def works(self, since: float) -> bool:
        """Whether anything has succeeded since a moment, and the endpoint is not down since."""
        return self._succeeded >= since and not self.down

    @property
    def down(self) -> bool:
        """Whether so much failed in a row that nothing but probes should be sent."""
        return self._in_a_row >= _MANY

    def failed(self, now: float, why: Rejection) -> None:
        """Learn that a request failed, or was told to come back later.

        Raises:
            OutageError: no request has succeeded for too long.
        """
        if self._since is None:
            self._since = now
        self._why = why
        self._in_a_row += why.status is None or why.status >= 500
        if now - self._since > self._outage:
            raise OutageError(
                f"no request has succeeded for {now - self._since:.0f} s (retry.outage: {self._outage:g}); the last "
                f"failure: {why}. {_hint(why)}"
            )

    def wasted(self, attempts: int, why: Rejection) -> None:
        """Learn of attempts that may have been billed, and whose request succeeded in the end.

        Raises:
            OutageError: there are too many of them for the number of successes.
        """
        self._budget -= attempts
        if self._budget < 0:
            raise OutageError(
                f"too many answers are lost for the number that arrive, and each may have been billed; the last "
                f"failure: {why}. {_hint(why)}"
            )

    def trouble(self, now: float) -> str | None:
        """What is wrong, once nothing has succeeded for a few seconds: for how long, and what came back last."""
        if self._since is None or self._why is None or now - self._since < _QUIET:
            return None
        return f"no request has succeeded for {now - self._since:.0f} s; the last failure: {self._why}"


def _hint(why: Rejection) -> str:
    if why.code == "malformed":
        return "If the server is well, endpoint.url or endpoint.wire is wrong; else run the job again later"
    if why.code == UNREACHABLE:
        return "Check endpoint.url and the network, and run the job again"
    if why.status == 504 or why.code == "timeout":
        return (
            "Run the job again later: it goes on where it stopped. If large requests take too long, set "
            "limits.documents to fewer, or endpoint.timeout to more"
        )
    return "Run the job again later: it goes on where it stopped"
