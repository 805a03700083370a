"""How each API refuses: the shape of its errors, and its own words and statuses for what is documented."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from batchrank.emulator.rejections import Rejection


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One API's way to refuse.

    Attributes:
        body: the JSON of a refusal with a request id.
        too_many: status and words for too many documents, or none; with ``{count}`` and ``{most}``.
        too_long: status and words for too many tokens, with ``{count}`` and ``{most}``.
        blank: whether an empty text sinks the request.
        some_echo: whether only some models return documents, others ignore the wish.
        keyless: whether a request without a key is let in, if no keys are named.
        words: messages that differ from DashScope's, by its code.
    """

    body: Callable[[Rejection, str], dict[str, Any]]
    too_many: tuple[int, str]
    too_long: tuple[int, str]
    blank: bool = False
    some_echo: bool = False
    keyless: bool = False
    words: Mapping[str, str] = field(default_factory=dict)

    def documents(self, count: int, most: int) -> Rejection:
        """The refusal of so many documents."""
        return _refusal(self.too_many, count, most)

    def tokens(self, count: int, most: int) -> Rejection:
        """The refusal of so many tokens."""
        return _refusal(self.too_long, count, most)

    def spoken(self, rejection: Rejection) -> Rejection:
        """A refusal in this API's words."""
        return replace(rejection, message=self.words.get(rejection.code, rejection.message))


def _refusal(said: tuple[int, str], count: int, most: int) -> Rejection:
    status, text = said
    return Rejection(status, "InvalidParameter", text.format(count=count, most=most))


def _plain(rejection: Rejection, request_id: str) -> dict[str, Any]:
    return {"code": rejection.code, "message": rejection.message, "request_id": request_id}


def _cohere(rejection: Rejection, request_id: str) -> dict[str, Any]:
    return {"id": request_id, "message": rejection.message}


def _detail(rejection: Rejection, request_id: str) -> dict[str, Any]:
    return {"detail": rejection.message}


def _openai(rejection: Rejection, request_id: str) -> dict[str, Any]:
    kinds = {401: "Unauthorized", 404: "NotFoundError", 429: "RateLimitError", 500: "InternalServerError"}
    kind = kinds.get(rejection.status, "BadRequestError")
    error = {"message": rejection.message, "type": kind, "param": None, "code": rejection.status}
    return {"error": error}


def _tei(rejection: Rejection, request_id: str) -> dict[str, Any]:
    kinds = {413: "Validation", 422: "Tokenizer", 424: "Backend", 429: "Overloaded", 503: "Unhealthy"}
    return {"error": rejection.message, "error_type": kinds.get(rejection.status, "Validation")}


_TOKENS = "Range of input length should be [1, {most}], got {count}: input"
_BATCH = "batch size of documents is invalid, it should not be empty or larger than {most}.: input.documents"
_LISTED = "Value error, List should have at least 1 and at most {most} items, not {count}"
_TRIAL = "You are past the per minute request limit, please wait and try again later."

DIALECTS: dict[str, Dialect] = {
    "dashscope": Dialect(
        body=_plain, too_many=(400, _BATCH), too_long=(400, _TOKENS), blank=True, some_echo=True
    ),
    "cohere": Dialect(
        body=_cohere,
        too_many=(400, "invalid request: the number of documents must be at least 1 and at most {most}"),
        too_long=(400, "too many tokens: {count} exceed the limit of {most}"),
        words={
            "InvalidApiKey": "invalid api token",
            "ModelNotFound": "model not found, make sure the correct model ID was used and that you have access to "
            "the model.",
            "Throttling.RateQuota": _TRIAL,
        },
    ),
    "jina": Dialect(
        body=_detail,
        too_many=(422, _LISTED),
        too_long=(400, "Total tokens {count} exceed the maximum of {most}"),
        words={"InvalidApiKey": "Unauthorized"},
    ),
    "vllm": Dialect(
        body=_openai,
        too_many=(400, "at most {most} documents"),
        too_long=(
            400,
            "This model's maximum context length is {most} tokens. However, you requested {count}.",
        ),
        keyless=True,
        words={"ModelNotFound": "The model does not exist.", "InvalidApiKey": "Unauthorized"},
    ),
    "voyage": Dialect(
        body=_detail,
        too_many=(400, "The number of documents cannot exceed {most}. Your request has {count}."),
        too_long=(400, "The total number of tokens cannot exceed {most}. Your request has {count} tokens."),
        words={"InvalidApiKey": "Provided API key is invalid."},
    ),
    "tei": Dialect(
        body=_tei,
        too_many=(413, "batch size {count} > maximum allowed batch size {most}"),
        too_long=(413, "`inputs` must have less than {most} tokens. Given: {count}"),
        keyless=True,
        words={"Throttling": "Model is overloaded", "Throttling.RateQuota": "Model is overloaded"},
    ),
    "nim": Dialect(
        body=_detail,
        too_many=(422, _LISTED),
        too_long=(422, "Input length {count} exceeds maximum allowed token size {most}"),
        keyless=True,
    ),
}
"""Every API's way to refuse. DashScope's words are documented; of the others, TEI's, vLLM's and those in ``words``."""
