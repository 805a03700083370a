"""Keeps secrets out of whatever a server or a library says."""

import base64
import json
from collections.abc import Iterable
from urllib.parse import quote

HIDDEN = "(secret)"
_SHORTEST = 6
"""A shorter value could not be told from ordinary text, and is no secret worth the name."""
_TAIL = 4


class Secrets:
    """Texts that must not appear anywhere, in any of the usual spellings.

    Args:
        values: the secrets themselves.
    """

    def __init__(self, values: Iterable[str]) -> None:
        spellings = {spelling for value in values for spelling in _spellings(value)}
        self._texts = sorted((s for s in spellings if len(s) >= _SHORTEST), key=len, reverse=True)

    def also(self, value: str) -> "Secrets":
        """These secrets and another one: a key that was changed is no less secret for that."""
        more = Secrets([value])
        more._texts = sorted({*self._texts, *more._texts}, key=len, reverse=True)
        return more

    def hide(self, text: str) -> str:
        """The text without secrets, not even the beginning of one where the text was cut off."""
        for secret in self._texts:
            if secret in text:
                text = text.replace(secret, HIDDEN)
        for secret in self._texts:
            for length in range(len(secret) - 1, _TAIL - 1, -1):
                if text.endswith(secret[:length]):
                    return text[:-length] + HIDDEN
        return text

    def hide_bytes(self, data: bytes) -> bytes:
        """The same for a body that will be decoded."""
        for secret in self._texts:
            if secret.encode() in data:
                data = data.replace(secret.encode(), HIDDEN.encode())
        return data


def _spellings(value: str) -> Iterable[str]:
    """As it is, inside JSON, inside an address, in base64, and escaped by Python."""
    yield value
    if " " in value:
        yield from _spellings(value.split(" ", 1)[1])  # Bearer KEY: the key may be told alone
    yield json.dumps(value)[1:-1]
    yield value.replace("/", "\\/")
    yield quote(value, safe="")
    yield base64.b64encode(value.encode()).decode().rstrip("=")
    yield repr(value)[1:-1]
