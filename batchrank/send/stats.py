"""Counts what sending does, for one query, for the whole process and over time, in bounded memory."""

import bisect
import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from batchrank.data import Positions, Rejection
from batchrank.models import searches

MOST_BINS = 480
"""Bins of the timeline; when they are full, neighbours are joined, so that a run of any length takes as much memory."""
_SLOWEST = 20
"""Queries that the report lists as the slowest."""
LATENCY_BOUNDS = tuple(round(0.001 * 2 ** (i / 2), 6) for i in range(40))
"""Upper bounds of the latency histogram, seconds: from a millisecond to twelve minutes, two to the octave."""
FILL_BINS = 20
"""Bars of the histogram of how full requests are: 5% each."""


def quantile(latency: Sequence[int], share: float) -> float | None:
    """The latency that so large a share of the answers kept to, as an upper bound in seconds; None without any.

    Args:
        latency: answers by their latency, as ``LATENCY_BOUNDS`` divides it.
        share: from 0 to 1.
    """
    left = share * sum(latency)
    if not left:
        return None
    for bound, count in zip([*LATENCY_BOUNDS, LATENCY_BOUNDS[-1] * 2], latency, strict=True):
        left -= count
        if left <= 0:
            return bound
    return LATENCY_BOUNDS[-1] * 2


@dataclass(slots=True)
class Bin:
    """What fell into one span of time.

    Attributes:
        sent: requests sent in it that came to an end, and ``tokens`` predicted for them.
        answered: requests answered in it, and ``documents`` in them.
        throttled: refusals because of the rate (429).
        failed: other failed attempts.
        in_flight: the most requests in flight.
    """

    sent: int = 0
    tokens: int = 0
    answered: int = 0
    documents: int = 0
    throttled: int = 0
    failed: int = 0
    in_flight: int = 0

    def add(self, other: "Bin") -> None:
        """Take in what fell into the next span."""
        self.sent += other.sent
        self.tokens += other.tokens
        self.answered += other.answered
        self.documents += other.documents
        self.throttled += other.throttled
        self.failed += other.failed
        self.in_flight = max(self.in_flight, other.in_flight)


class Timeline:
    """Keeps count of requests that came to an end.

    Spans begin as quarters of a second, so that a short run shows how it went, and double in width whenever there are
    too many of them.

    Args:
        documents: most documents in one request, to tell how full it was.
        tokens: most tokens in one request.
        rpm: requests a minute allowed.
        tpm: tokens a minute allowed.
    """

    def __init__(self, *, documents: float = 1, tokens: float = 1, rpm: float = 1, tpm: float = 1) -> None:
        self._documents, self._tokens, self._rpm, self._tpm = documents, tokens, rpm, tpm
        self.width = 0.25
        self._start: float | None = None
        self._bins: list[Bin] = []
        self.latency = [0] * (len(LATENCY_BOUNDS) + 1)
        self.latency_sum = 0.0
        self.fill = [0] * FILL_BINS
        self.throttled = 0
        self._slowest: list[tuple[float, int, str, int, int]] = []
        self._ranked = 0

    def ended(
        self,
        started: float,
        now: float,
        *,
        documents: int,
        tokens: int,
        in_flight: int,
        answered: bool,
        throttled: bool,
    ) -> None:
        """Count one attempt.

        Args:
            started: when it was sent, in seconds by any clock that never goes back.
            now: when it came to its end, by the same clock.
            documents: documents in it.
            tokens: tokens it was expected to take.
            in_flight: requests in flight, this one included.
            answered: whether a usable answer came.
            throttled: whether it was throttled (429).
        """
        if self._start is None:
            self._start = started
        end = self._bin(now)  # first, as this may change the width
        sent = self._bin(started)
        sent.sent += 1
        sent.tokens += tokens
        end.in_flight = max(end.in_flight, in_flight)
        if not answered:
            end.throttled += throttled
            end.failed += not throttled
            self.throttled += throttled
            return
        end.answered += 1
        end.documents += documents
        self.latency[bisect.bisect_left(LATENCY_BOUNDS, now - started)] += 1
        self.latency_sum += now - started
        full = min(1.0, max(documents / self._documents, tokens / self._tokens))
        self.fill[min(FILL_BINS - 1, int(full * FILL_BINS))] += 1

    def ranked(self, query_id: str, seconds: float, requests: int, documents: int) -> None:
        """Count one ranked query; the slowest are kept by name.

        Args:
            query_id: its id.
            seconds: from its admission to its ranking, waiting for its turn included.
            requests: answered requests that it took.
            documents: documents in them.
        """
        self._ranked += 1
        entry = (seconds, -self._ranked, query_id, requests, documents)
        if len(self._slowest) < _SLOWEST:
            heapq.heappush(self._slowest, entry)
        else:
            heapq.heappushpop(self._slowest, entry)

    def _bin(self, at: float) -> Bin:
        assert self._start is not None
        index = max(0, int((at - self._start) / self.width))
        while index >= MOST_BINS:
            self._halve()
            index = max(0, int((at - self._start) / self.width))
        while len(self._bins) <= index:
            self._bins.append(Bin())
        return self._bins[index]

    def _halve(self) -> None:
        """Join neighbours two by two."""
        self.width *= 2
        if len(self._bins) % 2:
            self._bins.append(Bin())
        for first, second in list(pairwise(self._bins))[::2]:
            first.add(second)
        self._bins = self._bins[::2]

    def quantile(self, share: float) -> float | None:
        """The latency that so large a share of the answers kept to; see ``quantile`` of this module."""
        return quantile(self.latency, share)

    def data(self) -> dict[str, Any]:
        """As plain data: one list per quantity, a value a span."""
        rpm, tpm = self._rpm * self.width / 60, self._tpm * self.width / 60
        series: dict[str, list[Any]] = {
            name: [getattr(b, name) for b in self._bins] for name in Bin.__slots__
        }
        series["quota"] = [round(max(b.sent / rpm, b.tokens / tpm), 4) for b in self._bins]
        return {
            "seconds": self.width,
            "series": series,
            "latency": {"bounds": list(LATENCY_BOUNDS), "counts": self.latency},
            "fill": self.fill,
            "slowest": [
                {"query_id": name, "seconds": round(seconds, 3), "requests": requests, "documents": documents}
                for seconds, _, name, requests, documents in sorted(self._slowest, reverse=True)
            ],
        }


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
        asked: positions of the documents that this run asked about.
        reused: whether the ranking rests on answers of earlier runs.
        oldest: when the oldest answer of an earlier run was given, in seconds since 1970; None without any.
    """

    chunks: int = 0
    requests: int = 0
    documents: int = 0
    tokens: int = 0
    searches: int = 0
    lost: list[tuple[int, Rejection]] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)
    asked: list[Positions] = field(default_factory=list)
    reused: bool = False
    oldest: int | None = None

    def answered(
        self, key: bytes, documents: Positions, tokens: int, searched: int | None, *, at: int | None
    ) -> None:
        """Count an answered request.

        Args:
            key: what the ledger knows it by; counted once.
            documents: positions of its documents.
            tokens: tokens billed for it.
            searched: searches billed for it; None where nobody said.
            at: when an earlier run was answered; None for an answer of this run.
        """
        if at is None:
            self.asked.append(documents)
        else:
            self.rested_on(at)
        if key not in self.keys:
            self.keys.add(key)
            self.requests += 1
            self.documents += len(documents)
            self.tokens += tokens
            self.searches += searches(len(documents)) if searched is None else searched

    def rested_on(self, at: int) -> None:
        """Note that the ranking rests on an earlier run's answer, given at a time; 0 where nobody knows."""
        self.reused = True
        if at:
            self.oldest = at if self.oldest is None else min(self.oldest, at)


@dataclass(slots=True)
class Counts:
    """What happened while sending; depends on timing, so it belongs to the summary and the display.

    Attributes:
        requests: requests that came to an end, well or not.
        documents: documents in answered requests.
        tokens: tokens billed for those.
        reused_requests: requests that the ledger answered.
        recalled: queries that were ranked by earlier answers document by document.
        saved_tokens: tokens that answers of earlier runs saved, and ``saved_searches`` where searches are billed;
            ``spared_tokens`` of them document by document, not by whole answers.
        retries: failed attempts that were repeated, by code.
        malformed: unusable answers.
        ambiguous: requests sent, no answer received.
        splits: requests halved.
        latency: seconds from a request to its answer, smoothed.
        timeline: how sending went over time.
    """

    requests: int = 0
    documents: int = 0
    tokens: int = 0
    reused_requests: int = 0
    recalled: int = 0
    saved_tokens: int = 0
    saved_searches: int = 0
    spared_tokens: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    malformed: int = 0
    ambiguous: int = 0
    splits: int = 0
    latency: float = 0.0
    timeline: Timeline = field(default_factory=Timeline)
