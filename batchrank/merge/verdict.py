"""Decides for the whole run whether scores of different requests can be compared, alike in every rerun.

This module is pure, and a query's position alone decides, not the time at which its answers come.

Queries of more than one chunk are counted 0, 1, 2, ... in input order: that number is a query's
*multi-chunk index*. What is decided for an index depends only on what was recorded for it and for earlier ones, never
on when that was. Nobody waits for a later index, so waiting can't deadlock as long as earlier queries go on.

Cases, for one index:
1. The model card declares the scores absolute or relative: that is the verdict. Nothing is probed.
2. Indexes 0, 1000, 2000, ... carry a probe, each of which begins a *span*. If its scores are equal: ``absolute``.
3. If they differ: ``relative``. If that was not so before, it is a flip.
4. If it says nothing (failed, or saturated): what held before; ``unknown`` at the start. An unknown query gets a hub.
5. In the first span that runs hubs, the first 32 hubs are pooled. If they show nothing but noise, later queries are
   ``absolute, noisy``, until a probe differs by more than twice that noise. They are looked at in blocks of 32
   indexes, so that within a block nobody waits for another.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Literal, TypeAlias

from batchrank.merge.comparable import SHIFT, Components, HubSums, Probe
from batchrank.outcomes import ABSOLUTE, Overlap, Verdict

SPAN = 1_000
"""Multi-chunk queries from one probe to the next: a probe's cost is lost among them, a changed server is noticed."""
HUBS = 32
"""Queries with a hub that are pooled: they share many more documents than a judgement needs. A block is as long."""

Declared: TypeAlias = Literal["absolute", "relative", "unknown"]


@dataclass(frozen=True, slots=True)
class Flip:
    """A verdict that a later probe turned to relative.

    Attributes:
        ordinal: the multi-chunk index from which on it holds.
        before: what held until then.
        deviation: root mean square difference of the probe's scores, as a share of the interquartile range.
    """

    ordinal: int
    before: Verdict
    deviation: float


class Verdicts:
    """Records evidence and answers consultations. Not thread-safe.

    Args:
        declared: what the model card says about its scores.
    """

    def __init__(self, declared: Declared = "unknown") -> None:
        self._declared: Declared = declared
        self._probes: dict[int, Probe] = {}
        self._hubs: dict[int, HubSums | None] = {}
        self._spans: list[_Span] = []
        self._components: dict[tuple[int, int], Components] = {}

    @property
    def settled(self) -> bool:
        """Whether the model card settles the verdict, so that nothing is measured."""
        return self._declared != "unknown"

    def carries_probe(self, index: int) -> bool:
        """Whether this query's first round holds a probe."""
        return self._declared == "unknown" and index % SPAN == 0

    def record_probe(self, index: int, overlap: Overlap | None) -> None:
        """Record what the probe of a query showed; None if it came back with nothing. The first record counts."""
        if self.carries_probe(index):
            self._probes.setdefault(index // SPAN, Probe.of(overlap))

    def record_hub(self, index: int, overlap: Overlap | None) -> None:
        """Record that a query has ended: with what its hub showed, or with None if it had no hub or failed.

        To be called once for every multi-chunk query. A probe that was never recorded then counts as empty.
        """
        self.record_probe(index, None)
        if self._declared == "unknown" and self._may_pool(index // SPAN):
            self._hubs.setdefault(index, None if overlap is None else HubSums.of(overlap))

    def at(self, index: int) -> Verdict | None:
        """The verdict for a query; None while earlier evidence that decides it is still missing."""
        if self._declared != "unknown":
            return self._declared
        span = self._span(index // SPAN)
        if span is None:
            return None
        return span.start if not span.pools else self._within(span, index)

    def flips(self) -> list[Flip]:
        """All turns to relative so far, in order; each is worth a warning."""
        if self._probes:
            self._span(max(self._probes))
        return [span.flip for span in self._spans if span.flip]

    def components(self) -> Components | None:
        """The pooled variance components, once 32 queries had a hub."""
        pooling = [span.number for span in self._spans if span.pools]
        sums = self._pool(pooling[0], SPAN) if pooling else None
        return Components.of(sums) if sums else None

    def state(self) -> dict[str, Any]:
        """All evidence as JSON-able values."""
        return {
            "declared": self._declared,
            "probes": {str(at): list(astuple(probe)) for at, probe in sorted(self._probes.items())},
            "hubs": {str(at): sums and list(astuple(sums)) for at, sums in sorted(self._hubs.items())},
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Verdicts":
        """Undo ``state``."""
        verdicts = cls(state["declared"])
        verdicts._probes = {int(at): Probe(*values) for at, values in state["probes"].items()}
        verdicts._hubs = {int(at): values and HubSums(*values) for at, values in state["hubs"].items()}
        return verdicts

    def _span(self, number: int) -> "_Span | None":
        """A span, once its probe and all that went before is known; spans are decided one after the other."""
        while len(self._spans) <= number:
            at = len(self._spans)
            probe = self._probes.get(at)
            before = self._end(self._spans[-1]) if at else "unknown"
            if probe is None or before is None:
                return None
            self._spans.append(self._begin(at, before, probe))
        return self._spans[number]

    def _begin(self, number: int, before: Verdict, probe: Probe) -> "_Span":
        start, flip = before, None
        if probe.finding == "equal":
            start = "absolute"
        elif probe.finding == "different" and not self._tolerated(before, probe):
            start = "relative"
            if before in ABSOLUTE:
                flip = Flip(number * SPAN, before, probe.deviation)
        pools = start in ("relative", "unknown") and not any(span.pools for span in self._spans)
        return _Span(number, start, pools, flip)

    def _tolerated(self, before: Verdict, probe: Probe) -> bool:
        """Whether a probe's differences are no more than the noise that was pooled."""
        pooled = self.components() if before == "absolute, noisy" else None
        return pooled is not None and probe.deviation <= 2 * pooled.residual + SHIFT

    def _end(self, span: "_Span") -> Verdict | None:
        """The verdict that holds after a span."""
        return self._within(span, (span.number + 1) * SPAN) if span.pools else span.start

    def _within(self, span: "_Span", index: int) -> Verdict | None:
        """The verdict inside (or right after) the span that pools."""
        offset = index - span.number * SPAN
        pooled = self._pooled(span.number, offset if offset == SPAN else offset // HUBS * HUBS)
        if pooled is None:
            return None
        return "absolute, noisy" if pooled.absolute else span.start

    def _pooled(self, number: int, length: int) -> Components | None:
        """The components of ``_pool``; None if not all of its queries have ended. Once known they don't change."""
        known = self._components.get((number, length))
        if known is None and (sums := self._pool(number, length)) is not None:
            known = self._components[number, length] = Components.of(sums)
        return known

    def _pool(self, number: int, length: int) -> list[HubSums] | None:
        """The first 32 hubs among a span's first indexes: empty if there are fewer, None if not all have ended."""
        sums: list[HubSums] = []
        for index in range(number * SPAN, number * SPAN + length):
            if index not in self._hubs:
                return None
            one = self._hubs[index]
            if one is not None:
                sums.append(one)
            if len(sums) == HUBS:
                return sums
        return []

    def _may_pool(self, number: int) -> bool:
        """Whether hubs of this span count, as far as is known, and are still wanted."""
        span = self._span(number)
        return span is None or (span.pools and not self._pool(number, SPAN))


@dataclass(frozen=True, slots=True)
class _Span:
    """The multi-chunk indexes from one probe to the next.

    Attributes:
        number: counted from 0.
        start: the verdict right after the probe.
        pools: whether it is the first span that runs hubs.
        flip: the turn to relative that it began with, if it did.
    """

    number: int
    start: Verdict
    pools: bool
    flip: Flip | None
