"""Knows which keys of a job are paths, so that they can be told from another folder than the one they are for."""

import os
from collections.abc import Callable
from typing import Any

from batchrank.models import is_file

_KEYS = {
    "input": ("path", "corpus", "queries"),
    "endpoint": ("api_key_file", "ca_file", "client_cert", "client_key"),
    "gate": ("against", "qrels"),
    "output": ("path",),
}
"""Keys of sections that hold a path, or a list of them."""
_COUNTERS = ("auto", "qwen", "bytes")
"""Values of ``tokenizer`` that are no file."""


def moved(data: dict[str, Any], at: Callable[[str], str]) -> dict[str, Any]:
    """A job as plain data, with every path made another one.

    Args:
        data: the job, or the part of it that is set.
        at: makes a path another one; standard input and output, and addresses, are left as they are.
    """

    def to(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [to(one) for one in value]
        return value if value in (None, "", "-") or "://" in value else at(value)

    found = dict(data)
    for section, keys in _KEYS.items():
        if isinstance(known := data.get(section), dict):
            found[section] = known | {key: to(known[key]) for key in keys if key in known}
    for key in ("image_root", "ledger"):
        if key in data:
            found[key] = to(data[key])
    if data.get("tokenizer", "auto") not in _COUNTERS:
        found["tokenizer"] = to(data["tokenizer"])
    model = data.get("model")
    if isinstance(model, dict) and is_file(str(model.get("tokenizer") or "")):
        found["model"] = model | {"tokenizer": to(model["tokenizer"])}
    return found


def absolute(path: str) -> str:
    """A path as it is from anywhere on this machine; what a glob or a link means is left to whoever reads it."""
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 pathlib raises where there is no home
