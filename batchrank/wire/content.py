"""Says what a wire format is, writes what several write alike, and what a job adds: its own prompt, further fields."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import orjson

from batchrank.data import Answer, Content, Request
from batchrank.errors import JobError
from batchrank.models import Template


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


class Codec(Protocol):
    """One wire format, both directions.

    Around the JSON of each document a body has at most ``DOCUMENT_BYTES``, and at most ``WRAPPER_BYTES`` besides
    documents, query, instruct, further fields and the model's name: sharding relies on it.
    """

    def body(self, request: Request) -> bytes:
        """The request's JSON body; the same request always gives the same bytes.

        Raises:
            JobError: the request asks for what the format can't say.
        """

    def answer(self, data: object, documents: int) -> Answer:
        """The scores in a decoded answer to a request of so many documents.

        Raises:
            MalformedAnswerError: the answer does not score each document exactly once.
        """


@dataclass(frozen=True, slots=True)
class Tailored:
    """A codec as a job wants it.

    Attributes:
        codec: the wire format.
        template: the prompt around query and documents, None for none.
        extra: fields that go with every request.
    """

    codec: Codec
    template: Template | None = None
    extra: Mapping[str, Any] | None = None

    def body(self, request: Request) -> bytes:
        """Encode a request; where the instruct is part of the prompt it is not sent beside it.

        Raises:
            JobError: the request asks for what the format can't say, or for a prompt around an image or a video.
        """
        if self.template is not None:
            request = _prompted(request, self.template)
        return self.codec.body(replace(request, extra=self.extra))

    def answer(self, data: object, documents: int) -> Answer:
        """Decode an answer to a request of so many documents."""
        return self.codec.answer(data, documents)


def _prompted(request: Request, template: Template) -> Request:
    before_query, after_query = template.around_query(request.instruct)
    before, after = template.around_document(request.instruct)
    return replace(
        request,
        query=before_query + _text(request.query) + after_query,
        documents=[before + _text(document) + after for document in request.documents],
        instruct=None if template.instructs else request.instruct,
    )


def _text(item: Content) -> str:
    if not isinstance(item, str):
        raise JobError("endpoint.template: a prompt goes around texts only, not around images or videos")
    return item
