"""Speaks Cohere's format, which many others speak too: ``POST /v2/rerank``, ``/v1/rerank`` or ``/rerank``.

Cohere, Jina, vLLM, Infinity, SiliconFlow, Xinference and LiteLLM take the same request, but for a field or two, and
differ in where they put the tokens billed. Cohere itself bills searches, and tells no tokens.

Source: docs.cohere.com, "Rerank API (v2)"; jina.ai, "Reranker API"; docs.vllm.ai, "Re-rank API"; the servers' OpenAPI.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchrank.data import Answer, Request
from batchrank.wire import answers as results
from batchrank.wire.content import encoded, instruct, texts


@dataclass(frozen=True, slots=True)
class Cohere:
    """Model, query and documents side by side; ``results`` at the top of the answer.

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
