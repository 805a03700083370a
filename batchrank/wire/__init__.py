"""Translates between requests and each API's JSON: request to body, body to scores. A codec is pure and knows no HTTP.

Adding a wire format is one class in ``codecs`` that satisfies ``Codec``, and one row in ``CODECS``. Servers that differ
from a known format in a field or two are a row alone.
"""

from collections.abc import Mapping
from typing import Any

from batchrank.models import Template
from batchrank.wire.codecs import Codec as Codec
from batchrank.wire.codecs import Cohere, DashScope, DashScopeNative, Nim, Tailored, Tei, Voyage

DOCUMENT_BYTES = 16
"""More bytes than any format writes around a document, as in ``{"text":...},``."""
WRAPPER_BYTES = 256
"""More bytes than any format writes around all of them."""

CODECS: dict[str, Codec] = {
    "dashscope": DashScope(),
    "dashscope-native": DashScopeNative(),
    "cohere": Cohere(),
    "jina": Cohere(always={"return_documents": False}),
    "siliconflow": Cohere(instruct="instruction", always={"return_documents": False}),
    "vllm": Cohere(always={"truncate_prompt_tokens": -1}),
    "voyage": Voyage(),
    "tei": Tei(),
    "nim": Nim(),
}
"""Every wire format by the name a job gives it."""


def tailored(wire: str, template: Template | None, extra: Mapping[str, Any]) -> Codec:
    """A wire format with a job's own prompt and further fields."""
    return Tailored(CODECS[wire], template, extra) if template or extra else CODECS[wire]
