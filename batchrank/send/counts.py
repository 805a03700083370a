"""What sending counts, for one query and for the whole process."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Protocol

from batchrank.arrays import Positions
from batchrank.data import Query
from batchrank.requests import Rejection
from batchrank.send.stats import Timeline


class Predictor(Protocol):
    """What sending asks of sharding, for one query."""

    @property
    def exact(self) -> bool:
        """Whether ``tokens`` tells exact counts by now, as opposed to an upper bound."""

    def tokens(self, documents: Positions, *, exact: bool = False) -> int:
        """Tokens that a request with these documents is expected to cost; ``exact``: count them now if possible."""


@dataclass(slots=True)
class Meter:
    """What one query took: answered requests only, each once, so that it is the same on every run.

    Attributes:
        chunks: requests of the first pass as planned.
        requests: answered requests.
        documents: documents in them.
        tokens: tokens billed for them.
        searches: searches billed for them, where those are billed.
        lost: positions of documents that no request was accepted with, and why the last one wasn't.
        keys: the requests counted.
    """

    chunks: int = 0
    requests: int = 0
    documents: int = 0
    tokens: int = 0
    searches: int = 0
    lost: list[tuple[int, Rejection]] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A request ready to be sent: its body, and the key that the ledger knows it by."""

    body: bytes
    key: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Errand:
    """One query's errand: what every request made for it shares.

    Attributes:
        whole: the request of all its documents, where that was encoded ahead.
        sampled: whether the tokens of each round's first request are counted for the drift of bills, where nothing else
            needs that.
    """

    query: Query
    predictor: Predictor
    priority: tuple[int, int]
    meter: Meter
    whole: Encoded | None = None
    sampled: bool = False

    def of(self, query: Query) -> "Errand":
        """The same for another query, whose requests are not counted for this one."""
        return replace(self, query=query, predictor=_Bytes(query), meter=Meter(), whole=None, sampled=False)


class _Bytes:
    """Predicts tokens by bytes, which are never fewer, for a query that wasn't sharded."""

    exact = False

    def __init__(self, query: Query) -> None:
        self._query = query

    def tokens(self, documents: Positions, *, exact: bool = False) -> int:
        """The most tokens that a request with these documents can take."""
        query = len(str(self._query.text).encode("utf-8", "replace"))
        texts = (str(self._query.documents[i]) for i in documents.tolist())
        return sum(query + len(text.encode("utf-8", "replace")) for text in texts)


@dataclass(slots=True)
class Counts:
    """What happened while sending; depends on timing, so it belongs to the summary and the display.

    Attributes:
        requests: requests that came to an end, well or not.
        documents: documents in answered requests.
        tokens: tokens billed for those.
        reused_requests: requests that the ledger answered.
        saved_requests: those of them that an earlier run (or another query) asked, so that this one didn't pay.
        saved_tokens: tokens that this saved, and ``saved_searches`` where searches are billed.
        retries: failed attempts that were repeated, by code.
        malformed: answers of no use.
        ambiguous: requests sent without an answer seen.
        splits: requests halved.
        latency: seconds from a request to its answer, smoothed.
        timeline: how sending went over time.
    """

    requests: int = 0
    documents: int = 0
    tokens: int = 0
    reused_requests: int = 0
    saved_requests: int = 0
    saved_tokens: int = 0
    saved_searches: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    malformed: int = 0
    ambiguous: int = 0
    splits: int = 0
    latency: float = 0.0
    timeline: Timeline = field(default_factory=Timeline)
