"""Reads answers and errors in all the shapes that servers give them, because formats share most of it."""

import html
import math
import re
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from batchrank.data import Answer, Floats
from batchrank.errors import MalformedAnswerError

_LISTS = ("results", "data", "rankings")
_WRAPPERS = ("output", "data", "result")
"""Objects that gateways put the list in."""
_SCORES = ("relevance_score", "score", "logit")
_MOST_TOKENS = 2**30
"""More tokens than any request can have: a token is a byte at least, and no API takes a body of 1 GiB."""
_DIGITS = 10
"""Digits of the largest count that is believed, 2**30."""
_ID_LIMIT = 500
"""Characters of a request id that are kept; real ones have a few dozen."""


def answer(
    data: object, documents: int, *, place: Sequence[str] = ("results",), score: str = "relevance_score"
) -> Answer:
    """An answer to a request of so many documents.

    Args:
        data: the decoded body.
        documents: how many were sent.
        place: the keys that lead to the list of results where the format is kept to.
        score: the format's own key for a score.

    Raises:
        MalformedAnswerError: it does not score each document exactly once.
    """
    found = data
    for name in place:
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, list) or (documents and not found):
        found = _elsewhere(data, found)
    scores = values(found, documents, score=score)
    if not isinstance(data, dict):
        return Answer(scores)
    request_id = str(data.get("request_id") or data.get("id") or "")[:_ID_LIMIT]
    return Answer(scores, tokens(data), request_id, searches(data))


def _elsewhere(data: object, found: object) -> object:
    """The only list of results in an answer that has none where it should be; else what is there, for the message.

    A list of bare scores is no list of results: nothing says whose they are.
    """
    if isinstance(data, list):
        return data
    if not isinstance(data, dict):
        raise MalformedAnswerError(f"the answer is {_kind(data)}, without results")
    inner = [data[name] for name in _WRAPPERS if isinstance(data.get(name), dict)]
    lists = [place[name] for place in (data, *inner) for name in _LISTS if isinstance(place.get(name), list)]
    filled = [some for some in lists if some]
    return filled[0] if len(filled) == 1 else found


def values(
    results: object, documents: int, *, index: str = "index", score: str = "relevance_score"
) -> Floats:
    """Scores in request order, from a list of objects in any order.

    Args:
        results: the list.
        documents: how many results it must have.
        index: the key for a document's place in the request.
        score: the key for its score; where no result has it, another usual one does.

    Raises:
        MalformedAnswerError: an index is missing, repeated or out of range, or a score isn't a finite number.
    """
    if not isinstance(results, list):
        raise MalformedAnswerError(f"the results are {_kind(results)}, not a list")
    if len(results) != documents:
        raise MalformedAnswerError(f"{len(results)} results for {documents} documents")
    if documents and isinstance(results[0], dict) and score not in results[0]:
        score = _other_score(results, score)
    try:
        places = list(map(itemgetter(index), results))
        scores = list(map(itemgetter(score), results))
    except (TypeError, KeyError) as error:
        raise MalformedAnswerError(f"a result without {index!r} or {score!r}: {error}") from None
    if not set(map(type, places)) <= {int}:
        raise MalformedAnswerError("an index that isn't an integer")
    if not set(map(type, scores)) <= {float, int}:
        raise MalformedAnswerError("a score that isn't a number")
    try:
        at = np.fromiter(places, np.intp, documents)
        inside = bool((at.view(np.uintp) < documents).all())  # where a negative number is a large one
    except OverflowError:
        inside = False
    if not inside:
        raise MalformedAnswerError(f"an index outside 0..{documents - 1}")
    try:
        answered = np.fromiter(scores, np.float64, documents)
    except OverflowError:
        raise MalformedAnswerError("a score too large for a number") from None
    result = np.full(documents, np.nan)
    result[at] = answered
    if not np.isfinite(result).all():
        finite = np.isfinite(answered).all()
        why = "an index that comes twice, so another is missing" if finite else "a score that isn't finite"
        raise MalformedAnswerError(why)
    return result


def _other_score(results: list[Any], score: str) -> str:
    """The one key for a score that all the results have and none has besides; the format's own if there is no such."""
    known = {name for result in results if isinstance(result, dict) for name in _SCORES if name in result}
    return known.pop() if len(known) == 1 else score


def tokens(data: dict[str, Any]) -> int | None:
    """The tokens billed, wherever servers and gateways put them; None where they are missing or impossible.

    In order, the first that is possible:
    1. ``usage``, then ``output.usage``: ``total_tokens``, or ``prompt_tokens`` or ``input_tokens`` alone;
    2. ``meta.billed_units``: ``total_tokens`` or ``input_tokens``;
    3. ``meta.tokens``: ``total_tokens``, or ``input_tokens`` and ``output_tokens`` together.
    Zero is impossible too: every document has a text.
    """
    usage = data.get("usage")
    if isinstance(usage, dict) and (total := _count(usage.get("total_tokens"))):
        return total
    output, meta = _inside(data, "output"), _inside(data, "meta")
    billed, counted = _inside(meta, "billed_units"), _inside(meta, "tokens")
    both = (_count(counted.get("input_tokens")) or 0) + (_count(counted.get("output_tokens")) or 0)
    return next(
        (
            count
            for count in (
                *_counts(_inside(data, "usage")),
                *_counts(_inside(output, "usage")),
                *_counts(billed),
                _count(counted.get("total_tokens")),
                both,
            )
            if count
        ),
        None,
    )


def searches(data: dict[str, Any]) -> int | None:
    """The searches billed, which is what Cohere charges for: ``meta.billed_units.search_units``; None if not told."""
    if "meta" not in data:
        return None
    return _count(_inside(_inside(data, "meta"), "billed_units").get("search_units")) or None


def _counts(usage: dict[str, Any]) -> tuple[int | None, ...]:
    return tuple(_count(usage.get(name)) for name in ("total_tokens", "prompt_tokens", "input_tokens"))


def _inside(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    """A whole number, also as a float or in digits; None for anything else, or one that no request can have."""
    if isinstance(value, str) and len(value) <= _DIGITS and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def _kind(value: object) -> str:
    return {type(None): "null", list: "a list", dict: "an object", str: "a text"}.get(type(value), "a number")


_MESSAGE_LIMIT = 500
"""Characters of a message that are kept: enough for any reason, while pages of HTML come as messages too."""
_VISIBLE = 200
"""Characters of a page that are shown: enough to tell whose it is, and what it says."""
_FINE = {"", "0", "200", "201", "ok", "true", "none", "null", "success", "succeeded", "successful"}
"""Codes of gateways that mean that all is well."""
_FAILED = {"error", "fail", "failed", "failure", "false"}
_CODES = ("code", "error_code", "errorcode", "err_code", "errcode", "statuscode", "status_code", "status")
_TEXTS = (
    "message", "msg", "error_msg", "error_message", "errormessage", "err_msg", "errmsg", "detail", "details", "errors",
    "error", "error_description", "description", "reason", "title",
)  # fmt: skip
_DEPTH = 4
"""Levels in which an error's text is looked for; servers nest it two or three deep."""
_LISTED = 5
"""Entries of a list of errors that are shown, so that a message stays readable."""
_RESULTS = {"results", "output", "data", "rankings"}


def error(data: object) -> tuple[str, str, str] | None:
    """Code, message and request id of an error in any of its shapes; None when the value isn't an error.

    In order, the first that applies:
    1. ``error``: an object with ``code`` or ``type`` and a text, or a text, or true;
    2. a code that isn't a fine one: ``code``, ``error_code``, ``status``, ``statusCode``, ... with a text beside it;
    3. ``success``: false;
    4. ``errors``, or a text alone, ``message`` or ``detail``, where there are no results and nothing says all is well.
    """
    if not isinstance(data, dict):
        return None
    fields = {str(key).lower(): value for key, value in data.items()}
    request_id = _text(fields.get("request_id") or fields.get("requestid") or fields.get("id"))
    nested = fields.get("error")
    if isinstance(nested, dict):
        inner = {str(key).lower(): value for key, value in nested.items()}
        code, message = _code(inner) or _text(inner.get("type")), _words(inner)
        if code or (message and not _fine(inner)):
            return code, message or _words(fields), request_id or _text(inner.get("request_id"))
    elif nested is True or (isinstance(nested, str | list) and _flat(nested)):
        return *_named(fields), request_id
    code, message = _code(fields), _words(fields)
    failed = fields.get("success") is False or str(fields.get("status")).lower() in _FAILED
    if code or failed:
        return code, message, request_id
    alone = message and not _fine(fields) and not _RESULTS & fields.keys()
    return ("", message, request_id) if alone or fields.get("errors") else None


def _named(fields: dict[str, Any]) -> tuple[str, str]:
    """Code and text where ``error`` is no object: a name or a text of its own, or just true."""
    name, message = _flat(fields["error"]), _words(fields)
    code = _code(fields) or _text(fields.get("error_type"))
    if message == name or not name:
        return code, message
    return (code, f"{name}: {message}") if " " in name or code else (name, message)


def said(data: object) -> str:
    """Whatever text a decoded body has for people; empty when it has none."""
    if isinstance(data, dict):
        return _words({str(key).lower(): value for key, value in data.items()})
    return data[:_MESSAGE_LIMIT] if isinstance(data, str) else ""


def visible(body: bytes) -> str:
    """The beginning of what a reader would see of a page: a firewall's or a gateway's, without its tags."""
    text = body[: 64 * 1024].decode(errors="replace")
    text = re.sub(r"(?is)<(script|style)\b.*?(?:</\1\s*>|$)|<!--.*?(?:-->|$)|<[a-z/!?][^<>]*>", " ", text)
    shown = " ".join(html.unescape(text).split())[:_VISIBLE]
    return "".join(letter if letter.isprintable() else " " for letter in shown)


def _code(fields: dict[str, Any]) -> str:
    """The first code that isn't a fine one; a word that only says that it failed is none."""
    for name in _CODES:
        value = fields.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            code = _text(value)
            if code.lower() not in _FINE | _FAILED and (name != "status" or code.isdigit()):
                return code
    return ""


def _fine(fields: dict[str, Any]) -> bool:
    """Whether something says that all is well."""
    told = [fields[name] for name in ("code", "status", "success") if fields.get(name) is not None]
    return any(str(value).lower() in _FINE - {""} for value in told)


def _words(fields: dict[str, Any], depth: int = _DEPTH) -> str:
    """The first text of an error, wherever it stands."""
    return next((text for name in _TEXTS if (text := _flat(fields.get(name), depth))), "")


def _flat(value: object, depth: int = _DEPTH) -> str:
    """A text as it is; a list of them, or of a validator's findings (where and what, not the value), in one line."""
    if isinstance(value, str):
        return _text(value.strip())
    if isinstance(value, list) and depth:
        return _text("; ".join(filter(None, (_flat(inner, depth - 1) for inner in value[:_LISTED]))))
    if not isinstance(value, dict) or not depth:
        return ""
    fields = {str(key).lower(): inner for key, inner in value.items()}
    place = fields.get("loc")
    where = ".".join(map(str, place)) + ": " if isinstance(place, list) else ""
    return _text(where + _words(fields, depth - 1))


def _text(value: object) -> str:
    return "" if value is None else str(value)[:_MESSAGE_LIMIT]
