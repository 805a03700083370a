"""The policy: each documented failure calls for what the design says."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.data import Rejection
from batchrank.send.retry import Action, advice, classify, delay, possibly_billed, resets, retry_after
from batchrank.wire import CODECS
from batchrank.wire.phrases import PHRASES

CASES = [
    (None, "timeout", "", Action.RETRY),
    (None, "held-up", "", Action.RETRY),
    (None, "unreachable", "", Action.RETRY),
    (200, "malformed", "3 results for 4 documents", Action.RETRY),
    (
        400,
        "InvalidParameter",
        "batch size of documents is invalid, it should not be empty or larger than 500.: input.documents",
        Action.SPLIT,
    ),
    (400, "InvalidParameter", "text input should not be empty.: input.documents", Action.REFUSE),
    (400, "InvalidParameter", "text input should not be empty.: input.query", Action.REJECT),
    (None, "certificate", "self-signed certificate", Action.STOP),
    (400, "InvalidParameter", "Range of input length should be [1, 120000]", Action.SPLIT),
    (400, "DataInspectionFailed", "Input data may contain inappropriate content.", Action.REFUSE),
    (400, "Arrearage", "Access denied, please make sure your account is in good standing.", Action.STOP),
    (400, "InternalError.Algo", "inference error", Action.RETRY),
    (401, "InvalidApiKey", "Invalid API-key provided.", Action.ACCESS),
    (403, "AccessDenied", "", Action.ACCESS),
    (403, "Model.AccessDenied", "", Action.ACCESS),
    (403, "Workspace.AccessDenied", "", Action.ACCESS),
    (403, "AccessDenied.Unpurchased", "", Action.STOP),
    (403, "AllocationQuota.FreeTierOnly", "", Action.STOP),
    (404, "ModelNotFound", "", Action.ACCESS),
    (404, "WorkSpaceNotFound", "", Action.ACCESS),
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
    (498, "", "invalid token", Action.ACCESS),
    (400, "", "too many documents: 1001", Action.SPLIT),
    (302, "", "redirected to https://login", Action.ACCESS),
    (200, "Throttling.RateQuota", "Requests rate limit exceeded", Action.SLOW_REQUESTS),
    (200, "InternalError", "", Action.RETRY),
    (200, "500", "an error whose code is a status", Action.RETRY),
    (200, "AllocationQuota", "You exceeded your current quota", Action.SLOW_TOKENS),
    (200, "InvalidApiKey", "Invalid API-key provided.", Action.ACCESS),
]


@pytest.mark.parametrize(("status", "code", "message", "action"), CASES)
def test_each_documented_failure(status: int | None, code: str, message: str, action: Action) -> None:
    """The vendor's error table, row by row."""
    assert classify(Rejection(status, code, message)) is action


_TRIAL = "You are using a Trial key, which is limited to {}. You can continue to use the Trial key for free."
_CARD = "You have not yet added your payment method in the billing page and will have reduced rate limits of 3 RPM."
_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_VOYAGE = (
    "Request failed. The max allowed tokens per submitted batch is 100000. Your batch has 145736 tokens."
)
_VLLM = "This model's maximum context length is 4096 tokens. However, you requested 4097 tokens in the input for score."
_LLAMA = "input is too large to process. increase the physical batch size"
_LLAMA_NEW = "input (2793 tokens) is too large to process (current batch size: 2048)"
_LITELLM = "Budget has been exceeded! Current cost: 15.07, Max budget: 15.0, tokens: 40000"
_RANGE = "Range of input length should be [1, 30000]"
_LONG = "Value error, document index:0 is invalid, it should not be larger than 300000: input.documents"
_MANY = "List should have at most 2048 items after validation, not 3000"
_TPM = "Request too large for m on tokens per min (TPM): Limit 10000, Requested 12000."
_UNPAID = "Your paid balance is insufficient. Please top up and try again."

WORDS = [
    # size
    ("dashscope", 400, "InvalidParameter", f"<400> InternalError.Algo.InvalidParameter: {_RANGE}", Action.SPLIT),
    ("dashscope", 400, "InternalError.Algo.InvalidParameter", _RANGE, Action.SPLIT),
    ("dashscope-native", 500, "InternalError.Algo.InvalidParameter", _RANGE, Action.SPLIT),
    ("dashscope", 400, "InvalidParameter", _LONG, Action.SPLIT),
    ("voyage", 400, "", _VOYAGE, Action.SPLIT),
    ("siliconflow", 400, "20042", "input batch size 473 > maximum allowed batch size 64", Action.SPLIT),
    ("siliconflow", 413, "20042", "input must have less than 512 tokens", Action.SPLIT),
    ("jina", 422, "", "List should have at least 1 and at most 2048 items, not 3000", Action.SPLIT),
    ("jina", 400, "1261", "Prompt 超长", Action.SPLIT),
    ("cohere", 400, "", "invalid request: too many documents, the limit is 10000", Action.SPLIT),
    ("cohere", 400, "", "too many tokens: size limit exceeded by 11326 tokens.", Action.SPLIT),
    ("cohere", 422, "", _MANY, Action.SPLIT),  # Infinity
    ("cohere", 422, "", "String should have at most 122880 characters", Action.SPLIT),
    ("cohere", 500, "500", _LLAMA, Action.SPLIT),
    ("jina", 500, "server_error", _LLAMA_NEW, Action.SPLIT),
    ("jina", 200, "336221", "max number of documents is 64", Action.SPLIT),
    ("cohere", 429, "rate_limit_exceeded", _TPM, Action.SPLIT),
    ("vllm", 400, "400", _VLLM, Action.SPLIT),
    ("tei", 413, "Validation", "batch size 33 > maximum allowed batch size 32", Action.SPLIT),
    ("tei", 422, "Validation", "`inputs` must have less than 512 tokens. Given: 534", Action.SPLIT),
    ("nim", 422, "", "Input length 9000 exceeds maximum allowed token size 8192", Action.SPLIT),
    ("", 413, "", "413 Request Entity Too Large nginx", Action.SPLIT),
    ("", 400, "", "the payload is too large", Action.SPLIT),
    # no size: nothing that a smaller request would help
    ("", 400, "", "Budget has been exceeded: the maximum of 15.0 for tokens", Action.STOP),
    ("", 400, "", "You exceed the number of tokens of your plan", Action.REJECT),
    ("", 400, "", "the model's name is too long", Action.REJECT),
    ("", 400, "", "Request Header Or Cookie Too Large", Action.REJECT),
    ("", 500, "", "the input is too long", Action.RETRY),
    # empty or refused content
    ("dashscope", 400, "InvalidParameter", "text input should not be empty.: input.documents", Action.REFUSE),
    ("dashscope", 400, "InternalError.Algo.DataInspectionFailed", "", Action.REFUSE),
    ("dashscope", 400, "data_inspection_failed", "Input data may contain inappropriate content.", Action.REFUSE),
    ("voyage", 400, "", "Input cannot contain empty strings or empty lists", Action.REFUSE),
    ("jina", 400, "1301", "系统检测到输入或生成内容可能包含不安全或敏感内容", Action.REFUSE),
    ("jina", 422, "", "documents must not be blank", Action.REFUSE),
    ("tei", 422, "Validation", "`inputs` cannot be empty", Action.REFUSE),
    ("vllm", 400, "400", "the text of a document must not be empty", Action.REFUSE),
    ("cohere", 400, "", "invalid request: document 3 must not be empty", Action.REFUSE),
    ("cohere", 422, "", "String should have at least 1 character", Action.REFUSE),
    ("cohere", 400, "", "invalid request: list of documents must not be empty", Action.REJECT),
    ("cohere", 400, "", "invalid request: query must not be empty or be only whitespace", Action.REJECT),
    # money
    ("cohere", 429, "", _TRIAL.format("1000 API calls / month"), Action.STOP),
    ("cohere", 400, "400", _LITELLM, Action.STOP),
    ("cohere", 400, "budget_exceeded", "ExceededBudget: over budget", Action.STOP),
    ("cohere", 402, "", "", Action.STOP),
    ("jina", 402, "402", "Account balance not enough to run this query, please recharge.", Action.STOP),
    ("jina", 429, "1113", "您的账户已欠费,请充值后重试", Action.STOP),
    ("cohere", 429, "1113", "Insufficient balance or no resource package. Please recharge.", Action.STOP),
    ("siliconflow", 403, "30011", _UNPAID, Action.STOP),
    ("siliconflow", 403, "", "Sorry, your account balance is insufficient", Action.STOP),
    ("cohere", 403, "insufficient_user_quota", "用户额度不足", Action.STOP),
    ("cohere", 429, "insufficient_quota", _QUOTA, Action.STOP),
    ("vllm", 429, "", _QUOTA, Action.STOP),
    ("dashscope", 403, "AllocationQuota.FreeTierOnly", "The free tier of the model has been exhausted.", Action.STOP),
    ("dashscope", 429, "Throttling.AllocationQuota", "Free allocated quota exceeded.", Action.STOP),
    # a rate
    ("dashscope", 429, "insufficient_quota", _QUOTA, Action.SLOW_TOKENS),
    ("dashscope-native", 429, "insufficient_quota", _QUOTA, Action.SLOW_TOKENS),
    ("", 429, "Throttling.AllocationQuota", _QUOTA, Action.SLOW_TOKENS),
    ("dashscope", 429, "limit_requests", "You exceeded your current requests list.", Action.SLOW_REQUESTS),
    ("dashscope", 429, "Throttling.BurstRate", "", Action.SLOW_GROWTH),
    ("dashscope", 429, "limit_burst_rate", "Request rate increased too quickly.", Action.SLOW_GROWTH),
    ("voyage", 429, "", _CARD, Action.SLOW_REQUESTS),
    ("cohere", 429, "", _TRIAL.format("10 API calls / minute"), Action.SLOW_REQUESTS),
    ("cohere", 429, "", "trial token rate limit exceeded, limit is 100000 tokens per minute", Action.SLOW_TOKENS),
    ("tei", 429, "Overloaded", "Model is overloaded", Action.SLOW_REQUESTS),
    ("", 429, "", "", Action.SLOW_REQUESTS),
    ("", 503, "", "Too many requests", Action.SLOW_REQUESTS),
    ("", 403, "", "API rate limit exceeded", Action.SLOW_REQUESTS),
    ("", 503, "", "The engine is overloaded by other requests", Action.SLOW_REQUESTS),
    ("siliconflow", 503, "50505", "Model service overloaded. Please try again later.", Action.RETRY),
    ("", 200, "LimitRequests", "", Action.SLOW_REQUESTS),
    ("", 200, "17", "Open api daily request limit reached", Action.WAIT),
    ("", 200, "18", "Open api qps request limit reached", Action.SLOW_REQUESTS),
    # a quota that comes back
    ("", 403, "403", "Out of call volume quota. Quota will be replenished in 02:15:31.", Action.WAIT),
    ("", 403, "403", "Out of call volume quota. Quota will be replenished in 20.09:58:55.", Action.WAIT),
    ("", 403, "403", "Out of call volume quota. Quota will be replenished in 2.12 days.", Action.WAIT),
    ("", 403, "403", "Out of call volume quota. Quota will be replenished in 00:00:31.", Action.SLOW_REQUESTS),
    ("", 429, "", "Limit reached on tokens per day (TPD). Please try again in 6h13m0s.", Action.WAIT),
    ("", 429, "", "Limit reached on tokens per day (TPD). Please try again in 7m12.5s.", Action.SLOW_TOKENS),
    ("", 429, "", "Rate limit is exceeded. Try again in 26 seconds.", Action.SLOW_REQUESTS),
    ("jina", 429, "1308", "已达到 5 小时的使用上限。您的限额将在 2026-01-02 03:04:05 重置", Action.WAIT),
    ("jina", 429, "1304", "该 API 已达今日调用次数限额", Action.WAIT),
    ("", 429, "", "Usage limit reached. It resets at 2026-01-02T03:04:05Z.", Action.WAIT),
    ("", 429, "", "Daily request quota per user exceeded", Action.WAIT),
    # may pass
    ("", 409, "", "", Action.RETRY),
    ("", 499, "", "client closed request", Action.RETRY),
    ("", 520, "", "Web server is returning an unknown error", Action.RETRY),
    # nobody knows whose fault
    ("cohere", 400, "400", "Invalid model name passed in model=x", Action.REJECT),  # LiteLLM
    ("cohere", 400, "", "Model not found in the model list, uid: x", Action.REJECT),  # Xinference
    ("siliconflow", 400, "20012", "Model does not exist. Please check it carefully.", Action.REJECT),
    ("vllm", 404, "404", "The model `x` does not exist.", Action.ACCESS),
    ("vllm", 400, "400", "The model does not support Score API", Action.REJECT),
    ("cohere", 200, "", "Unexpected endpoint or method. (POST /v1/rerank)", Action.REJECT),  # LM Studio
    ("dashscope", 500, "InternalError.Algo.InvalidParameter", "something else", Action.RETRY),
    ("dashscope", 400, "InternalError.Algo.InvalidParameter", "something else", Action.REJECT),
    ("", 403, "", "Sorry, you have been blocked", Action.ACCESS),
    ("", 405, "", "Sorry, your request has been blocked as it may cause potential threats", Action.ACCESS),
    ("", 407, "", "", Action.ACCESS),
    ("", 451, "", "", Action.REJECT),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "status", "code", "message", "action"), WORDS)
def test_the_words_of_each_server(wire: str, status: int, code: str, message: str, action: Action) -> None:
    """What servers and gateways were seen to say, each by the wire format it came over."""
    assert classify(Rejection(status, code, message), wire) is action


_MEANS = {
    "size": (400, Action.SPLIT),
    "empty": (400, Action.REFUSE),
    "refused": (400, Action.REFUSE),
    "billing": (429, Action.STOP),
    "requests": (429, Action.SLOW_REQUESTS),
    "tokens": (429, Action.SLOW_TOKENS),
    "growth": (429, Action.SLOW_GROWTH),
}
ROWS = [(wire, kind, words) for wire, rows in PHRASES.items() for kind, words in rows]


@pytest.mark.parametrize(("wire", "kind", "words"), ROWS)
def test_every_row_of_the_table_counts(wire: str, kind: str, words: str) -> None:
    """None is hidden behind another, and each means on its wire what it says."""
    is_code = words.endswith(":") and " " not in words
    code, message = (words[:-1], "") if is_code else ("", f"Sorry: {words.replace('...', 'some')} 7.")
    status, action = _MEANS[kind]
    assert classify(Rejection(status, code.title(), message.upper()), wire.strip("*")) is action


def test_a_retry_after_of_hours_is_not_waited_for() -> None:
    """A quota that comes back after an hour stops the run, which can go on then; one of a minute slows it down."""
    hours, minute = Rejection(429, "", "slow down", 7200.0), Rejection(429, "", "slow down", 60.0)
    assert classify(hours) is Action.WAIT and resets(hours) == "comes back in 2.0 hours"
    assert classify(minute) is Action.SLOW_REQUESTS and resets(minute) is None
    assert classify(Rejection(429, "", "slow down", 86400.0)) is Action.SLOW_REQUESTS  # a year, cut: absurd
    dated = "Limit resets at: 2026-01-02 03:04:05 UTC"
    assert classify(Rejection(429, "", dated, 60.0)) is Action.SLOW_REQUESTS


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("Out of call volume quota. Quota will be replenished in 02:15:31.", "replenished in 02:15:31"),
        ("Usage limit reached. It resets at 2026-01-02T03:04:05Z.", "resets at 2026-01-02T03:04:05Z"),
        ("已达上限。您的限额将在 2026-01-02 03:04:05 重置", "您的限额将在 2026-01-02 03:04:05 重置"),
        ("Daily request quota per user exceeded", "Daily request quota"),
    ],
)
def test_when_a_quota_comes_back_is_told(message: str, told: str) -> None:
    """Whatever makes the run wait is told in the server's own words."""
    rejection = Rejection(429, "", message)
    assert classify(rejection) is Action.WAIT and resets(rejection) == told
    assert told in advice(rejection)


@given(st.sampled_from(["", *CODECS]), st.integers(200, 599), st.text(max_size=40), st.text(max_size=200))
def test_any_rejection_can_be_classified(wire: str, status: int, code: str, message: str) -> None:
    """No code or text breaks the policy, and whatever makes the run wait can be told."""
    rejection = Rejection(status, code, message)
    assert classify(rejection, wire) is not Action.WAIT or resets(rejection)
    assert advice(rejection, wire) and possibly_billed(rejection) in (True, False)


@pytest.mark.parametrize(
    ("status", "code", "billed"),
    [
        (None, "timeout", True), (None, "held-up", True),
        (None, "connection", True), (None, "unreachable", False), (None, "certificate", False),
        (200, "malformed", True), (206, "malformed", True), (206, "", True), (408, "", True), (499, "", True),
        (500, "", True), (502, "", True), (504, "", True), (520, "", True), (524, "", True), (503, "", False),
        (429, "", False), (400, "", False), (413, "", False), (403, "", False), (525, "", False),
        (200, "InternalError", True), (200, "InvalidApiKey", False), (200, "Throttling", False), (200, "504", True),
    ],
)  # fmt: skip
def test_what_may_have_been_billed(status: int | None, code: str, billed: bool) -> None:
    """An attempt whose server may have done the work counts as possibly billed; one turned away at the door doesn't."""
    assert possibly_billed(Rejection(status, code, "")) is billed


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
