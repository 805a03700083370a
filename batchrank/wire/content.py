"""What requests are made of besides plain text, and what several formats write alike."""

import json
from collections.abc import Mapping
from typing import Any, cast

import orjson

from batchrank.errors import JobError
from batchrank.requests import Request


def texts(request: Request, wire: str) -> tuple[str, list[str]]:
    """The query and the documents of a request that holds nothing but text.

    Raises:
        JobError: it holds an image or a video.
    """
    query, documents = request.query, request.documents
    if not isinstance(query, str) or not set(map(type, documents)) <= {str}:
        raise JobError(f"endpoint.wire: {wire} carries text only, no images or videos: use dashscope-native")
    return query, cast(list[str], documents if isinstance(documents, list) else list(documents))


def instruct(request: Request, wire: str, key: str | None) -> Mapping[str, Any]:
    """The request's instruction under the key that the format has for it.

    Raises:
        JobError: there is an instruction and the format has no key for one.
    """
    if request.instruct is None:
        return {}
    if key is None:
        raise JobError(f"instruct: wire {wire!r} has no field for it; remove the key")
    return {key: request.instruct}


def encoded(request: Request, fields: Mapping[str, Any]) -> bytes:
    """The fields and the request's further ones as JSON; a lone surrogate, which no UTF-8 can hold, becomes a "?"."""
    fields = _merged(fields, request.extra) if request.extra else fields
    try:
        return orjson.dumps(fields)
    except orjson.JSONEncodeError:
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _merged(fields: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged all the way down; of anything else the further field's value stands."""
    merged = dict(fields)
    for key, value in extra.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
