"""Speaks DashScope's nested format, for all its models: ``POST /api/v1/services/rerank/text-rerank/text-rerank``.

Source: Model Studio, "Text rerank", requests and responses of gte-rerank-v2 and qwen3-vl-rerank.
"""

from collections.abc import Sequence
from typing import Any

from batchrank.data import Answer, Content, Request
from batchrank.wire import answers as results
from batchrank.wire.content import encoded


class DashScopeNative:
    """``input`` holds query and documents, ``parameters`` the rest; ``output.results`` holds the answer."""

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
