"""Speaks DashScope's flat format: ``POST /compatible-api/v1/reranks``, for qwen3-rerank.

Source: Model Studio, "Text rerank", request and response of qwen3-rerank.
"""

from batchrank.data import Answer, Request
from batchrank.wire import answers as results
from batchrank.wire.content import encoded, instruct, texts


class DashScope:
    """Model, query, documents and parameters side by side; ``results`` at the top of the answer."""

    def body(self, request: Request) -> bytes:
        """Encode a request; ``top_n`` is never sent, because merging needs every score."""
        query, documents = texts(request, "dashscope")
        fields = {"model": request.model, "query": query, "documents": documents}
        return encoded(request, {**fields, **instruct(request, "dashscope", "instruct")})

    def answer(self, data: object, documents: int) -> Answer:
        """Decode an answer to a request of so many documents."""
        return results.answer(data, documents)
