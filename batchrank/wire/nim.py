"""Speaks NVIDIA NIM's format: ``POST /v1/ranking``. Its scores are logits, so they are unbounded.

Source: docs.nvidia.com, "Use NVIDIA NeMo Retriever Reranking NIM".
"""

from batchrank.data import Answer, Request
from batchrank.wire import answers as results
from batchrank.wire.content import encoded, instruct, texts


class Nim:
    """Query and ``passages`` as objects with a ``text``; ``rankings`` with a ``logit`` in the answer."""

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
