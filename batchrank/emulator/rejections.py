"""What the API answers when it refuses, as documented: status, code and message."""

from dataclasses import dataclass, replace
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
