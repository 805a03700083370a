"""Decides whether answers of earlier runs may still be used, alike in every rerun.

This module is pure, and a query's position in the input alone decides, not the time at which findings come.

Every so many positions a query with earlier answers is *audited*: one small old request is asked again. What audits
found counts from the next such span of positions on, so that hardly anybody waits for it; only the first span waits for
the very first audit. Once one found the model changed, no earlier answer is used any more. A single query whose
answers contradict earlier ones leaves them aside by itself.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from batchrank.outcomes import Finding


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one query may rely on earlier answers.

    Attributes:
        holds: whether it may use them at all.
        audit: whether it asks one of them again.
        noise: the share of pairs that two new answers order differently, as far as audits showed.
    """

    holds: bool
    audit: bool = False
    noise: float = 0.0


class Trust:
    """Records findings and answers whether earlier answers still hold.

    Args:
        every: positions from one audit to the next; 0 for none.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._expected: set[int] = set()
        self._audits: dict[int, Finding | None] = {}
        self._aside: set[int] = set()

    def expect(self, position: int) -> None:
        """Note, in input order, that a query has earlier answers; it may be audited."""
        if self.every and not position % self.every:
            self._expected.add(position)

    def record(self, position: int, finding: Finding, *, audit: bool) -> None:
        """Record what a query found; the first audit of a position counts."""
        if audit:
            self._audits.setdefault(position, finding)
        if finding.changed:
            self._aside.add(position)

    def ended(self, position: int) -> None:
        """Record that a query has ended; an audit that brought nothing says nothing."""
        if position in self._expected:
            self._audits.setdefault(position, None)

    def at(self, position: int) -> Standing | None:
        """How far a query may rely on earlier answers; None while an audit that decides it is still under way."""
        if position in self._aside:
            return Standing(holds=False)
        if not self.every:
            return Standing(holds=True)
        span = position // self.every
        before = span * self.every if span else min(position, 1)
        counted = [at for at in sorted(self._expected) if at < before or at == position]
        if any(at not in self._audits and at != position for at in counted):
            return None
        found = [finding for at in counted if (finding := self._audits.get(at)) is not None]
        if any(finding.changed for finding in found):
            return Standing(holds=False)
        audit = position in self._expected and position not in self._audits
        return Standing(True, audit, max((finding.noise for finding in found), default=0.0))

    @property
    def changed(self) -> bool:
        """Whether an audit found that the model has changed."""
        return any(finding is not None and finding.changed for finding in self._audits.values())

    @property
    def aside(self) -> int:
        """How many queries left their earlier answers aside because theirs contradicted them."""
        return len(self._aside)

    @property
    def findings(self) -> list[Finding]:
        """What audits found, in input order."""
        return [found for _, found in sorted(self._audits.items()) if found is not None]

    def state(self) -> dict[str, Any]:
        """All findings as JSON-able values."""
        audits = {
            str(at): None if found is None else asdict(found) for at, found in sorted(self._audits.items())
        }
        return {"audits": audits, "aside": sorted(self._aside)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take in what an earlier process of the same run found."""
        for at, found in state["audits"].items():
            self._audits[int(at)] = None if found is None else Finding(**found)
            self._expected.add(int(at))
        self._aside |= set(state["aside"])
