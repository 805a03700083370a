"""Knows the words in which servers say why they reject a request, because statuses and codes alone don't tell it.

A 400 may mean a request that is too large, an empty document, refused content or an unpaid bill; only the text
tells which. All such texts stand here, by wire format, each with its source, so that a new one is one row.
"""

import re
from functools import cache
from typing import Literal

Kind = Literal["size", "empty", "refused", "billing", "requests", "tokens", "growth"]
"""What a rejection is about: a request too large, an empty or a refused document, money, or a rate of requests, of
tokens, or one that grew too quickly."""

EVERY = "*"
"""Rows for all wires: of gateways, and of servers that have no format of their own."""

PHRASES: dict[str, tuple[tuple[Kind, str], ...]] = {
    "dashscope": (
        # Model Studio, "Error codes": money, among the codes of throttling.
        ("billing", "free allocated quota exceeded"),
        ("billing", "allocationquota.freetieronly:"),
        ("billing", "accessdenied.unpurchased:"),
        # Model Studio, "Rate limits": the compatible endpoints call a minute's tokens insufficient_quota, and add
        # OpenAI's advice to check plan and billing details.
        ("tokens", "insufficient_quota:"),
        ("tokens", "exceeded your current quota"),
        ("tokens", "allocated quota exceeded"),
        ("requests", "requests rate limit exceeded"),
        ("requests", "current requests list"),
        ("growth", "increased too quickly"),
        # WeKnora, issue 3458: "batch size of documents is invalid, it should not be empty or larger than 500."
        ("size", "batch size ... is invalid"),
        # Model Studio, "Error codes": "Range of input length should be [1, 30000]"
        ("size", "range of input length should be"),
        # ApeRAG, issue 1071: "document index:0 is invalid, it should not be larger than 300000: input.documents"
        ("size", "should not be larger than"),
        # OpenViking, issue 1345: "text input should not be empty.: input.documents"
        ("empty", "should not be empty.: input.documents"),
        ("refused", "datainspectionfailed"),  # Model Studio, "Error codes", this and the next three
        ("refused", "data_inspection_failed:"),
        ("refused", "may contain inappropriate content"),
        ("refused", "inputdownloadfailed:"),
        ("refused", "unsupportedfileformat:"),
    ),
    "cohere": (
        # docs.cohere.com, "Errors" and "Rate limits": a trial key's month is over, or its minute.
        ("billing", "trial key, which is limited to ... / month"),
        ("requests", "trial key, which is limited to ... / minute"),
        ("requests", "past the per minute request limit"),
        ("tokens", "trial token rate limit exceeded"),
        ("size", "too many tokens:"),  # docs.cohere.com, "Errors"
        ("size", "too many documents"),  # docs.cohere.com, "Rerank best practices": at most 10,000
        ("size", "number of documents must be"),
    ),
    "jina": (
        # jina-ai/reader, source: InsufficientBalanceError, "Account balance not enough to run this query"
        ("billing", "balance not enough"),
        ("size", "list should have ... at most"),  # docs.pydantic.dev, "Validation errors": too_long
        ("size", "exceed the maximum of"),
        # docs.bigmodel.cn and docs.z.ai, "Error codes": Zhipu's reranker takes the same requests.
        ("billing", "1113:"),
        ("billing", "1309:"),
        ("size", "1261:"),
        ("refused", "1301:"),
        ("requests", "1302:"),
        ("requests", "1303:"),
        ("requests", "1305:"),
        ("requests", "1312:"),
    ),
    "siliconflow": (
        # OpenManus, issue 438: 30011, "Your paid balance is insufficient"
        ("billing", "30001:"),
        ("billing", "30011:"),
        (
            "size",
            "> maximum allowed batch size",
        ),  # page-assist, issue 371: "input batch size 473 > maximum ... 64"
        ("size", "must have less than ... tokens"),
        ("size", "20042:"),  # the code that comes with the former
    ),
    "voyage": (
        # Voyage's 429 to an account without a card: slower, not stopped.
        ("requests", "not yet added your payment method"),
        # continue, issue 1848: "The max allowed tokens per submitted batch is 100000. Your batch has 145736 tokens"
        ("size", "max allowed tokens per submitted batch"),
        ("size", "number of documents cannot exceed"),
        ("size", "total number of tokens cannot exceed"),
        ("size", "batch size limit is"),
        ("empty", "cannot contain empty strings"),
    ),
    "vllm": (
        # vllm-project/vllm: "This model's maximum context length is 4096 tokens. However, you requested 4097 tokens
        # in the input for score. Please reduce the length of the input."
        ("size", "maximum context length"),
        ("size", "please reduce the length"),
        ("size", "longer than the maximum model length"),
    ),
    "tei": (
        # huggingface/text-embeddings-inference: core/src/tokenization.rs and issues 356, 406; router
        ("size", "> maximum allowed batch size"),
        ("size", "must have less than ... tokens"),
        ("empty", "`inputs` cannot be empty"),
        ("requests", "model is overloaded"),
    ),
    "nim": (
        ("size", "list should have ... at most"),  # docs.pydantic.dev, "Validation errors": too_long
        ("size", "exceeds maximum allowed token size"),  # docs.nvidia.com, NeMo Retriever, "truncate": "NONE"
    ),
    EVERY: (
        ("billing", "free allocated quota exceeded"),
        ("tokens", "throttling ... exceeded your current quota"),  # Model Studio behind another wire
        ("billing", "trial key, which is limited to ... / month"),  # Cohere behind another wire
        ("billing", "arrearage:"),  # Model Studio, "Error codes", as the next five
        ("billing", "prepaidbilloverdue:"),
        ("billing", "postpaidbilloverdue:"),
        ("billing", "commoditynotpurchased:"),
        ("billing", "allocationquota.freetieronly:"),
        ("billing", "accessdenied.unpurchased:"),
        ("billing", "insufficient_quota:"),  # platform.openai.com, "Error codes", as the next
        ("billing", "check your plan and billing details"),
        ("billing", "1113:"),  # docs.bigmodel.cn, "Error codes": the account is in arrears, with status 429
        ("billing", "insufficientbalanceerror:"),  # jina-ai/reader, source
        ("billing", "billing_insufficient_balance:"),  # ai.baidu.com, AppBuilder, "Error codes"
        ("billing", "insufficient_user_quota:"),  # one-api and new-api, with status 403
        ("billing", "quota is not enough"),
        # LiteLLM, docs.litellm.ai, "Budgets": 400, "ExceededBudget ..." or "Budget has been exceeded! Current cost"
        ("billing", "budget has been exceeded"),
        ("billing", "exceededbudget"),
        ("billing", "exceeded budget"),
        ("billing", "budget_exceeded:"),
        ("billing", "account is in good standing"),
        # api-docs.deepseek.com, OpenRouter, Anthropic and SiliconFlow, "Error codes": 402, 403 or 429
        ("billing", "insufficient balance"),
        ("billing", "insufficient account balance"),
        ("billing", "insufficient credit"),
        ("billing", "insufficient funds"),
        ("billing", "balance is insufficient"),
        ("billing", "balance is too low"),
        ("billing", "balance not enough"),
        ("billing", "out of credits"),
        ("billing", "payment required"),
        ("billing", "bill is overdue"),
        ("billing", "account is overdue"),
        ("billing", "reached your billing limit"),
        ("billing", "余额不足"),
        ("billing", "欠费"),
        ("billing", "额度不足"),
        ("growth", "increased too quickly"),
        # platform.openai.com, "Rate limits": 429, "Request too large for ... on tokens per min (TPM)": never passes
        ("size", "request too large ... tokens per min"),
        ("tokens", "tokens per min"),
        ("tokens", "(tpm)"),
        ("requests", "requests per min"),
        ("requests", "(rpm)"),
        ("requests", "per minute"),
        ("requests", "/ minute"),
        ("requests", "reduced rate limits"),
        ("requests", "qps request limit reached"),  # cloud.baidu.com, Qianfan, "Error codes"
        ("tokens", "allocated quota exceeded"),
        # Model Studio: the free tier of a model is used up, unless a minute of it (above)
        ("billing", "free tier"),
        ("billing", "free quota"),
        ("requests", "too many requests"),  # RFC 6585, and 503 pages of load balancers
        ("requests", "overloaded ... requests"),
        ("requests", "rate limit"),
        # ggml-org/llama.cpp: tools/server, status 500: "input is too large to process. increase the physical batch
        # size", later "input (2793 tokens) is too large to process (current batch size: 2048)"
        ("size", "input ... too large to process"),
        ("size", "> maximum allowed batch size"),
        ("size", "maximum context length"),
        ("size", "range of input length should be"),
        # docs.pydantic.dev, "Validation errors": Infinity, Xinference and LiteLLM answer 422 with these
        ("size", "list should have at most"),
        ("size", "string should have at most"),
        ("empty", "string should have at least"),
        ("size", "tokens_too_long:"),  # cloud.baidu.com, Qianfan, "Error codes", as the next two
        ("size", "characters_too_long:"),
        ("size", "max number of documents is"),  # FastGPT, issue 1968
        ("empty", "cannot contain empty strings"),
        ("empty", "should not be empty.: input.documents"),
        ("refused", "datainspectionfailed"),
        ("refused", "content_filter:"),  # learn.microsoft.com, Azure OpenAI, "Content filtering"
        ("refused", "content_policy_violation:"),  # platform.openai.com, "Error codes"
        ("refused", "inputdownloadfailed:"),
        ("refused", "unsupportedfileformat:"),
        ("tokens", "current quota"),
    ),
}
"""What texts mean, by wire format; the first row that fits counts, a wire's own before those for all.

A row is lower-case words of a message, where ``...`` stands for anything between; one that ends in a colon is a code.
"""

_LIKE = {"dashscope-native": "dashscope"}
"""Wires that share another's words."""

_THING = (
    r"(?:\b(?:tokens?|documents?|texts?|passages?|inputs?|length|batch|payload|body|context|characters?|prompt|"
    r"sequence|items|list|images?|videos?|bytes)\b|长度|文档|文本|字符|输入)"
)
_EXCESS = (
    r"(?:\btoo (?:large|long|many|big)\b|\bexceed(?:s|ed|ing)?\b|\b(?:larger|longer|greater|more) than\b|"
    r"\bmax(?:imum)? (?:allowed )?(?:length|size|number|context|tokens|batch|input)\b|\bat most\b|\bless than\b|"
    r"\blimit of\b|\blimited to\b|超过|超出|超长|过长)"
)
_NEAR = 80
"""Characters between a thing and the word that says it is too large: about one clause."""
_SIZE = re.compile(f"{_THING}.{{0,{_NEAR}}}?{_EXCESS}|{_EXCESS}.{{0,{_NEAR}}}?{_THING}", re.DOTALL)
_NEVER_SIZE = re.compile(
    r"\bbudget\b|quota|\bbalance\b|\bcredits?\b|billing|payment|\btrial\b|\bplan\b|rate limit|"
    r"per (?:second|minute|hour|day|month)|(?:api|access|auth\w*|bearer|invalid) token"
)
"""Money and rates are exceeded too, but a smaller request would not help; nor do they make a key's token shorter."""
_EMPTY = re.compile(
    r"\b(?:documents?|texts?|passages?|inputs?|strings?)\b.{0,40}?\b(?:empty|blank|whitespace)\b|"
    r"\b(?:empty|blank)\b.{0,20}?\b(?:documents?|texts?|passages?|strings?)\b",
    re.DOTALL,
)
_NEVER_EMPTY = re.compile(r"\bquery\b|\blist of documents\b|input\.query")
"""An empty query or an empty list is no document's fault."""


def meaning(code: str, message: str, wire: str = "") -> Kind | None:
    """What a known code or text is about; None for one that no row explains.

    Args:
        code: the rejection's code, in lower case.
        message: its message, in lower case.
        wire: the wire format, empty for an unknown one, which may use anybody's words.
    """
    text = f"{code}: {message}"
    for kind, pattern in _rows(_LIKE.get(wire, wire)):
        if pattern.search(text):
            return kind
    return None


def too_large(message: str) -> bool:
    """Whether an unknown message, in lower case, says that something which has a size is too large."""
    return _SIZE.search(message) is not None and _NEVER_SIZE.search(message) is None


def empty(message: str) -> bool:
    """Whether an unknown message, in lower case, says that a document is empty."""
    return _EMPTY.search(message) is not None and _NEVER_EMPTY.search(message) is None


@cache
def _rows(wire: str) -> tuple[tuple[Kind, re.Pattern[str]], ...]:
    others = [rows for name, rows in PHRASES.items() if name != EVERY]
    tables = [PHRASES[wire], PHRASES[EVERY]] if wire in PHRASES else [PHRASES[EVERY], *others]
    return tuple((kind, _pattern(words)) for rows in tables for kind, words in rows)


def _pattern(words: str) -> re.Pattern[str]:
    if words.endswith(":") and " " not in words:
        return re.compile(f"^{re.escape(words)}")
    return re.compile(r".{0,200}?".join(map(re.escape, words.split(" ... "))), re.DOTALL)
