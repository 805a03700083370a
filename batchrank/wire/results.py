"""What all wire formats share: lists of index and score, usage, and the three shapes of an error."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from batchrank.errors import MalformedAnswerError
from batchrank.records import Floats

_MESSAGE_LIMIT = 500
_FINE = ("0", "200")


def mapping(data: object, what: str = "answer") -> dict[str, Any]:
    """The value as a mapping.

    Raises:
        MalformedAnswerError: it is something else.
    """
    if not isinstance(data, dict):
        raise MalformedAnswerError(f"the {what} is {_kind(data)}, not an object")
    return data


def values(
    results: object, documents: int, *, index: str = "index", score: str = "relevance_score"
) -> Floats:
    """Scores in request order, from a list of objects in any order.

    Raises:
        MalformedAnswerError: an index is missing, repeated or out of range, or a score isn't a finite number.
    """
    if not isinstance(results, list):
        raise MalformedAnswerError(f"the results are {_kind(results)}, not a list")
    if len(results) != documents:
        raise MalformedAnswerError(f"{len(results)} results for {documents} documents")
    try:
        places = list(map(itemgetter(index), results))
        scores = list(map(itemgetter(score), results))
    except (TypeError, KeyError) as error:
        raise MalformedAnswerError(f"a result without {index!r} or {score!r}: {error}") from None
    if not set(map(type, places)) <= {int}:
        raise MalformedAnswerError("an index that isn't an integer")
    if not set(map(type, scores)) <= {float, int}:
        raise MalformedAnswerError("a score that isn't a number")
    if documents and not (min(places) >= 0 and max(places) < documents):
        raise MalformedAnswerError(f"an index outside 0..{documents - 1}")
    try:
        answered = np.fromiter(scores, np.float64, documents)
    except OverflowError:
        raise MalformedAnswerError("a score too large for a number") from None
    if not np.isfinite(answered).all():
        raise MalformedAnswerError("a score that isn't finite")
    result = np.full(documents, np.nan)
    result[np.fromiter(places, np.intp, documents)] = answered
    if np.isnan(result).any():
        raise MalformedAnswerError("an index that comes twice, so another is missing")
    return result


def tokens(usage: object, key: str = "total_tokens") -> int | None:
    """The tokens billed, or None where the usage is missing or impossible."""
    count = usage.get(key) if isinstance(usage, dict) else None
    return count if type(count) is int and 0 <= count < 2**53 else None


def first_tokens(data: object, paths: Sequence[Sequence[str]]) -> int | None:
    """The tokens billed at the first of these paths that leads to a possible count; None where none does."""
    for *path, key in paths:
        place = data
        for name in path:
            place = place.get(name) if isinstance(place, dict) else None
        if (count := tokens(place, key)) is not None:
            return count
    return None


def error(data: object) -> tuple[str, str, str] | None:
    """Code, message and request id of an error in any of its shapes; None when the value isn't an error.

    1. ``{"code", "message", "request_id"}``, also inside an HTTP 200 (where an empty code, 0 or 200 is no error);
    2. ``{"error": {"code" | "type", "message"}}`` or ``{"error": "text", "error_type"}``;
    3. ``{"message"}`` or ``{"detail"}`` alone.
    """
    if not isinstance(data, dict):
        return None
    request_id = _text(data.get("request_id") or data.get("id"))
    nested = data.get("error")
    if isinstance(nested, dict):
        code = nested.get("code") or nested.get("type")
        return _text(code), _text(nested.get("message")), request_id or _text(nested.get("request_id"))
    if isinstance(nested, str):
        return _text(data.get("error_type")), _text(nested), request_id
    if data.get("code") and str(data["code"]) not in _FINE:
        return _text(data["code"]), _text(data.get("message")), request_id
    if not {"results", "output", "data"} & data.keys():
        message = data.get("message") or data.get("detail")
        return ("", _text(message), request_id) if message else None
    return None


def _text(value: object) -> str:
    return "" if value is None else str(value)[:_MESSAGE_LIMIT]


def _kind(value: object) -> str:
    return {type(None): "null", list: "a list", dict: "an object", str: "a text"}.get(type(value), "a number")
