"""Tells what a run's rankings depend on, so that results of two settings, or two inputs, never mix in one output.

Every key of a job counts, unless it is listed here as harmless: a key that somebody adds counts from its first day.
"""

import hashlib
from typing import Any

import orjson

from batchrank.job.config import Job
from batchrank.job.schema import key_names
from batchrank.version import __version__

_ACCESS = "who asks and by which way, not what is asked"
_PACE = "how fast and how often requests are sent; what became of each is in the ledger"
_END = "whether the run goes on or passes, not what it writes"
HARMLESS: dict[str, str] = {
    "name": "what people call the job; nothing in a ranking says it",
    "input.path": "the files that it names are compared themselves, by their names, sizes and times",
    "model": "the card and the price that it stands for are compared instead",
    **dict.fromkeys(("endpoint.api_key_env", "endpoint.api_key_file", "endpoint.auth"), _ACCESS),
    **dict.fromkeys(
        ("endpoint.proxy", "endpoint.ca_file", "endpoint.client_cert", "endpoint.client_key"), _ACCESS
    ),
    "endpoint.timeout": _PACE,
    **dict.fromkeys(("rate.rpm", "rate.tpm", "rate.share", "rate.concurrency"), _PACE),
    **dict.fromkeys(("retry.attempts", "retry.max_delay", "retry.outage"), _PACE),
    **dict.fromkeys(("budget.max_cost", "budget.max_tokens", "budget.max_requests", "budget.per"), _END),
    "failures.max_queries": _END,
    **{
        f"gate.{key}": _END
        for key in (
            "against", "depth", "persistence", "min_rbo", "min_tau", "qrels", "min_ndcg", "max_ndcg_drop",
        )
    },
    "output.path": "each folder has a state of its own in the ledger",
    "ledger": "where answers are kept, not what they say",
}  # fmt: skip
"""Keys that can't change a ranking, each with the reason."""
_HIDDEN = {"endpoint.headers", "endpoint.body"}
"""Keys whose values may be secrets: kept as fingerprints."""
_ADDRESSES = {"endpoint.url", "input.corpus", "input.queries"}
"""Keys whose values may have a secret in the query of an address."""
PROGRAM = "batchrank"
"""What tells the version: another one may rank differently, but goes on with the same run's caps."""


def identity(job: Job, tokenizer: str) -> dict[str, Any]:
    """All that the rankings of a job depend on besides the input's content: by key, and as resolved."""
    data = job.model_dump(mode="json")
    card = job.card.model_dump(mode="json", exclude={"rpm", "tpm", "source", "prices"})
    price = None if job.price is None else job.price.model_dump(mode="json")
    resolved = {
        PROGRAM: __version__,
        "model": {"card": card, "price": price},
        "endpoint": [_address(job.url), job.wire],
        "tokenizer in use": tokenizer,
    }
    return resolved | {key: _told(key, _value(data, key)) for key in leaves() if key not in HARMLESS}


def leaves() -> list[str]:
    """The dotted names of the keys that hold a value, as opposed to those that hold other keys."""
    names = list(key_names())
    parents = {name.rpartition(".")[0] for name in names}
    return [name for name in names if name not in parents]


def _value(data: Any, key: str) -> Any:
    for name in key.split("."):
        data = None if data is None else data[name]
    return data


def _told(key: str, value: Any) -> Any:
    """A value as it may be kept in a file."""
    if not value:
        return value
    if key in _HIDDEN:
        return fingerprint(value)
    if key in _ADDRESSES:
        return _address(value) if isinstance(value, str) else [_address(one) for one in value]
    return value


def _address(url: str) -> str:
    """An address that tells changes without telling a secret that may be in its query."""
    base, mark, query = url.partition("?")
    return base + mark + (fingerprint(query)[:16] if query else "")


def fingerprint(data: Any) -> str:
    """SHA-256 of plain data."""
    return hashlib.sha256(orjson.dumps(data, option=orjson.OPT_SORT_KEYS)).hexdigest()
