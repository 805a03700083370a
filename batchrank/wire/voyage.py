"""Speaks Voyage's format: ``POST /v1/rerank``.

Source: docs.voyageai.com, "Rerankers" and the API reference.
"""

from batchrank.data import Answer, Request
from batchrank.wire import answers as results
from batchrank.wire.content import encoded, instruct, texts


class Voyage:
    """As Cohere's, but that the answer's list is called ``data`` and ``top_n`` is ``top_k``."""

    def body(self, request: Request) -> bytes:
        """Encode a request; ``top_k`` is never sent, because merging needs every score. Long texts are cut."""
        query, documents = texts(request, "voyage")
        fields = {"model": request.model, "query": query, "documents": documents, "truncation": True}
        return encoded(request, {**fields, **instruct(request, "voyage", None)})

    def answer(self, data: object, documents: int) -> Answer:
        """Decode an answer to a request of so many documents."""
        return results.answer(data, documents, place=("data",))
