"""Speaks Text Embeddings Inference's format: ``POST /rerank``, to a server with one model, which needs no name.

Source: huggingface.github.io/text-embeddings-inference, operation ``rerank``.
"""

from batchrank.data import Answer, Request
from batchrank.wire import answers as results
from batchrank.wire.content import encoded, instruct, texts


class Tei:
    """``query`` and ``texts``; the answer is a bare list with ``score``, and tells no tokens."""

    def body(self, request: Request) -> bytes:
        """Encode a request. Texts too long are cut, and scores are probabilities, as other servers' are."""
        query, documents = texts(request, "tei")
        fields = {"query": query, "texts": documents, "raw_scores": False, "truncate": True}
        return encoded(request, {**fields, **instruct(request, "tei", None)})

    def answer(self, data: object, documents: int) -> Answer:
        """Decode an answer to a request of so many documents."""
        return results.answer(data, documents, place=(), score="score")
