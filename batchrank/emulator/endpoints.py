"""Describes each API's endpoint: its paths, what a request may ask there, and how an answer is laid out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from batchrank.data import Kind
from batchrank.emulator.answers import Answer
from batchrank.emulator.refusals import DIALECTS, REJECTIONS, Dialect, RejectedError

_INVALID = REJECTIONS["400-parameter"]


@dataclass(frozen=True, slots=True)
class Medium:
    """An image or a video of a request; ``value`` is its address or data URI."""

    kind: Kind
    value: str


Content: TypeAlias = str | Medium


def kind_of(item: Content) -> Kind:
    """What an item is."""
    return "text" if isinstance(item, str) else item.kind


def value_of(item: Content) -> str:
    """The text, address or data URI."""
    return item if isinstance(item, str) else item.value


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks.

    Attributes:
        model: the model's name; ``-`` where the API has none.
        query: a text or an image.
        documents: texts, images and videos.
        top_n: most results wanted, None for all.
        instruct: the instruction, perhaps empty.
        return_documents: whether results should carry their documents.
        fps: the share of a video's frames wanted.
        objects: whether query or documents came as objects, which text models don't take.
        raw: whether logits are wanted instead of probabilities.
    """

    model: str
    query: Content
    documents: list[Content]
    top_n: int | None
    instruct: str
    return_documents: bool
    fps: float = 1.0
    objects: bool = False
    raw: bool = False


def parsed(body: bytes) -> dict[str, Any]:
    """The body's JSON object, or a refusal."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise RejectedError(_INVALID) from None
    if not isinstance(data, dict):
        raise RejectedError(_INVALID)
    return data


def invalid(message: str) -> RejectedError:
    """The refusal of a wrong parameter."""
    return RejectedError(_INVALID.saying(message))


def asked(
    content: Mapping[str, Any], parameters: Mapping[str, Any], *, at: str = "", objects: bool = False
) -> Asked:
    """Check the types of a request's parts; ``at`` is what the path of query and documents begins with.

    Raises:
        RejectedError: a part is of the wrong type or outside its range.
    """
    model, query, documents = content.get("model"), content.get("query"), content.get("documents")
    if not isinstance(model, str) or not model:
        raise invalid("Model not exist: model")
    if not isinstance(query, str | Medium):
        raise invalid(f"query must be a string: {at}query")
    if not isinstance(documents, list) or not all(isinstance(d, str | Medium) for d in documents):
        raise invalid(f"documents must be a list of strings: {at}documents")
    top_n, instruct, fps = parameters.get("top_n"), parameters.get("instruct"), parameters.get("fps")
    if top_n is not None and (type(top_n) is not int or top_n < 1):
        raise invalid("top_n must be an integer greater than 0: parameters.top_n")
    if instruct is not None and not isinstance(instruct, str):
        raise invalid("instruct must be a string: parameters.instruct")
    if fps is not None and (type(fps) not in (int, float) or not 0 <= fps <= 1):
        raise invalid("fps must be a number in [0, 1]: parameters.fps")
    return Asked(
        model=model,
        query=query,
        documents=documents,
        top_n=top_n,
        instruct=instruct or "",
        return_documents=parameters.get("return_documents") is True,
        fps=1.0 if fps is None else float(fps),
        objects=objects,
        raw=parameters.get("raw") is True,
    )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint.

    Attributes:
        wire: the wire format, as jobs name it.
        paths: where it is served.
        read: a body to what it asks.
        render: an answer, its request and the request's id to JSON.
        dialect: how it refuses.
    """

    wire: str
    paths: tuple[str, ...]
    read: Callable[[bytes], Asked]
    render: Callable[[Answer, Asked, str], Any]
    dialect: Dialect


def _read_flat(body: bytes) -> Asked:
    data = parsed(body)
    return asked(data, data)


def _read_native(body: bytes) -> Asked:
    data = parsed(body)
    content, parameters = data.get("input"), data.get("parameters") or {}
    if not isinstance(content, dict) or not isinstance(parameters, dict):
        raise invalid("input and parameters must be objects: input")
    items, query = content.get("documents"), content.get("query")
    listed = items if isinstance(items, list) else []
    fields = {
        "model": data.get("model"),
        "query": _item(query),
        "documents": [_item(item) for item in listed] if listed or items == [] else items,
    }
    objects = any(isinstance(item, dict) for item in (query, *listed))
    return asked(fields, parameters, at="input.", objects=objects)


def _read_echoing(body: bytes) -> Asked:
    data = parsed(body)
    return asked(data, {"return_documents": True, **data})


def _read_voyage(body: bytes) -> Asked:
    data = parsed(body)
    return asked(data, {**data, "top_n": data.get("top_k")})


def _read_tei(body: bytes) -> Asked:
    data = parsed(body)
    fields = {"model": "-", "query": data.get("query"), "documents": data.get("texts")}
    return asked(fields, {"return_documents": data.get("return_text"), "raw": data.get("raw_scores")})


def _read_nim(body: bytes) -> Asked:
    data = parsed(body)
    query, passages = data.get("query"), data.get("passages")
    if not isinstance(query, dict) or not isinstance(passages, list):
        raise invalid("query must be an object and passages a list")
    texts = [passage.get("text") if isinstance(passage, dict) else None for passage in passages]
    return asked({"model": data.get("model"), "query": query.get("text"), "documents": texts}, {"raw": True})


def _item(item: Any) -> Any:
    """A one-key object as the content it stands for; anything else is left to be refused, or a text."""
    if not isinstance(item, dict) or len(item) != 1:
        return item
    ((kind, value),) = item.items()
    if not isinstance(value, str) or kind not in ("text", "image", "video"):
        return item
    return value if kind == "text" else Medium(kind, value)


def _render_flat(answer: Answer, asked: Asked, request_id: str) -> dict[str, Any]:
    content = {"object": "list", "results": answer.results, "model": asked.model, "id": request_id}
    return _with_usage(content, answer)


def _render_native(answer: Answer, asked: Asked, request_id: str) -> dict[str, Any]:
    return {**_with_usage({"output": {"results": answer.results}}, answer), "request_id": request_id}


def _render_cohere(answer: Answer, asked: Asked, request_id: str) -> dict[str, Any]:
    units = {"search_units": -(-len(asked.documents) // 100)}
    meta = {"api_version": {"version": "2"}, "billed_units": units}
    content = {"id": request_id, "results": answer.results}
    return content if answer.usage is None else {**content, "meta": meta}


def _render_jina(answer: Answer, asked: Asked, request_id: str) -> dict[str, Any]:
    return _with_usage({"model": asked.model, "object": "list", "results": answer.results}, answer)


def _render_vllm(answer: Answer, asked: Asked, request_id: str) -> dict[str, Any]:
    content = {"id": f"rerank-{request_id}", "model": asked.model, "results": answer.results}
    return _with_usage(content, answer)


def _render_voyage(answer: Answer, asked: Asked, request_id: str) -> dict[str, Any]:
    data = _edited(answer.results, document=lambda document: document["text"])
    return _with_usage({"object": "list", "data": data, "model": asked.model}, answer)


def _render_tei(answer: Answer, asked: Asked, request_id: str) -> Any:
    texts = _edited(answer.results, document=lambda document: document["text"])
    return _renamed(_renamed(texts, "relevance_score", "score"), "document", "text")


def _render_nim(answer: Answer, asked: Asked, request_id: str) -> dict[str, Any]:
    return _with_usage({"rankings": _renamed(answer.results, "relevance_score", "logit")}, answer)


def _with_usage(content: dict[str, Any], answer: Answer) -> dict[str, Any]:
    return content if answer.usage is None else {**content, "usage": answer.usage}


def _renamed(results: Any, old: str, new: str) -> Any:
    """The results with another key; what a fault made of them is left alone."""
    if not isinstance(results, list):
        return results
    return [
        {new if key == old else key: value for key, value in result.items()}
        if isinstance(result, dict)
        else result
        for result in results
    ]


def _edited(results: Any, **edits: Callable[[Any], Any]) -> Any:
    if not isinstance(results, list):
        return results
    return [
        {key: edits[key](value) if key in edits else value for key, value in result.items()}
        if isinstance(result, dict)
        else result
        for result in results
    ]


_FLAT = ("/compatible-api/v1/reranks", "/compatible-mode/v1/reranks")
_NATIVE = ("/api/v1/services/rerank/text-rerank/text-rerank",)

ENDPOINTS = (
    Endpoint("dashscope", _FLAT, _read_flat, _render_flat, DIALECTS["dashscope"]),
    Endpoint("dashscope-native", _NATIVE, _read_native, _render_native, DIALECTS["dashscope"]),
    Endpoint("cohere", ("/v2/rerank", "/v1/rerank"), _read_flat, _render_cohere, DIALECTS["cohere"]),
    Endpoint("jina", ("/v1/rerank",), _read_echoing, _render_jina, DIALECTS["jina"]),
    Endpoint("vllm", ("/rerank", "/v1/rerank", "/v2/rerank"), _read_echoing, _render_vllm, DIALECTS["vllm"]),
    Endpoint("voyage", ("/v1/rerank",), _read_voyage, _render_voyage, DIALECTS["voyage"]),
    Endpoint("tei", ("/rerank",), _read_tei, _render_tei, DIALECTS["tei"]),
    Endpoint("nim", ("/v1/ranking",), _read_nim, _render_nim, DIALECTS["nim"]),
)
"""Every endpoint. A path that several claim is the first one's, unless the switch ``api`` names another of them; each
is also served below ``/<wire>``, where none is in another's way."""


def routes(api: str) -> dict[str, Endpoint]:
    """Paths to endpoints, with the API that the switch names first."""
    found: dict[str, Endpoint] = {}
    for endpoint in sorted(ENDPOINTS, key=lambda endpoint: endpoint.wire != api):
        for path in endpoint.paths:
            found.setdefault(path, endpoint)
            found[f"/{endpoint.wire}{path}"] = endpoint
    return found


def path(wire: str) -> str:
    """A path at which a wire format is served whatever the switches."""
    alike = {"siliconflow": "vllm"}.get(wire, wire)
    own = next(endpoint for endpoint in ENDPOINTS if endpoint.wire == alike)
    return f"/{alike}{own.paths[0]}"
