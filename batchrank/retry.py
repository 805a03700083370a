"""What to do about a rejection: a pure function of what came back and how often it was tried."""

import random
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum

from batchrank.records import Rejection


class Action(Enum):
    """What a rejection calls for."""

    RETRY = "retry"
    """It may pass: connection faults, 408, 5xx, malformed answers."""
    SLOW_REQUESTS = "requests"
    """429 for too many requests: slow down, then retry."""
    SLOW_TOKENS = "tokens"
    """429 for too many tokens: slow down, then retry."""
    SLOW_GROWTH = "growth"
    """429 for a rate that rose too quickly: ramp up anew, then retry."""
    SPLIT = "split"
    """The request is too large: send its halves."""
    REFUSE = "refuse"
    """This content is refused: halve to find the document, and go on without it."""
    FAIL = "fail"
    """This request can't succeed, and neither can a part of it."""
    STOP = "stop"
    """No request of this run can succeed: bad key, unpaid account, unknown model."""


_BILLING = {
    "arrearage", "prepaidbilloverdue", "postpaidbilloverdue", "commoditynotpurchased", "insufficient_quota",
    "allocationquota.freetieronly", "accessdenied.unpurchased",
}  # fmt: skip
_STATUS = {
    "invalidapikey": 401, "invalid_api_key": 401, "accessdenied": 403, "model.accessdenied": 403,
    "workspace.accessdenied": 403, "modelnotfound": 404, "model_not_found": 404, "workspacenotfound": 404,
    "requesttimeout": 408, "badrequest.toolarge": 413, "rate_limit_exceeded": 429, "systemerror": 500,
    "modelservicefailed": 500, "modelunavailable": 503,
}  # fmt: skip
"""The status a code comes with, for when it comes inside an HTTP 200."""
_EMPTY = "should not be empty.: input.documents"
"""What one blank document, by the API's own idea of blank, brings on its whole request."""
_REFUSED = {"datainspectionfailed", "data_inspection_failed", "inputdownloadfailed", "unsupportedfileformat"}
_TOO_LARGE = (
    "larger than", "too large", "too long", "exceed", "maximum context", "maximum length", "limit of", "at most",
    "range of input length", "batch size", "too many",
)  # fmt: skip
_SLOW = (Action.SLOW_REQUESTS, Action.SLOW_TOKENS, Action.SLOW_GROWTH)


def classify(rejection: Rejection) -> Action:
    """What a rejection calls for.

    In order, the first that applies:
    1. billing codes, whatever the status: stop (a 429 among them never passes); a server that isn't who it should be:
       stop;
    2. no status, or a malformed answer: retry;
    3. 429, by what its code and message say: requests, tokens or growth;
    4. 408, 424, 425, 5xx, and InternalError codes under any status: retry;
    5. 413, and a 400 or 422 that speaks of size: split;
    6. 400 or 415 for content refused, unreadable or empty: refuse;
    7. 401, 402, 403, 404, 405, 498 and redirects: stop, because every other request would get the same;
    8. any other: this request fails.
    """
    code, message = rejection.code.lower(), rejection.message.lower()
    status = _inside(code) if rejection.status == 200 and code != "malformed" else rejection.status
    if (
        code == "certificate"
        or code in _BILLING
        or "free allocated quota exceeded" in message
        or "free tier" in message
    ):
        return Action.STOP
    if status is None or code == "malformed":
        return Action.RETRY
    if status == 429 or code.startswith(("throttling", "limitrequests", "allocationquota")):
        return _throttle(code, message)
    if status in (408, 424, 425) or status >= 500 or code.startswith(("internalerror", "requesttimeout")):
        return Action.RETRY
    if status == 413 or (status in (400, 422) and any(phrase in message for phrase in _TOO_LARGE)):
        return Action.SPLIT
    if code in _REFUSED or status == 415 or _EMPTY in message:
        return Action.REFUSE
    if status in (401, 402, 403, 404, 405, 498) or 300 <= status < 400:
        return Action.STOP
    return Action.FAIL


def _inside(code: str) -> int:
    """The status that an error inside an HTTP 200 stands for: what its code comes with, or the code itself."""
    return (
        int(code) if code.isascii() and code.isdigit() and 300 <= int(code) < 600 else _STATUS.get(code, 400)
    )


def advice(rejection: Rejection) -> str:
    """What the user can do about a rejection that stops the run."""
    code, status = rejection.code.lower(), rejection.status
    status = _inside(code) if status == 200 else status
    again = "and run the job again: it goes on where it stopped"
    if code == "certificate":
        return f"Correct endpoint.url or the server's certificate, {again}"
    if code in _BILLING or status == 429:
        return f"Settle the account's bill or quota with the vendor, {again}"
    if status == 401:
        return f"Correct the key that endpoint.api_key_env or endpoint.api_key_file names, {again}"
    if status == 403:
        return f"Have the vendor give this key access to the model, {again}"
    return f"Correct model or endpoint.url, {again}"


def _throttle(code: str, message: str) -> Action:
    if "increased too quickly" in message or "burst" in code:
        return Action.SLOW_GROWTH
    if "allocat" in code or "allocated quota" in message or "current quota" in message or "token" in message:
        return Action.SLOW_TOKENS
    return Action.SLOW_REQUESTS


def slows(action: Action) -> bool:
    """Whether an action tells the limiter to slow down."""
    return action in _SLOW


def delay(attempt: int, retry_after: float | None, max_delay: float, rng: random.Random) -> float:
    """Seconds to wait before the next try.

    Full jitter over an exponential cap, 1 s doubling with each attempt; a Retry-After is a lower bound, itself
    capped at ``max_delay``, with a little jitter so that waiters don't come back together.

    Args:
        attempt: tries made so far, from 1.
        retry_after: seconds the API asked for.
        max_delay: the longest wait in seconds.
        rng: where the jitter comes from.
    """
    jitter = rng.uniform(0, min(max_delay, 2.0 ** min(attempt - 1, 30)))
    if retry_after is None:
        return jitter
    return min(max_delay, retry_after + jitter / 4)


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds in a Retry-After header: a number or an HTTP-date; None when it makes no sense.

    Args:
        header: the header's value.
        now: seconds since the epoch, for dates.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return min(float(text), 86400.0)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return min(max(when.timestamp() - now, 0.0), 86400.0)
