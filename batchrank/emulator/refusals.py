"""Refuses requests as the APIs do: with their documented statuses, codes and messages, in each API's own shape."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

ErrorShape = Literal["plain", "nested", "in-200"]


@dataclass(frozen=True, slots=True)
class Rejection:
    """One refusal; ``headers`` are extra HTTP headers, ``html`` makes the body a gateway's page."""

    status: int
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()
    shape: ErrorShape | None = None
    html: bool = False

    def saying(self, message: str) -> "Rejection":
        """The same refusal with another message."""
        return replace(self, message=message)

    def body(self, shape: ErrorShape, request_id: str) -> dict[str, Any]:
        """The JSON body: ``{"code", "message", "request_id"}``, or an ``error`` object around the first two."""
        if (self.shape or shape) == "nested":
            error = {"message": self.message, "type": self.code, "param": None, "code": self.code}
            return {"error": error, "request_id": request_id}
        return {"code": self.code, "message": self.message, "request_id": request_id}

    def http_status(self, shape: ErrorShape) -> int:
        """The HTTP status: the refusal's own, unless errors come inside a 200."""
        return 200 if (self.shape or shape) == "in-200" else self.status


class RejectedError(Exception):
    """Raised inside the emulator when a request is refused."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.message)
        self.rejection = rejection


_AGAIN = "please try again later or contact service support."
_DOWNLOAD = "Failed to download the input file."
_BROKEN = "Required body invalid, please check the request body format."
_UNPURCHASED = "Access to model denied. Please make sure you are eligible for using the model."
_FREE_TIER = "The free tier of the model has been exhausted."
_GROWTH = (
    "Request rate increased too quickly. To ensure system stability, please adjust your client logic to scale "
    "requests more smoothly over time."
)

REJECTIONS: dict[str, Rejection] = {
    name: Rejection(int(name[:3]), code, message)
    for name, code, message in [
        ("400-parameter", "InvalidParameter", _BROKEN),
        ("400-too-large", "InvalidParameter", "Range of input length should be [1, 120000]: input"),
        ("400-inspection", "DataInspectionFailed", "Input data may contain inappropriate content."),
        ("400-arrearage", "Arrearage", "Access denied, please make sure your account is in good standing."),
        ("400-algo", "InternalError.Algo", "An internal error has occured during execution, " + _AGAIN),
        ("401", "InvalidApiKey", "Invalid API-key provided."),
        ("403", "AccessDenied", "Access denied."),
        ("403-model", "Model.AccessDenied", "Model access denied."),
        ("403-workspace", "Workspace.AccessDenied", "Workspace access denied."),
        ("403-unpurchased", "AccessDenied.Unpurchased", _UNPURCHASED),
        ("403-free-tier", "AllocationQuota.FreeTierOnly", _FREE_TIER),
        ("404-model", "ModelNotFound", "Model can not be found."),
        ("404-workspace", "WorkSpaceNotFound", "WorkSpace can not be found."),
        ("408", "RequestTimeOut", "Request timed out, please try again later."),
        ("413", "BadRequest.TooLarge", "Payload Too Large"),
        ("415-download", "InputDownloadFailed", _DOWNLOAD),
        ("415-format", "UnsupportedFileFormat", "Input file format is not supported."),
        ("429", "Throttling", "Requests throttling triggered."),
        ("429-requests", "Throttling.RateQuota", "Requests rate limit exceeded, please try again later."),
        ("429-request-list", "LimitRequests", "You exceeded your current requests list."),
        (
            "429-tokens",
            "Throttling.AllocationQuota",
            "Allocated quota exceeded, please increase your quota limit.",
        ),
        ("429-current-quota", "Throttling.AllocationQuota", "You exceeded your current quota."),
        ("429-growth", "Throttling.RateQuota", _GROWTH),
        ("429-prepaid-overdue", "PrepaidBillOverdue", "The prepaid bill is overdue."),
        ("429-postpaid-overdue", "PostpaidBillOverdue", "The postpaid bill is overdue."),
        ("429-not-purchased", "CommodityNotPurchased", "Commodity has not purchased yet."),
        ("429-free-quota", "AllocationQuota", "Free allocated quota exceeded."),
        ("500", "InternalError", "An internal error has occured, " + _AGAIN),
        ("500-algo", "InternalError.Algo", "An internal error has occured during execution, " + _AGAIN),
        ("500-timeout", "InternalError.Timeout", "An internal timeout error has occured, " + _AGAIN),
        ("500-system", "SystemError", "An system error has occured, please try again later."),
        ("500-service", "ModelServiceFailed", "Failed to request model service."),
        ("502", "BadGateway", "Bad gateway."),
        ("503", "ModelUnavailable", "Model is unavailable, please try again later."),
        ("504", "GatewayTimeout", "Gateway timeout."),
        ("307", "TemporaryRedirect", "The resource has moved."),
    ]
}
"""Every documented refusal by the name it has as a fault."""


_YEAR = 365 * 24 * 3600
"""Seconds; no server means a pause so long, so a client must not believe it."""


def with_retry_after(rejection: Rejection, how: str, seconds: float) -> Rejection:
    """The refusal with a Retry-After header, by one of the ``after-`` twists."""
    from email.utils import formatdate  # which takes a few milliseconds to import

    values = {
        "after-seconds": f"{seconds:g}",
        "after-date": formatdate(time.time() + seconds, usegmt=True),
        "after-absurd": str(_YEAR),
        "after-garbage": "soon",
    }
    return replace(rejection, headers=(*rejection.headers, ("Retry-After", values[how])))


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
