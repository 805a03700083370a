"""Decides what to do about a rejection: a pure function of what came back and of how often it was tried."""

import random
import re
from dataclasses import replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Literal

from batchrank.data import Rejection
from batchrank.wire import phrases


class Action(Enum):
    """What a rejection calls for."""

    RETRY = "retry"
    """It may pass: connection faults, 408, 409, 5xx, malformed answers."""
    SLOW_REQUESTS = "requests"
    """Too many requests: slow down, then retry."""
    SLOW_TOKENS = "tokens"
    """Too many tokens: slow down, then retry."""
    SLOW_GROWTH = "growth"
    """The rate rose too quickly: ramp up anew, then retry."""
    WAIT = "wait"
    """A quota is used up until a time that is far away, which ``resets`` tells: go on then."""
    SPLIT = "split"
    """The request is too large: send its halves."""
    REFUSE = "refuse"
    """This content is refused: halve to find the document, and go on without it."""
    REJECT = "reject"
    """Rejected for a reason that nothing explains: one document's fault, or the whole run's."""
    ACCESS = "access"
    """Not let in: a firewall that dislikes one text, a server that is just starting, or a wrong key or address."""
    STOP = "stop"
    """No request of this run can succeed: an unpaid account, a server that isn't who it should be."""


_STATUS = {
    "invalidapikey": 401, "invalid_api_key": 401, "accessdenied": 403, "model.accessdenied": 403,
    "workspace.accessdenied": 403, "modelnotfound": 404, "model_not_found": 404, "workspacenotfound": 404,
    "requesttimeout": 408, "badrequest.toolarge": 413, "rate_limit_exceeded": 429, "limit_requests": 429,
    "insufficient_quota": 429, "systemerror": 500, "modelservicefailed": 500, "server_error": 500,
    "internal_server_error": 500, "modelunavailable": 503, "service_unavailable": 503,
}  # fmt: skip
"""The status a code comes with, for when it comes inside an HTTP 200."""
BAD_KEY = ("invalidapikey", "invalid_api_key")
"""Codes that stand for a 401 where errors come inside a 200."""
_PREFIXES = {"throttling": 429, "limitrequests": 429, "allocationquota": 429, "requesttimeout": 408}
_PARAMETER = "internalerror.algo.invalidparameter"
"""The one internal error that is the request's own: it comes with 400 and with 500, and its words tell why."""
_PASSING = frozenset({408, 409, 424, 425, 499})
_UNSURE = frozenset({206, 408, 499, 500, 502, 504, *range(520, 525)})
"""Statuses after which the server may have done the work: cut off, given up, or lost between a gateway and it."""
_GONE = frozenset({502, 503, 504, *range(520, 525)})
"""Statuses of a gateway whose server is gone, and of a server that is starting or ending."""
_DENIED = frozenset({401, 403, 498})
"""Statuses of who isn't let in; the other ones of that kind are about the address."""
_SPLITS = frozenset({400, 413, 422, 429, 500})
"""Statuses under which known words of size are believed."""
_SLOW = {
    "requests": Action.SLOW_REQUESTS,
    "tokens": Action.SLOW_TOKENS,
    "growth": Action.SLOW_GROWTH,
}
_FAR = 3600.0
"""Seconds; a quota that comes back later than this is not waited for. The longest windows of a rate are a minute."""
_ABSURD = 86400.0
"""Seconds; a Retry-After so long is a server's mistake: it is cut to this, and not believed."""


def classify(rejection: Rejection, wire: str = "") -> Action:
    """What a rejection calls for.

    In order, the first that applies; ``wire.phrases`` holds the words, which the wire format decides in part:
    1. a server that isn't who it should be: stop; no status, or a malformed answer: retry;
    2. words or a code of money, whatever the status, or 402: stop;
    3. 403 or 429 that tells when its quota comes back: wait if that is far away, else slow down;
    4. 429, a 403 or 503 that speaks of a rate, and codes of throttling: requests, tokens or growth, but a request
       larger than a minute's tokens is too large;
    5. 413, and known words of size; 400 or 422 that says in any words that something is too large: split;
    6. known words of content refused or empty, 415; 400 or 422 that says in any words that a document is empty: refuse;
    7. 408, 409, 424, 425, 499, 5xx, and InternalError codes under any status: retry;
    8. 401, 403, 404, 405, 407, 498 and redirects: access;
    9. any other: rejected.
    """
    code, message = rejection.code.lower(), rejection.message.lower()
    if code == "certificate":
        return Action.STOP
    if rejection.status is None or code == "malformed":
        return Action.RETRY
    status, kind = _meant(rejection.status, code), phrases.meaning(code, message, wire)
    if kind == "billing" or status == 402:
        return Action.STOP
    if (status in (403, 429) or rejection.status == 200) and (wait := _wait(rejection)) is not None:
        return Action.WAIT if wait > _FAR else _SLOW.get(kind or "", Action.SLOW_REQUESTS)
    if status == 413 or (kind == "size" and status in _SPLITS):
        return Action.SPLIT
    if _throttles(status, code, kind, inside=rejection.status == 200):
        return _throttle(code, message, kind)
    loose = status in (400, 422) and kind is None
    if loose and phrases.too_large(message):
        return Action.SPLIT
    if kind in ("refused", "empty") or status == 415 or (loose and phrases.empty(message)):
        return Action.REFUSE
    if status in _PASSING or status >= 500 or (code.startswith("internalerror") and code != _PARAMETER):
        return Action.RETRY
    if status in (401, 403, 404, 405, 407, 498) or 300 <= status < 400:
        return Action.ACCESS
    return Action.REJECT


def possibly_billed(rejection: Rejection, wire: str = "") -> bool:
    """Whether the server may have done an attempt's work and billed it, although no usable answer came.

    This holds for an unusable answer, an unknown fate, and the statuses of a server or gateway that gave up midway. It
    doesn't where known words tell that the request was too large to begin with.
    """
    code = rejection.code.lower()
    if classify(rejection, wire) is Action.SPLIT:
        return False
    if rejection.status is None:
        return code not in ("unreachable", "certificate")
    return code == "malformed" or _meant(rejection.status, code) in _UNSURE


def gone(rejection: Rejection) -> bool:
    """Whether an attempt's fate says that its server is gone or about to go, so that another one should be asked."""
    if rejection.status is None:
        return rejection.code in ("unreachable", "certificate", "connection")
    return rejection.status in _GONE and not slows(classify(rejection))


def resets(rejection: Rejection) -> str | None:
    """When a used-up quota comes back, in the server's words where it has some; None when it tells no such time."""
    match = _RESETS.search(rejection.message)
    if match is not None:
        return match.group().strip(" .,;")
    if rejection.retry_after is not None and _FAR < rejection.retry_after < _ABSURD:
        return f"comes back in {rejection.retry_after / 3600:.1f} hours"
    match = _DAILY.search(rejection.message)
    return match.group().strip() if match else None


_RESETS = re.compile(
    r"(?:replenished|resets?|retry|try again|available again|restored)[^.\n]{0,40}?\b(?:in|at|on|after)\b:? "
    r"[^\n]*?(?=[.;,]?\s*$|[.;] |\n)|[^，。,]*将在.{0,40}?重置",
    re.IGNORECASE,
)
"""Azure API Management: "Quota will be replenished in 02:15:31."; Zhipu: "您的限额将在 ... 重置"; "resets at ..."."""
_DAILY = re.compile(
    r"\b(?:daily|weekly|monthly)\b.{0,40}?\b(?:quota|limit)\b|(?:quota|limit)\b.{0,60}?\bper (?:day|week|month)\b|"
    r"\(?\b[rt]pd\b\)?|free-models-per-day|今日.{0,10}限额",
    re.IGNORECASE,
)
"""A quota of a day or longer: SiliconFlow's RPD and TPD, Qianfan's "daily request limit", Zhipu's 1304."""
_CLOCK = re.compile(r"\b(?:(\d+)\.)?(\d{1,2}):(\d\d):(\d\d)(?![\dZ+])")
"""A span as .NET writes it: days, hours, minutes, seconds."""
_SPAN = re.compile(
    r"(\d+(?:\.\d+)?) ?(d|h|m|s|ms)(?:ays?|ours?|rs?|in(?:ute)?s?|ec(?:ond)?s?)?(?![a-z])", re.IGNORECASE
)
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def _wait(rejection: Rejection) -> float | None:
    """Seconds until a used-up quota comes back, infinite for a time of day; None where it doesn't say."""
    if rejection.retry_after is not None:
        return rejection.retry_after if _FAR < rejection.retry_after < _ABSURD else None
    told, message = resets(rejection) or "", rejection.message
    span = _seconds(told)
    if span is not None:
        return span if rejection.status == 403 or span > _FAR else None
    dated = (_DATE.search(told) or "重置" in told) and "rate limit" not in message.lower()
    return float("inf") if dated or _DAILY.search(message) else None


def _seconds(text: str) -> float | None:
    if _DATE.search(text):
        return None
    if clock := _CLOCK.search(text):
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    parts = _SPAN.findall(text)
    return sum(float(number) * _UNITS[unit.lower()] for number, unit in parts) if parts else None


def _meant(status: int, code: str) -> int:
    """The status; for an error inside an HTTP 2xx the one it stands for: what its code comes with, or the code."""
    if not 200 <= status < 300 or status in (204, 206):
        return status
    if code.isascii() and code.isdigit() and 300 <= int(code) < 600:
        return int(code)
    if code == _PARAMETER:
        return 400
    return next(
        (known for start, known in _PREFIXES.items() if code.startswith(start)),
        500 if code.startswith("internalerror") else _STATUS.get(code, 400),
    )


def _throttles(status: int, code: str, kind: str | None, *, inside: bool) -> bool:
    """Whether a rejection is about a rate: by its status, by its code, or by its words where the status may err."""
    by_code = code.startswith(("throttling", "limitrequests", "limit_requests", "allocationquota"))
    return status == 429 or by_code or (kind in ("requests", "growth") and (status in (403, 503) or inside))


def _throttle(code: str, message: str, kind: str | None) -> Action:
    if "burst" in code:
        return Action.SLOW_GROWTH
    if kind in _SLOW:
        return _SLOW[kind]
    return Action.SLOW_TOKENS if "allocat" in code or "token" in message else Action.SLOW_REQUESTS


def advice(rejection: Rejection, wire: str = "") -> str:
    """What the user can do about a rejection that stops the run."""
    code, action = rejection.code.lower(), classify(rejection, wire)
    status = None if rejection.status is None else _meant(rejection.status, code)
    again = "and run the job again: it goes on where it stopped"
    if code == "certificate":
        return f"Correct endpoint.url or the server's certificate, {again}"
    if action is Action.WAIT:
        return f"Wait for the quota ({resets(rejection)}), {again}"
    if action is Action.STOP or status == 429:
        return f"Settle the account's bill or quota with the vendor, {again}"
    if status == 407:
        return f"Correct endpoint.proxy, or the environment's proxy, {again}"
    if status in (401, 498):
        return f"Correct the key that endpoint.api_key_env or endpoint.api_key_file names, {again}"
    if status == 403:
        return f"Have the vendor give this key access to the model, {again}"
    return f"Correct model or endpoint.url, or endpoint.wire, {again}"


def about_key(rejection: Rejection, wire: str = "") -> Literal["surely", "perhaps"] | None:
    """Whether the key was refused, so that another one may fare better; None where nothing points to that.

    Surely: an unpaid bill, a quota that comes back hours later. Perhaps: a denial, as a firewall may dislike one text
    and a server be set up otherwise than the rest; words of money that may be a text's own.
    """
    action = classify(rejection, wire)
    if action is Action.WAIT:
        return "surely"
    if action is Action.STOP and rejection.code != "certificate":
        return "surely" if speaks_for_itself(rejection, wire) else "perhaps"
    denied = action is Action.ACCESS and _meant(rejection.status or 0, rejection.code.lower()) in _DENIED
    return "perhaps" if denied else None


def speaks_for_itself(rejection: Rejection, wire: str = "") -> bool:
    """Whether a rejection stops a run without the message's words, which may be a text's own that comes back."""
    return rejection.status in (402, 429) or classify(replace(rejection, message=""), wire) is Action.STOP


def slows(action: Action) -> bool:
    """Whether an action tells the limiter to slow down."""
    return action in _SLOW.values()


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
        return min(float(text), _ABSURD)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return min(max(when.timestamp() - now, 0.0), _ABSURD)
