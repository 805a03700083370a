"""Learns which requests the API finds too large, so that larger ones are halved without being asked first.

A limit, whatever it is of, rejects whatever is at least as large in every respect as something it rejected. To halve
such a request unasked gives the very parts that asking would have given, so what was learnt when changes no ranking.
Pure.
"""

from typing import NamedTuple

from batchrank.requests import Rejection

_ENOUGH = 2
"""Rejections after which they are believed to follow a rule: a single one may be a gateway's whim."""
_WELL_BELOW = 2
"""A request is not too large if one was accepted that is so many times as large."""


class Size(NamedTuple):
    """What limits are of: documents, tokens, bytes of the body."""

    documents: int
    tokens: int
    body: int


class Sizes:
    """Compares the requests found too large with those accepted."""

    def __init__(self) -> None:
        self._widest = self._heaviest = (0, 0)
        self._count = 0
        self._rejected: list[tuple[Size, Rejection]] = []

    @property
    def known(self) -> bool:
        """Whether sizes matter at all."""
        return self._count >= _ENOUGH

    def accepted(self, documents: int, body: int) -> None:
        """Learn that a request with so many documents and bytes was answered."""
        if documents > self._widest[0]:
            self._widest = (documents, body)
        if body > self._heaviest[1]:
            self._heaviest = (documents, body)
        if self._rejected:
            self._rejected = [
                entry for entry in self._rejected if entry[0].documents > documents or entry[0].body > body
            ]

    def plausible(self, documents: int, body: int) -> bool:
        """Whether a request may be too large, given what was accepted."""
        return not any(
            documents * _WELL_BELOW <= most and body * _WELL_BELOW <= bytes_
            for most, bytes_ in (self._widest, self._heaviest)
        )

    def rejected(self, size: Size, why: Rejection) -> None:
        """Learn that a request was found too large."""
        self._count += 1
        if not _at_least(size, [other for other, _ in self._rejected]):
            self._rejected = [entry for entry in self._rejected if not _at_least(entry[0], [size])]
            self._rejected.append((size, why))

    def hopeless(self, size: Size) -> Rejection | None:
        """What the API said of a request no larger than this one; None if it may be accepted."""
        return next((why for other, why in self._rejected if _at_least(size, [other])), None)

    @property
    def notice(self) -> str | None:
        """What the user should know and set; None if nothing was too large."""
        if not self._count:
            return None
        size, why = min(self._rejected, default=(None, None))
        most = (
            f"the largest that it took had {self._widest[0]} documents; set limits.documents to that, or "
            "limits.request_tokens or limits.body_bytes, if it is tokens or bytes that it limits, or whatever number "
            "its words or manual name"
            if self._widest[0]
            else "it took none"
        )
        smallest = (
            f"; the smallest of them had {size.documents} documents and {size.tokens} tokens" if size else ""
        )
        said = f" ({why})" if why else ""
        return f"the API found {self._count} requests too large, and they were halved{smallest}{said}; {most}"


def _at_least(size: Size, others: list[Size]) -> bool:
    """Whether a size is no smaller than one of the others in any respect."""
    return any(all(a >= b for a, b in zip(size, other, strict=True)) for other in others)
