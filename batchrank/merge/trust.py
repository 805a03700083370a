"""Finds out whether answers of earlier runs still hold, and decides whether they may be used, alike in every rerun.

This module is pure, and a query's place in its part of the input alone decides, not the time at which findings come.

Every so many places a query with earlier answers is *audited*: one small old request is asked again. What audits found
counts from the next such span of places of the part on, so that hardly anybody waits for it; only the first span waits
for the part's very first audit. Once one found the model changed, no earlier answer is used any more in that part;
other parts find out for themselves. A single query whose answers contradict earlier ones leaves them aside by itself.
"""

import itertools
from bisect import bisect_left, insort
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from batchrank.data import Positions
from batchrank.merge.agreement import total
from batchrank.merge.answers import Answer, Pool, Reply, Round, Step
from batchrank.merge.reuse import Memory
from batchrank.outcomes import Chunk, Finding

AUDITED = 32
"""Documents of an audit: some 500 pairs, among which a changed order shows, for the price of a short list."""
_ASKS = 4
"""Times that they are asked at most: with six pairs of new answers their noise is known well enough."""
_DOUBT = 2
"""Pairs that may differ by chance, as when a server rounds two scores to the same number."""
_LIKE, _UNLIKE = 1.5, 1.8
"""How much more than each other new answers may contradict an old one: up to the first an audit is content, above the
second, when it has asked as often as it may, the model counts as changed."""
_NOISES = 3
"""How much more than noise a hub may contradict earlier answers: its documents lie closer together than an audit's."""
_COARSE = 0.02
"""The share of pairs that it may order otherwise besides: finding out for sure is what audits are for."""
_GROSS = 0.25
"""The share of pairs above which a hub contradicts earlier answers where nothing tells the noise: a useful model is
less noisy."""


@dataclass(slots=True, eq=False)
class Audit:
    """Asks some of an earlier answer's documents again, and more often where that differs.

    Each time in another order, which no earlier request had, so that nobody answers from a cache.

    Attributes:
        pool: the query's documents.
        earlier: earlier answers, audits left out where there are others.
        seed: tells this run's audits from those of others.
        answers: tonight's.
    """

    pool: Pool
    earlier: Sequence[Answer]
    seed: int
    answers: list[Answer] = field(default_factory=list)

    def run(self) -> Generator[Step, Reply, Finding | None]:
        """Ask; None where nothing came back that tells anything."""
        # The smallest answer that tells enough, as asking about a few documents is all that is needed.
        sizes = [(len(a) < AUDITED, abs(len(a) - AUDITED), i) for i, a in enumerate(self.earlier)]
        old = self.earlier[min(sizes)[2]]
        docs = _spread(old)
        if len(docs) < 2:
            return None
        for turn in range(_ASKS):
            yield from self._ask(np.random.default_rng([self.seed, turn]).permutation(docs))
            against = total((old, new) for new in self.answers)
            if not against.pairs:
                return None
            noise = total(_pairs(self.answers))
            doubt = _DOUBT * len(self.answers) / against.pairs
            if against.share <= _LIKE * noise.share + doubt:
                return Finding(False, noise.share, against.share, self._differs(old))
        changed = against.share > _UNLIKE * noise.share + doubt
        return Finding(changed, noise.share, against.share, self._differs(old))

    def _ask(self, docs: Positions) -> Generator[Step, Reply, None]:
        reply = yield Round([Chunk(self.pool.positions[docs], "audit")])
        assert reply is not None and not isinstance(reply, str)
        self.answers += [self.pool.answer(scores) for scores in reply if len(scores.documents)]

    def _differs(self, old: Answer) -> bool:
        spread = float(np.ptp(old.values))
        for new in self.answers:
            _, here, there = np.intersect1d(old.docs, new.docs, return_indices=True)
            if len(here) and float(np.abs(old.values[here] - new.values[there]).max()) > 0.01 * spread:
                return True
        return False


def _spread(old: Answer) -> Positions:
    """Half of them the best, half spread over the rest: a hub's documents are alike."""
    top = min(len(old), AUDITED // 2)
    rest = np.linspace(top, len(old) - 1, min(AUDITED - top, len(old) - top)).astype(np.intp)
    places: Positions = np.unique(np.r_[np.arange(top), rest])
    return old.docs[places]


def _pairs(answers: Sequence[Answer]) -> Iterator[tuple[Answer, Answer]]:
    return itertools.combinations(answers, 2)


def contradicts(memory: Memory, fresh: Sequence[Answer], noise: float | None) -> bool:
    """Whether tonight's answers contradict the earlier ones more than noise explains.

    Args:
        memory: the earlier ones.
        fresh: tonight's.
        noise: the share of pairs that two new answers order differently, as far as audits told; None if none did.
    """
    found = memory.discord(fresh)
    if found.against <= _DOUBT:
        return False
    seen = [total(_pairs(fresh)), memory.noise]
    known = [one.share for one in seen if one.pairs] + ([] if noise is None else [noise])
    return found.share > (_NOISES * max(known) + _COARSE if known else _GROSS)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one query may rely on earlier answers.

    Attributes:
        holds: whether it may use them at all.
        audit: whether it asks one of them again.
        noise: the share of pairs that two new answers order differently, as far as audits showed; None if none did.
    """

    holds: bool
    audit: bool = False
    noise: float | None = None


class Trust:
    """Records the findings of one part and answers whether earlier answers still hold in it.

    Args:
        every: places from one audit to the next; 0 for none.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._audits: dict[int, Finding | None] = {}
        self._aside: set[int] = set()
        self._order: list[int] = []  # places that are audited, rising
        self._pending: set[int] = set()  # those of them whose finding is not known yet
        self._noises: list[
            float | None
        ] = []  # the largest noise up to each of them, as far as all before are known
        self._changed: int | None = None  # the first audit that found the model changed

    def expect(self, place: int) -> None:
        """Note, in input order, that a query has earlier answers; it may be audited."""
        if self.every and not place % self.every and place not in self._audits:
            insort(self._order, place)
            self._pending.add(place)

    def record(self, place: int, finding: Finding, *, audit: bool) -> None:
        """Record what a query found; the first audit of a place counts."""
        if audit and place not in self._audits:
            self._found(place, finding)
        if finding.changed:
            self._aside.add(place)

    def ended(self, place: int) -> None:
        """Record that a query has ended; an audit that brought nothing says nothing."""
        if place in self._pending:
            self._found(place, None)

    def at(self, place: int) -> Standing | None:
        """How far a query may rely on earlier answers; None while an audit that decides it is still under way."""
        if place in self._aside:
            return Standing(holds=False)
        if not self.every:
            return Standing(holds=True)
        span = place // self.every
        before = span * self.every if span else min(place, 1)
        if any(at < before for at in self._pending):
            return None
        if self._changed is not None and self._changed < before:
            return Standing(holds=False)
        own = self._audits.get(place)
        known = [self._noise_before(before), None if own is None else own.noise]
        return Standing(True, place in self._pending, _largest(known))

    @property
    def changed(self) -> bool:
        """Whether an audit found that the model has changed."""
        return self._changed is not None

    @property
    def aside(self) -> int:
        """How many queries left their earlier answers aside because theirs contradicted them."""
        return len(self._aside)

    @property
    def findings(self) -> list[Finding]:
        """What audits found, in input order."""
        return [found for _, found in sorted(self._audits.items()) if found is not None]

    def restore(self, place: int, finding: Finding, *, audit: bool) -> None:
        """Take in what an earlier process of the same run found; in input order."""
        if audit:
            insort(self._order, place)
        self.record(place, finding, audit=audit)

    def _found(self, place: int, finding: Finding | None) -> None:
        self._audits[place] = finding
        self._pending.discard(place)
        if finding is not None and finding.changed:
            self._changed = place if self._changed is None else min(self._changed, place)

    def _noise_before(self, place: int) -> float | None:
        """The largest noise of the audits before a place, all of which are known; None if none told any."""
        count = bisect_left(self._order, place)
        for at in self._order[len(self._noises) : count]:
            finding = self._audits[at]
            known = [*self._noises[-1:], None if finding is None else finding.noise]
            self._noises.append(_largest(known))
        return self._noises[count - 1] if count else None


def _largest(noises: Sequence[float | None]) -> float | None:
    return max((noise for noise in noises if noise is not None), default=None)
