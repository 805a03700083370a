"""The policy: each documented failure calls for what the design says."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.records import Rejection
from batchrank.retry import Action, classify, delay, retry_after

CASES = [
    (None, "timeout", "", Action.RETRY),
    (None, "unreachable", "", Action.RETRY),
    (200, "malformed", "3 results for 4 documents", Action.RETRY),
    (
        400,
        "InvalidParameter",
        "batch size of documents is invalid, it should not be empty or larger than 500.: input.documents",
        Action.SPLIT,
    ),
    (400, "InvalidParameter", "text input should not be empty.: input.documents", Action.REFUSE),
    (400, "InvalidParameter", "text input should not be empty.: input.query", Action.FAIL),
    (None, "certificate", "self-signed certificate", Action.STOP),
    (400, "InvalidParameter", "Range of input length should be [1, 120000]", Action.SPLIT),
    (400, "DataInspectionFailed", "Input data may contain inappropriate content.", Action.REFUSE),
    (400, "Arrearage", "Access denied, please make sure your account is in good standing.", Action.STOP),
    (400, "InternalError.Algo", "inference error", Action.RETRY),
    (401, "InvalidApiKey", "Invalid API-key provided.", Action.STOP),
    (403, "AccessDenied", "", Action.STOP),
    (403, "Model.AccessDenied", "", Action.STOP),
    (403, "Workspace.AccessDenied", "", Action.STOP),
    (403, "AccessDenied.Unpurchased", "", Action.STOP),
    (403, "AllocationQuota.FreeTierOnly", "", Action.STOP),
    (404, "ModelNotFound", "", Action.STOP),
    (404, "WorkSpaceNotFound", "", Action.STOP),
    (408, "RequestTimeOut", "", Action.RETRY),
    (413, "BadRequest.TooLarge", "Payload Too Large", Action.SPLIT),
    (415, "InputDownloadFailed", "", Action.REFUSE),
    (415, "UnsupportedFileFormat", "", Action.REFUSE),
    (429, "Throttling", "Requests throttling triggered.", Action.SLOW_REQUESTS),
    (
        429,
        "Throttling.RateQuota",
        "Requests rate limit exceeded, please try again later.",
        Action.SLOW_REQUESTS,
    ),
    (429, "Throttling.RateQuota", "You exceeded your current requests list.", Action.SLOW_REQUESTS),
    (
        429,
        "Throttling.AllocationQuota",
        "Allocated quota exceeded, please increase it.",
        Action.SLOW_TOKENS,
    ),
    (429, "Throttling.AllocationQuota", "You exceeded your current quota", Action.SLOW_TOKENS),
    (429, "LimitRequests", "You exceeded your current requests list", Action.SLOW_REQUESTS),
    (429, "Throttling", "Request rate increased too quickly.", Action.SLOW_GROWTH),
    (429, "PrepaidBillOverdue", "", Action.STOP),
    (429, "PostpaidBillOverdue", "", Action.STOP),
    (429, "CommodityNotPurchased", "", Action.STOP),
    (429, "AllocationQuota", "Free allocated quota exceeded.", Action.STOP),
    (500, "InternalError", "", Action.RETRY),
    (500, "InternalError.Timeout", "", Action.RETRY),
    (500, "SystemError", "", Action.RETRY),
    (500, "ModelServiceFailed", "", Action.RETRY),
    (503, "ModelUnavailable", "", Action.RETRY),
    (502, "", "Bad Gateway", Action.RETRY),
    (402, "", "Insufficient balance", Action.STOP),
    (424, "inference", "model is overloaded", Action.RETRY),
    (498, "", "invalid token", Action.STOP),
    (400, "", "too many documents: 1001", Action.SPLIT),
    (302, "", "redirected to https://login", Action.STOP),
    (200, "Throttling.RateQuota", "Requests rate limit exceeded", Action.SLOW_REQUESTS),
    (200, "InternalError", "", Action.RETRY),
    (200, "500", "an error whose code is a status", Action.RETRY),
    (200, "AllocationQuota", "You exceeded your current quota", Action.SLOW_TOKENS),
    (200, "InvalidApiKey", "Invalid API-key provided.", Action.STOP),
]


@pytest.mark.parametrize(("status", "code", "message", "action"), CASES)
def test_each_documented_failure(status: int | None, code: str, message: str, action: Action) -> None:
    """The vendor's error table, row by row."""
    assert classify(Rejection(status, code, message)) is action


@given(st.integers(1, 60), st.none() | st.floats(0, 1e6), st.floats(0.1, 300), st.integers())
def test_delays_stay_within_bounds(attempt: int, wait: float | None, most: float, seed: int) -> None:
    """No pause is longer than retry.max_delay, whatever Retry-After says; none is negative."""
    assert 0 <= delay(attempt, wait, most, random.Random(seed)) <= most


def test_retry_after_is_a_lower_bound() -> None:
    """The API's own wish is honoured."""
    assert all(delay(1, 7.0, 60, random.Random(seed)) >= 7.0 for seed in range(50))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None), ("3", 3), (" 1.5 ", 1.5), ("-3", None), ("soon", None), ("", None), ("9" * 30, 86400),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20), ("Thu, 01 Jan 1970 00:00:10 GMT", 0), ("Thu, 99 Foo 1970", None),
    ],
)  # fmt: skip
def test_retry_after_headers(header: str | None, seconds: float | None) -> None:
    """Seconds and dates are read, nonsense is ignored, absurd values are capped."""
    assert retry_after(header, now=100.0) == seconds
