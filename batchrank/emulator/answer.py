"""A good answer, and the ways to spoil its content or its body."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """The content of an answer, whichever shape it gets.

    Attributes:
        results: ``index``, ``relevance_score`` and perhaps ``document`` of each result, best first.
        usage: ``total_tokens``; None leaves usage out.
    """

    results: Any
    usage: dict[str, Any] | None


def _edit(change: Callable[[list[Result], random.Random], Any]) -> Callable[[Answer, random.Random], Answer]:
    """Changes the results; leaves alone what another fault made of them that is no results any more."""

    def edit(answer: Answer, rng: random.Random) -> Answer:
        results = answer.results
        if not isinstance(results, list) or not results or not isinstance(results[0], dict):
            return answer
        return replace(answer, results=change([dict(r) for r in results], rng))

    return edit


def _put(key: str, value: Any) -> Callable[[Answer, random.Random], Answer]:
    """Puts a value into one result."""

    def change(results: list[Result], rng: random.Random) -> list[Result]:
        rng.choice(results)[key] = value
        return results

    return _edit(change)


def _missing_index(results: list[Result], rng: random.Random) -> list[Result]:
    rng.choice(results).pop("index", None)
    return results


def _duplicate_index(results: list[Result], rng: random.Random) -> list[Result]:
    """One index twice, another not at all; with one result it comes twice."""
    if len(results) == 1:
        return results * 2
    one, other = rng.sample(range(len(results)), 2)
    results[one]["index"] = results[other].get("index", 0)
    return results


def _fewer(results: list[Result], rng: random.Random) -> list[Result]:
    results.pop(rng.randrange(len(results)))
    return results


def _more(results: list[Result], rng: random.Random) -> list[Result]:
    return [*results, {**rng.choice(results), "index": len(results)}]


def _usage(usage: dict[str, Any] | None) -> Callable[[Answer, random.Random], Answer]:
    return lambda answer, _: replace(answer, usage=usage)


RESULT_FAULTS: dict[str, Callable[[Answer, random.Random], Answer]] = {
    "score-nan": _put("relevance_score", float("nan")),
    "score-infinite": _put("relevance_score", float("inf")),
    "score-null": _put("relevance_score", None),
    "score-string": _put("relevance_score", "high"),
    "score-bool": _put("relevance_score", True),
    "index-missing": _edit(_missing_index),
    "index-duplicate": _edit(_duplicate_index),
    "index-out-of-range": _put("index", 1_000_000),
    "index-negative": _put("index", -1),
    "index-string": _put("index", "0"),
    "results-fewer": _edit(_fewer),
    "results-more": _edit(_more),
    "results-empty": _edit(lambda results, rng: []),
    "results-null": _edit(lambda results, rng: None),
    "results-object": _edit(lambda results, rng: {"0": results[0]}),
    "results-strings": _edit(lambda results, rng: ["result"] * len(results)),
    "usage-missing": _usage(None),
    "usage-negative": _usage({"total_tokens": -1}),
    "usage-string": _usage({"total_tokens": "many"}),
}
"""Wrong content: the answer is JSON of the right shape, more or less. Each takes an answer of one result or more."""

_DEPTH = 100_000

BODY_FAULTS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "json-truncated": lambda body, rng: body[: rng.randrange(1, max(2, len(body)))],
    "json-empty": lambda body, rng: b"",
    "json-list": lambda body, rng: b"[]",
    "json-null": lambda body, rng: b"null",
    "json-garbage": lambda body, rng: rng.randbytes(200),
    "json-deep": lambda body, rng: b'{"results": ' + b"[" * _DEPTH + b"]" * _DEPTH + b"}",
    "html-200": lambda body, rng: b"<!DOCTYPE html><html><body><h1>200 OK</h1></body></html>",
}
"""Broken bodies, sent with status 200."""
