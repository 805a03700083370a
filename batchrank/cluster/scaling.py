"""Decides how many processes rank, by what was seen in the last seconds: pure, so that each case can be tested.

It climbs: a change is made, and what it brings is measured. A change that turns out wrong is undone, and the next try
of any waits twice as long.
"""

from dataclasses import dataclass, replace

PERIOD = 10.0
"""Seconds of one look: long enough that answers a second mean something, short beside a night."""
_MOSTLY = 0.5
"""The share of looks at which requests wait for their turn that makes it the servers or the quota that limit."""
_GAIN = 1.1
"""A process more, or a quarter more where there are many, has to bring a tenth more answers."""
_LOSS = 0.95
"""One fewer may cost so little that it can't be told from chance."""
_STEP = 4
"""One in so many is added or released at a time, at least one: with forty, a single one's work could not be seen."""
_REST = 6
"""Periods until the next try after one that turned out wrong."""
_LONGEST = 10
"""Doublings of that at most."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen in one period.

    Attributes:
        rankers: processes that rank.
        coming: processes that are asked for, and not there yet.
        going: processes that get no new part, and are still there.
        parts: parts of the input that wait for a process.
        held: the share of looks at which requests waited for their turn, for the quota or for servers.
        answers: answers a second, those of the ledger included.
    """

    rankers: int
    coming: int
    going: int
    parts: int
    held: float
    answers: float


@dataclass(frozen=True, slots=True)
class Climb:
    """What is to be remembered between two looks.

    Attributes:
        change: the last change, if what it brings is still to be seen; 0 for none.
        before: answers a second before it.
        rest: periods in which nothing is tried.
        wrong: changes in a row that were undone.
    """

    change: int = 0
    before: float = 0.0
    rest: int = 0
    wrong: int = 0


def decide(climb: Climb, look: Look) -> tuple[Climb, int]:
    """How many processes are to be started (above 0) or released (below 0).

    1. No answer came: an outage, or a start; nothing can be told.
    2. A change is under way: it is waited for, but nobody is waited for who isn't needed any more.
    3. A change is to be judged: undone where it was wrong; a good one may be followed by the next of its kind at once.
    4. It is a time of rest.
    5. Requests mostly wait for their turn: one fewer would do as well.
    6. They don't, and parts wait: one more may do better.

    Args:
        climb: what is remembered.
        look: what was seen.
    """
    if not look.answers:
        return climb, 0
    if look.coming or look.going:
        unneeded = look.coming and (look.held >= _MOSTLY or not look.parts)
        return (Climb(rest=_REST), -look.coming) if unneeded else (climb, 0)
    held, step = look.held >= _MOSTLY, max(1, look.rankers // _STEP)
    if climb.change:
        least = climb.before * (_GAIN if climb.change > 0 else _LOSS)
        if look.answers < least:
            rest = _REST * 2 ** min(climb.wrong, _LONGEST)
            return Climb(rest=rest, wrong=climb.wrong + 1), -climb.change
        if held is (climb.change > 0):
            return Climb(rest=_REST), 0
        climb = Climb()
    if climb.rest:
        return replace(climb, rest=climb.rest - 1), 0
    if held and look.rankers > 1:
        return replace(climb, change=-step, before=look.answers), -step
    if not held and look.parts:
        step = min(step, look.parts)
        return replace(climb, change=step, before=look.answers), step
    return climb, 0


class Scaling:
    """Sums up what is seen many times a second to looks at a crew that stays the same, and keeps what was decided."""

    def __init__(self) -> None:
        self._climb = Climb()
        self._crew: tuple[int, int, int] | None = None
        self._begin(0.0, 0)

    def beat(
        self, now: float, crew: tuple[int, int, int], *, parts: int, gate: str | None, answered: int
    ) -> int:
        """How many processes are to be started (above 0) or released (below 0) now; 0 most of the time.

        Args:
            now: the time, seconds.
            crew: processes that rank, that are coming, and that are going, as in ``Look``.
            parts: parts that wait for one.
            gate: what holds requests back now.
            answered: answers so far.
        """
        if crew != self._crew or gate == "outage":
            # Who has just come has yet to fetch a part, so the time to be measured begins a little later.
            self._crew = crew
            self._begin(now + PERIOD / 2, answered)
        if now < self._since:
            self._first = answered
            return 0
        self._looks += 1
        self._held += gate is not None
        if now - self._since < PERIOD:
            return 0
        rankers, coming, going = crew
        answers = (answered - self._first) / (now - self._since)
        look = Look(rankers, coming, going, parts, self._held / self._looks, answers)
        self._climb, change = decide(self._climb, look)
        self._begin(now, answered)
        return change

    def _begin(self, since: float, answered: int) -> None:
        self._since, self._first = since, answered
        self._looks = self._held = 0
