"""Reads API keys from where a job says that they are, because a job names keys and never holds one."""

import os
from collections.abc import Mapping
from pathlib import Path

from batchrank.errors import JobError


def read_key(source: str, *, file: bool) -> str:
    """The key that a variable or a file holds.

    Raises:
        JobError: it is missing or empty, or holds what no header can carry.
    """
    if file:
        place, hint = f"endpoint.api_key_file: {source}", "write the key into it"
        try:
            key = Path(source).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise JobError(f"{place}: can't be read: {error}") from None
    else:
        place, hint = f"endpoint.api_key_env: {source}", f"set it, for example: export {source}=sk-..."
        key = os.environ.get(source, "").strip()
    if not key:
        raise JobError(f"{place}: no API key there; {hint}")
    if not key.isascii() or not key.isprintable():
        raise JobError(f"{place}: the API key holds a character that no HTTP header can carry")
    return key


def refuse_alike(keys: Mapping[str, str]) -> None:
    """See that no key comes twice, because it would be sent twice its quota.

    Raises:
        JobError: one does; names both of its sources.
    """
    first: dict[str, str] = {}
    for source, key in keys.items():
        if first.setdefault(key, source) != source:
            raise JobError(
                f"endpoint: {first[key]} and {source} hold the same API key, which would be sent twice its quota; "
                "name one of them"
            )
