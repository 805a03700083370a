"""Decides whether scores of different requests can be compared, alike in every rerun and wherever a part is ranked.

This module is pure, and a query's place alone decides, not the time at which its answers come.

The input is cut into parts 0, 1, 2, ... and the queries of more than one chunk are counted 0, 1, 2, ... within their
part: that number is a query's *multi-chunk index*. What is decided for a query depends only on what was recorded for
earlier ones of its part, and for part 0. Nobody waits for a later query, so waiting can't deadlock as long as earlier
queries go on; and who knows what part 0 came to, the *head*, can rank any other part alone.

Cases:
1. The model card declares the scores absolute or relative: that is the verdict. Nothing is probed.
2. Part 0 is the pilot, and its first multi-chunk query carries a probe. If its scores are equal: ``absolute``. If they
   differ: ``relative``. If it says nothing (failed, or saturated): ``unknown``. An unknown query gets a hub.
3. Unless that was ``absolute``, the first 32 hubs of part 0 are pooled. If they show nothing but noise, its later
   queries are ``absolute, noisy``. They are looked at in blocks of 32 indexes, so that within a block nobody waits for
   another. The head is the verdict after those 32, or at the part's end where there are fewer.
4. The first multi-chunk query of every later part carries a probe for that part. If its scores are equal: ``absolute``.
   If they differ (by more than twice the noise where the head is ``absolute, noisy``): ``relative``; where the head is
   absolute that is a flip. If it says nothing: the head.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal, TypeAlias

from batchrank.merge.comparable import SHIFT, Components, Finding, HubSums, Probe
from batchrank.outcomes import ABSOLUTE, Overlap, Verdict

HUBS = 32
"""Queries with a hub that are pooled: they share many more documents than a judgement needs. A block is as long."""

Declared: TypeAlias = Literal["absolute", "relative", "unknown"]

_STARTS: dict[Finding, Verdict] = {"equal": "absolute", "different": "relative", "nothing": "unknown"}


@dataclass(frozen=True, slots=True)
class Flip:
    """A part whose probe showed scores to be relative although those of part 0 were not.

    Attributes:
        part: the part.
        before: what held in part 0.
        deviation: root mean square difference of the probe's scores, as a share of the interquartile range.
    """

    part: int
    before: Verdict
    deviation: float


@dataclass(frozen=True, slots=True)
class Head:
    """What part 0 came to: all that other parts need to know of it.

    Attributes:
        verdict: the verdict after it.
        pooled: the variance components of its first 32 hubs; None where there were fewer.
    """

    verdict: Verdict
    pooled: Components | None = None

    def tolerates(self, probe: Probe) -> bool:
        """Whether a probe's differences are no more than the noise that was pooled."""
        if self.pooled is None or self.verdict != "absolute, noisy":
            return False
        return probe.deviation <= 2 * self.pooled.residual + SHIFT


class Verdicts:
    """Records evidence and answers consultations. Not thread-safe.

    Args:
        declared: what the model card says about its scores.
    """

    def __init__(self, declared: Declared = "unknown") -> None:
        self._declared: Declared = declared
        self._probes: dict[int, Probe] = {}
        self._pilot = _Pilot()
        self._head = None if declared == "unknown" else Head(declared)
        self._flips: dict[int, Flip] = {}

    @property
    def settled(self) -> bool:
        """Whether the model card settles the verdict, so that nothing is measured."""
        return self._declared != "unknown"

    def carries_probe(self, index: int) -> bool:
        """Whether the first round of a part's query with this multi-chunk index holds a probe."""
        return not index and not self.settled

    def record_probe(self, part: int, index: int, overlap: Overlap | None) -> None:
        """Record what the probe of a query showed; None if it came back with nothing. The first record counts."""
        if self.carries_probe(index):
            self._probes.setdefault(part, Probe.of(overlap))

    def record_hub(self, part: int, index: int, overlap: Overlap | None) -> None:
        """Record that a query has ended: with what its hub showed, or with None if it had no hub or failed.

        To be called once for every multi-chunk query. A probe that was never recorded then counts as empty.
        """
        self.record_probe(part, index, None)
        if not part and self._head is None and self._start != "absolute":
            self._pilot.record(index, None if overlap is None else HubSums.of(overlap))

    def record_end(self, part: int, count: int) -> None:
        """Record how many multi-chunk queries a part holds, once it is known where it ends; part 0's counts."""
        if not part:
            self._pilot.count = count

    def at(self, part: int, index: int) -> Verdict | None:
        """The verdict for a query; None while earlier evidence that decides it is still missing."""
        if self._declared != "unknown":
            return self._declared
        if part:
            return self._in(part)
        start = self._start
        if start is None or start == "absolute":
            return start
        return self._pilot.after(index // HUBS * HUBS, start)

    def before(self, part: int, preceding: int) -> Verdict | None:
        """The verdict right after so many multi-chunk queries of a part; None while it is not known yet."""
        if preceding:
            return self.at(part, preceding - 1)
        if not part and not self.settled:
            return "unknown"
        head = self._known_head()
        return None if head is None else head.verdict

    @property
    def head(self) -> dict[str, Any] | None:
        """What part 0 came to, as JSON-able values; None while it is not known."""
        head = self._known_head()
        if head is None:
            return None
        return {
            "verdict": head.verdict,
            "pooled": None if head.pooled is None else list(astuple(head.pooled)),
        }

    @head.setter
    def head(self, told: Mapping[str, Any]) -> None:
        """Take in what part 0 came to where somebody else ranked it."""
        pooled = told["pooled"]
        self._head = Head(told["verdict"], None if pooled is None else Components(*pooled))

    def flips(self) -> list[Flip]:
        """All parts so far whose scores turned out relative although part 0's were not; each is worth a warning."""
        return [flip for _, flip in sorted(self._flips.copy().items())]

    def components(self) -> Components | None:
        """The pooled variance components, once 32 queries of part 0 had a hub."""
        head = self._known_head()
        return None if head is None else head.pooled

    def forget(self, part: int) -> None:
        """Drop what was recorded for a part that nobody asks about any more; its flip stays known, as does the head."""
        if part:
            self._probes.pop(part, None)

    def state(self, part: int) -> dict[str, Any]:
        """What a run needs to know that goes on after this part, besides the states after earlier ones; JSON-able."""
        flip = self._flips.get(part)
        return {
            "declared": self._declared,
            "head": self.head,
            "flip": None if flip is None else list(astuple(flip)),
        }

    def take(self, state: Mapping[str, Any]) -> None:
        """Take in the ``state`` after a part that somebody else ranked, or that was ranked earlier."""
        if state["head"] is not None:
            self.head = state["head"]
        if state["flip"] is not None:
            flip = Flip(*state["flip"])
            self._flips[flip.part] = flip

    @classmethod
    def restore(cls, states: Sequence[Mapping[str, Any]]) -> "Verdicts":
        """Undo ``state``, of all parts from 0 up to where the run goes on."""
        verdicts = cls(states[-1]["declared"])
        for state in states:
            verdicts.take(state)
        return verdicts

    @property
    def _start(self) -> Verdict | None:
        """What part 0's probe says; None while it is not known."""
        probe = self._probes.get(0)
        return None if probe is None else _STARTS[probe.finding]

    def _in(self, part: int) -> Verdict | None:
        """The verdict within a later part."""
        probe = self._probes.get(part)
        if probe is None:
            return None
        if probe.finding == "equal":
            return "absolute"
        head = self._known_head()
        if head is None:
            return None
        if probe.finding == "nothing" or head.tolerates(probe):
            return head.verdict
        if head.verdict in ABSOLUTE:
            self._flips[part] = Flip(part, head.verdict, probe.deviation)
        return "relative"

    def _known_head(self) -> Head | None:
        """The head, once it is known; from then on it doesn't change."""
        if self._head is None:
            start = self._start
            if start == "absolute":
                self._head = Head(start)
            elif start is not None:
                self._head = self._pilot.head(start)
            elif self._pilot.count == 0:
                self._head = Head("unknown")
        return self._head


class _Pilot:
    """Pools the first hubs of part 0.

    Attributes:
        count: multi-chunk queries of part 0; None while it is not known where it ends.
    """

    def __init__(self) -> None:
        self.count: int | None = None
        self._ended: dict[int, HubSums | None] = {}
        self._length = 0  # all queries before this index have ended; after the 32nd hub nobody looks further
        self._hubs: list[HubSums] = []  # the first ones among those
        self._pooled: Components | None = None

    def record(self, index: int, sums: HubSums | None) -> None:
        """Take in that a query has ended, with or without a hub."""
        if self._pooled is not None or index < self._length:
            return
        self._ended.setdefault(index, sums)
        while self._pooled is None and self._length in self._ended:
            one = self._ended.pop(self._length)
            self._length += 1
            if one is not None:
                self._hubs.append(one)
            if len(self._hubs) == HUBS:
                self._pooled = Components.of(self._hubs)
                self._ended.clear()

    def after(self, index: int, start: Verdict) -> Verdict | None:
        """The verdict by the hubs of the queries before this one, where the probe said ``start``."""
        if self._pooled is not None and self._length <= index:
            return "absolute, noisy" if self._pooled.absolute else start
        return start if self._length >= index else None

    def head(self, start: Verdict) -> Head | None:
        """What part 0 comes to where the probe said ``start``; None while that is not known."""
        if self._pooled is not None:
            return Head("absolute, noisy" if self._pooled.absolute else start, self._pooled)
        return Head(start) if self.count is not None and self._length >= self.count else None
