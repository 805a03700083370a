"""Takes a job's secrets out of whatever a server or a library says; which those are, the job alone tells."""

import base64
import html
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

from batchrank.errors import JobError
from batchrank.job.config import Job
from batchrank.job.endpoint import secrets
from batchrank.job.running import is_address

HIDDEN = "(secret)"
_SHORTEST = 6
"""A shorter value could not be told from ordinary text, and is no secret worth the name."""
_TAIL = 4
"""The shortest beginning of a secret that is hidden at a text's end; fewer characters would hit ordinary words."""


class Secrets:
    """Texts that must not appear anywhere, in any of the usual spellings.

    Args:
        values: the secrets themselves.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        spellings = {spelling for value in values for spelling in _spellings(value)}
        self._keep({spelling for spelling in spellings if len(spelling) >= _SHORTEST})

    def also(self, *values: str) -> "Secrets":
        """These secrets and others: a key that was changed is no less secret for that."""
        return self | Secrets(values)

    def __or__(self, other: "Secrets") -> "Secrets":
        both = Secrets()
        both._keep({*self._texts, *other._texts})
        return both

    def hide(self, text: str) -> str:
        """The text without secrets, not even the beginning of one where the text was cut off."""
        if self._pattern is None:
            return text
        low = text.lower()
        for anchor in self._anchors:
            if anchor in low:
                text = self._pattern.sub(HIDDEN, text)
                break
        tail = text[-_TAIL:]
        for secret in self._texts:
            if tail not in secret:
                continue
            for length in range(len(secret) - 1, _TAIL - 1, -1):
                if text.endswith(secret[:length]):
                    return text[:-length] + HIDDEN
        return text

    def hide_bytes(self, data: bytes) -> bytes:
        """The same for a body that will be decoded."""
        low = data.lower()
        if self._bytes is None or not any(anchor.encode() in low for anchor in self._anchors):
            return data  # a search for each is many times faster than the pattern, and most have none
        return self._bytes.sub(HIDDEN.encode(), data)

    def hide_all(self, data: Any) -> Any:
        """The same for every text within lists and mappings; keys are ours, and stay."""
        if isinstance(data, str):
            return self.hide(data)
        if isinstance(data, Mapping):
            return {key: self.hide_all(value) for key, value in data.items()}
        return [self.hide_all(value) for value in data] if isinstance(data, list | tuple) else data

    def _keep(self, texts: set[str]) -> None:
        """Longest first, so that of two that begin alike nothing is left over; servers may change the case."""
        self._texts = sorted(texts, key=len, reverse=True)
        self._anchors = {_anchor(text) for text in self._texts}
        either = "|".join(map(_in_part_quoted, self._texts))
        self._pattern = re.compile(either, re.IGNORECASE) if texts else None
        self._bytes = re.compile(either.encode("utf-8", "surrogatepass"), re.IGNORECASE) if texts else None


def _anchor(text: str) -> str:
    """The longest part of a text that no quoting changes."""
    return max(re.findall(r"[a-z0-9._~-]+", text.lower()), key=len, default="")


def _in_part_quoted(text: str) -> str:
    """A pattern of a text in which any letter may stand as in an address, as clients quote some and leave others."""
    return "".join(map(_letter, text))


def _letter(letter: str) -> str:
    plain = re.escape(letter)
    if re.fullmatch(r"[A-Za-z0-9._~-]", letter):
        return plain
    quoted = "".join(f"%{byte:02x}" for byte in letter.encode("utf-8", "surrogatepass"))
    return f"(?:{plain}|{quoted}|[+])" if letter == " " else f"(?:{plain}|{quoted})"


def _spellings(value: str) -> Iterator[str]:
    """As it is, inside JSON, a page, an address, in base64, and escaped by Python."""
    yield value
    if " " in value:
        yield from _spellings(value.split(" ", 1)[1])  # Bearer KEY: the key may be told alone
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield value.replace("/", "\\/")
    yield html.escape(value)
    yield quote(value, safe="", errors="replace")
    yield quote(value, errors="replace")
    yield quote_plus(value, errors="replace")
    yield base64.b64encode(value.encode(errors="replace")).decode().rstrip("=")
    yield base64.urlsafe_b64encode(value.encode(errors="replace")).decode().rstrip("=")
    yield repr(value)[1:-1]


def secrets_of(job: Job, environ: Mapping[str, str] | None = None) -> Secrets:
    """Every secret that a job knows; what there is none of, or can't be read, is told elsewhere.

    1. the keys;
    2. the values of further headers;
    3. the fields of ``endpoint.body`` that are named as secrets;
    4. the user and password of the proxy, the job's or the environment's;
    5. whatever stands in the query of ``endpoint.url`` and ``endpoint.urls``;
    6. and of the addresses that are told of a run's end.

    Args:
        job: the job.
        environ: the environment, ``os.environ`` by default.
    """
    environ = os.environ if environ is None else environ
    own = job.endpoint
    return Secrets(
        [
            *(_readable(partial(job.api_key, source)) for source in job.key_sources),
            *own.headers.values(),
            *secrets(own.body),
            *(text for hook in dict(job.on).values() if is_address(hook) for text in in_address(hook)),
            *(
                text
                for url in [own.url or "", *own.urls]
                for text in (
                    *in_address(_readable(partial(job.proxy, environ, url=url or None))),
                    *in_address(url),
                )
            ),
        ]
    )


def _readable(read: Callable[[], str | None]) -> str:
    try:
        return read() or ""
    except JobError:
        return ""


def in_address(address: str) -> list[str]:
    """What an address may hold of secrets: user and password, and its query, as a whole and in parts."""
    parts = urlsplit(address)
    login = parts.netloc.rpartition("@")[0]
    user, password = (unquote(text) for text in ((parts.username or ""), (parts.password or "")))
    both = f"{user}:{password}"
    found = [login, user, password, *([both, _basic(both)] if login else []), parts.query]
    for pair in parts.query.split("&"):
        value = pair.partition("=")[2] or pair
        found += [pair, value, unquote_plus(value)]
    return [text for text in found if text]


def _basic(login: str) -> str:
    return base64.b64encode(login.encode()).decode()
