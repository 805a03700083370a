"""What all wire formats share in reading an answer: scores, tokens billed and the request's id, wherever they stand.

Gateways of many kinds put their own wrapping around an answer, so each format is read where its documents say first,
and elsewhere only when nothing is there. What is never taken lightly is the scores: each document exactly once.
"""

import math
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from batchrank.arrays import Floats
from batchrank.errors import MalformedAnswerError
from batchrank.requests import Answer

_LISTS = ("results", "data", "rankings")
_WRAPPERS = ("output", "data", "result")
"""Objects that gateways put the list in."""
_SCORES = ("relevance_score", "score", "logit")
_MOST_TOKENS = 2**30
"""More tokens than any request can have: a token is a byte at least, and no API takes a body of 1 GiB."""
_DIGITS = 10
_ID_LIMIT = 500


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
