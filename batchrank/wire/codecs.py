"""Speaks each wire format, and adds what a job wants besides: its own prompt, further fields.

Formats are much alike, so what they write alike stands beside them; what their answers have in common, in ``answers``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import orjson

from batchrank.data import Answer, Content, Request
from batchrank.errors import JobError
from batchrank.models import Template
from batchrank.wire import answers as results


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


class DashScope:
    """DashScope's flat format, for qwen3-rerank: ``POST /compatible-api/v1/reranks``.

    Model, query, documents and parameters stand side by side; ``results`` at the top of the answer.
    Source: Model Studio, "Text rerank", request and response of qwen3-rerank.
    """

    def body(self, request: Request) -> bytes:
        """Encode a request; ``top_n`` is never sent, because merging needs every score."""
        query, documents = texts(request, "dashscope")
        fields = {"model": request.model, "query": query, "documents": documents}
        return encoded(request, {**fields, **instruct(request, "dashscope", "instruct")})

    def answer(self, data: object, documents: int) -> Answer:
        """Decode an answer to a request of so many documents."""
        return results.answer(data, documents)


class DashScopeNative:
    """DashScope's nested format, for all its models: ``POST /api/v1/services/rerank/text-rerank/text-rerank``.

    ``input`` holds query and documents, ``parameters`` the rest; ``output.results`` holds the answer.
    Source: Model Studio, "Text rerank", requests and responses of gte-rerank-v2 and qwen3-vl-rerank.
    """

    def body(self, request: Request) -> bytes:
        """Encode a request; ``top_n`` and ``return_documents`` are never sent: merging needs every score alone."""
        query, *documents = _items([request.query, *request.documents])
        parameters = {"instruct": request.instruct, "fps": request.fps}
        fields: dict[str, Any] = {
            "model": request.model,
            "input": {"query": query, "documents": documents},
        }
        if given := {name: value for name, value in parameters.items() if value is not None}:
            fields["parameters"] = given
        return encoded(request, fields)

    def answer(self, data: object, documents: int) -> Answer:
        """Decode an answer to a request of so many documents."""
        return results.answer(data, documents, place=("output", "results"))


def _items(items: Sequence[Content]) -> list[Any]:
    """Plain strings if all is text, which is all that text models take; else one-key objects throughout."""
    if all(isinstance(item, str) for item in items):
        return list(items)
    return [{"text": item} if isinstance(item, str) else {item.kind: item.value} for item in items]


@dataclass(frozen=True, slots=True)
class Cohere:
    """Cohere's format, which many others speak too: ``POST /v2/rerank``, ``/v1/rerank`` or ``/rerank``.

    Model, query and documents stand side by side; ``results`` at the top of the answer. Jina, vLLM, Infinity,
    SiliconFlow, Xinference and LiteLLM take the same request, but for a field or two, and differ in where they put the
    tokens billed. Cohere itself bills searches, and tells no tokens.
    Source: docs.cohere.com, "Rerank API (v2)"; jina.ai, "Reranker API"; docs.vllm.ai, "Re-rank API"; the servers'
    OpenAPI.

    Attributes:
        instruct: the server's name for an instruction, None where it has none.
        always: fields that go with every request.
    """

    instruct: str | None = None
    always: Mapping[str, Any] = field(default_factory=dict)

    def body(self, request: Request) -> bytes:
        """Encode a request; ``top_n`` is never sent, because merging needs every score."""
        query, documents = texts(request, "cohere")
        fields = {"model": request.model, "query": query, "documents": documents}
        return encoded(request, {**fields, **instruct(request, "cohere", self.instruct), **self.always})

    def answer(self, data: object, documents: int) -> Answer:
        """Decode an answer to a request of so many documents."""
        return results.answer(data, documents)


class Voyage:
    """Voyage's format: ``POST /v1/rerank``.

    As Cohere's, but that the answer's list is called ``data`` and ``top_n`` is ``top_k``.
    Source: docs.voyageai.com, "Rerankers" and the API reference.
    """

    def body(self, request: Request) -> bytes:
        """Encode a request; ``top_k`` is never sent, because merging needs every score. Long texts are cut."""
        query, documents = texts(request, "voyage")
        fields = {"model": request.model, "query": query, "documents": documents, "truncation": True}
        return encoded(request, {**fields, **instruct(request, "voyage", None)})

    def answer(self, data: object, documents: int) -> Answer:
        """Decode an answer to a request of so many documents."""
        return results.answer(data, documents, place=("data",))


class Nim:
    """NVIDIA NIM's format: ``POST /v1/ranking``. Its scores are logits, so they are unbounded.

    Query and ``passages`` are objects with a ``text``; the answer holds ``rankings`` with a ``logit``.
    Source: docs.nvidia.com, "Use NVIDIA NeMo Retriever Reranking NIM".
    """

    def body(self, request: Request) -> bytes:
        """Encode a request; texts too long are cut at their end."""
        query, documents = texts(request, "nim")
        fields = {
            "model": request.model,
            "query": {"text": query},
            "passages": [{"text": document} for document in documents],
            "truncate": "END",
        }
        return encoded(request, {**fields, **instruct(request, "nim", None)})

    def answer(self, data: object, documents: int) -> Answer:
        """Decode an answer to a request of so many documents."""
        return results.answer(data, documents, place=("rankings",), score="logit")


class Tei:
    """Text Embeddings Inference's format: ``POST /rerank``, to a server with one model, which needs no name.

    ``query`` and ``texts``; the answer is a bare list with ``score``, and tells no tokens.
    Source: huggingface.github.io/text-embeddings-inference, operation ``rerank``.
    """

    def body(self, request: Request) -> bytes:
        """Encode a request. Texts too long are cut, and scores are probabilities, as other servers' are."""
        query, documents = texts(request, "tei")
        fields = {"query": query, "texts": documents, "raw_scores": False, "truncate": True}
        return encoded(request, {**fields, **instruct(request, "tei", None)})

    def answer(self, data: object, documents: int) -> Answer:
        """Decode an answer to a request of so many documents."""
        return results.answer(data, documents, place=(), score="score")


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
