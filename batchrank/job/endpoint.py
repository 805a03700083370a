"""Judges the fields that a job adds to every request: which ones it may not set, and which of them are secrets."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from batchrank.errors import JobError

REDACTED = "(not shown)"

_INPUT = "it comes from the input; remove it"
_SCORES = "merging needs the score of every document; remove it, and set output.top_n to write fewer"
_INSTRUCT = "the job has a key for it; set instruct"
_RESERVED = {
    "model": "it is the job's model; set model: {base: ..., name: ...}",
    **dict.fromkeys(("query", "documents", "texts", "passages", "input"), _INPUT),
    **dict.fromkeys(("top_n", "top_k"), _SCORES),
    "stream": "answers are read whole; remove it",
}
_OF_WIRE = {
    "dashscope": {"instruct": _INSTRUCT},
    "dashscope-native": {
        "parameters.top_n": _SCORES,
        "parameters.instruct": _INSTRUCT,
        "parameters.fps": "the job has a key for it; set fps",
    },
    "siliconflow": {"instruction": _INSTRUCT},
}
_SECRET = {
    "key", "apikey", "token", "secret", "password", "passwd", "pwd", "credential", "credentials", "auth",
    "authorization", "bearer",
}  # fmt: skip
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def check_body(body: Mapping[str, Any], wire: str) -> None:
    """See that the added fields leave alone what batchrank itself says in a request.

    Raises:
        JobError: one of them does not; names it, and says where it belongs.
    """
    for path, why in {**_RESERVED, **_OF_WIRE.get(wire, {})}.items():
        place: Any = body
        for name in path.split("."):
            place = place.get(name, _Absent) if isinstance(place, Mapping) else _Absent
        if place is not _Absent:
            raise JobError(f"endpoint.body.{path}: can't be set here, because {why}")
    if wire == "dashscope-native" and not isinstance(body.get("parameters", {}), Mapping):
        raise JobError("endpoint.body.parameters: must be a mapping, as instruct and fps go into it")


def check_json(body: Mapping[str, Any]) -> None:
    """See that the added fields can be written as JSON.

    Raises:
        ValueError: they can't: a number without a form there, or nesting that no request has.
    """
    try:
        orjson.dumps(body)
    except TypeError as error:
        raise ValueError(f"can't be written as JSON: {error}") from None
    try:
        json.dumps(body, allow_nan=False)
    except ValueError:
        raise ValueError("infinite numbers and nan have no form in JSON; write another one") from None


class _Absent:
    """No value."""


def secrets(body: Any, *, under: bool = False) -> Iterator[str]:
    """The texts that stand under a key whose name says that they are secret: ``api_key``, ``authToken``."""
    if isinstance(body, Mapping):
        for key, value in body.items():
            yield from secrets(value, under=under or _tells_secret(key))
    elif isinstance(body, list):
        for value in body:
            yield from secrets(value, under=under)
    elif under and isinstance(body, str):
        yield body


def redacted(body: Any, *, under: bool = False) -> Any:
    """The same fields with those texts left out."""
    if isinstance(body, Mapping):
        return {key: redacted(value, under=under or _tells_secret(key)) for key, value in body.items()}
    if isinstance(body, list):
        return [redacted(value, under=under) for value in body]
    return REDACTED if under and isinstance(body, str) else body


def _tells_secret(key: str) -> bool:
    return any(word.lower() in _SECRET for word in _WORD.findall(key))
