"""Defends a run against sick servers: outages, requests too large, answers larger than any answer can be."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio

from batchrank.data import Rejection
from batchrank.errors import OutageError

UNREACHABLE = "unreachable"
"""The rejection code of a request that can't have arrived."""
_QUIET = 5.0
"""Seconds without any success after which people want to know why."""
_MANY = 32
"""Failures of the server's in a row, without any success, after which it is taken to be down: each further request may
be billed and give nothing, and one probe tells as much."""
_FIRST_BUDGET = 100.0
"""Retries that may be billed and that no bad document explains: so many are allowed at first, for bad luck."""
_MOST_BUDGET = 1000.0
"""The most that are allowed after many successes, so that a server that falls ill late can't spend more."""
_EARNED = 0.5
"""Of them that each success earns, so that a server that loses two answers in five ends the run, instead of doubling
its bill."""


class OutageDetector:
    """Keeps track of successes and failures.

    Args:
        outage: seconds without any success after which the run stops.
        accepted: whether this endpoint has ever taken a request of this run.
    """

    def __init__(self, outage: float, *, accepted: bool) -> None:
        self.accepted = accepted
        self._outage = outage
        self._succeeded = self._sent = float("-inf")
        self._since: float | None = None
        self._why: Rejection | None = None
        self._budget = _FIRST_BUDGET
        self._in_a_row = 0

    def succeeded(self, now: float, sent: float) -> None:
        """Learn that a request was answered, which was sent at a moment."""
        self.accepted = True
        self._succeeded = now
        self._sent = max(self._sent, sent)
        self._since = self._why = None
        self._in_a_row = 0
        self._budget = min(self._budget + _EARNED, _MOST_BUDGET)

    def works(self, since: float, *, sent: bool = False) -> bool:
        """Whether anything has succeeded since a moment, and the endpoint is not down since.

        Args:
            since: the moment.
            sent: count only what was sent after it: what an account may still do, an answer that was under way then
                doesn't tell.
        """
        return (self._sent if sent else self._succeeded) >= since and not self.down

    @property
    def down(self) -> bool:
        """Whether so much failed in a row that nothing but probes should be sent."""
        return self._in_a_row >= _MANY

    def failed(self, now: float, why: Rejection) -> None:
        """Learn that a request failed, or was told to come back later.

        Raises:
            OutageError: no request has succeeded for too long.
        """
        if self._since is None:
            self._since = now
        self._why = why
        self._in_a_row += why.status is None or why.status >= 500
        if now - self._since > self._outage:
            raise OutageError(
                f"no request has succeeded for {now - self._since:.0f} s (retry.outage: {self._outage:g}); the last "
                f"failure: {why}. {_hint(why)}"
            )

    def wasted(self, attempts: int, why: Rejection) -> None:
        """Learn of attempts that may have been billed, and whose request succeeded in the end.

        Raises:
            OutageError: there are too many of them for the number of successes.
        """
        self._budget -= attempts
        if self._budget < 0:
            raise OutageError(
                f"too many answers are lost for the number that arrive, and each may have been billed; the last "
                f"failure: {why}. {_hint(why)}"
            )

    def trouble(self, now: float) -> str | None:
        """What is wrong, once nothing has succeeded for a few seconds: for how long, and what came back last."""
        if self._since is None or self._why is None or now - self._since < _QUIET:
            return None
        return f"no request has succeeded for {now - self._since:.0f} s; the last failure: {self._why}"


def _hint(why: Rejection) -> str:
    if why.code == "malformed":
        return "If the server is well, endpoint.url or endpoint.wire is wrong; else run the job again later"
    if why.code == UNREACHABLE:
        return "Check endpoint.url and the network, and run the job again"
    if why.status == 504 or why.code == "timeout":
        return (
            "Run the job again later: it goes on where it stopped. If large requests take too long, set "
            "limits.documents to fewer, or endpoint.timeout to more"
        )
    return "Run the job again later: it goes on where it stopped"


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
    """Compares the requests found too large with those accepted.

    Attributes:
        slow: requests that took too long and were halved.
    """

    def __init__(self) -> None:
        self.slow = 0
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
    def notices(self) -> list[str]:
        """What the user should know and set."""
        found = [self._too_large] if self._count else []
        if self.slow:
            found.append(
                f"{self.slow:,} requests took too long (504, or no answer within endpoint.timeout) and were halved; "
                "set limits.documents to fewer, or endpoint.timeout to more"
            )
        return found

    @property
    def _too_large(self) -> str:
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


FREE = 2**18
"""Bytes that every answer may have without asking anybody; most have a few thousand."""
_BASE = 2**20
"""Whatever a gateway puts around an answer, and pages that tell of errors."""
_A_RESULT = 2**12
"""Bytes of one result besides the document: two numbers, and what an API may add to them."""
_REPEATED = 3
"""Bytes of a document that comes back, for one that was sent: as escapes, a letter of two bytes takes six."""
_RATIO = 500
"""Beyond ``FREE`` no answer is made so small by compression; deflate's limit is 1,032, others have none."""
_VALUES = 64
"""Lists and objects in one result."""
_IN_FLIGHT = 2**28
"""Bytes of all answers that are being read, ``FREE`` ones apart."""


class Bound:
    """What the answer to one request can need.

    Args:
        body: the request's body.
        documents: how many it holds.
        most: what no answer may pass, whatever its documents.
    """

    def __init__(self, body: bytes, documents: int, most: int) -> None:
        self._body = body
        self._documents = documents
        self.bytes = min(_BASE + _A_RESULT * documents + _REPEATED * len(body), most)

    def passed(self, size: int, compressed: int) -> str | None:
        """Say why no answer can be so large; None as long as one may.

        Args:
            size: decompressed bytes so far.
            compressed: bytes on the wire so far; 0 where it isn't compressed.
        """
        if max(size, compressed) > self.bytes:
            return f"the answer is larger than {self.bytes:,} bytes, more than its documents can need"
        if compressed and size > max(FREE, _RATIO * compressed):
            return f"the answer is compressed to less than a {_RATIO}th, which no answer can be"
        return None

    def crowded(self, data: bytes) -> str | None:
        """Why an answer isn't decoded: each list and object in it takes many times the bytes that it is written in."""
        if len(data) <= FREE:
            return None
        own = sum(self._body.count(bracket) for bracket in (b"{", b"["))
        if sum(data.count(bracket) for bracket in (b"{", b"[")) > own + _VALUES * (self._documents + _VALUES):
            return "the answer holds more lists and objects than its documents can need"
        return None


class Room:
    """Bounds the bytes of all answers that are being read at one time; who comes first is served first."""

    def __init__(self, size: int = _IN_FLIGHT) -> None:
        self._size = self._left = size
        self._turn = anyio.Lock()
        self._freed = anyio.Event()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Hold so many bytes, or all that there are, until the context is left; waits until they are free."""
        size = min(size, self._size)
        async with self._turn:
            while self._left < size:
                self._freed = anyio.Event()
                await self._freed.wait()
            self._left -= size
        try:
            yield
        finally:
            self._left += size
            self._freed.set()
