"""Holds the parts that are laid out until a process ranks them, and takes them back from one that dies."""

from collections import Counter
from collections.abc import Iterable

import anyio

from batchrank.cluster.stage import StagedPart
from batchrank.errors import RunStoppedError

DEATHS = 3
"""Processes that may die of one part before it is held to be the part's fault."""
NO_PART = -1
"""Stands for those that died before they had one."""


def died_of(part: int, fate: str) -> RunStoppedError:
    """Why a run stops of a part that too many processes died of, the last as ``fate`` tells."""
    what = "before they began" if part == NO_PART else f"of part {part} of the input"
    return RunStoppedError(
        f"{DEATHS} processes died {what}; the last: {fate}. Run the job in one process (engine.processes: 1) to see "
        "why, or give each more memory"
    )


class Hands:
    """The parts that one process has; none is given to it any more once it is gone, or released.

    Attributes:
        parts: by number.
        gone: whether it is.
        released: whether it is to end once it has ranked what it has.
    """

    def __init__(self) -> None:
        self.parts: dict[int, StagedPart] = {}
        self.gone = self.released = False

    @property
    def closed(self) -> bool:
        """Whether no more parts are to be put into them."""
        return self.gone or self.released


class PartQueue:
    """Gives parts out, the first of the input first.

    Attributes:
        exhausted: whether the whole input is laid out.
        room: parts that may lie here before the reader waits.

    Args:
        room: the same.
    """

    def __init__(self, room: int) -> None:
        self.exhausted = False
        self.room = room
        self._parts: dict[int, StagedPart] = {}
        self._closed = False
        self._changed = anyio.Event()
        self._deaths: Counter[int] = Counter()

    @property
    def waiting(self) -> int:
        """Parts that lie here."""
        return len(self._parts)

    @property
    def drained(self) -> bool:
        """Whether there are none to come and none here, but for those of processes that die."""
        return self.exhausted and not self._parts

    def stuck(self, all_hands: Iterable[Hands]) -> bool:
        """Whether part 0 lies here, and there is nobody it could be given to, as all have others at hand."""
        return 0 in self._parts and all(hands.parts for hands in all_hands)

    async def put(self, part: StagedPart) -> None:
        """Take a part; returns once there is room for another one."""
        self._parts[part.number] = part
        self._notify()
        while len(self._parts) >= self.room and not self._closed:
            await self._changed.wait()

    def end(self) -> None:
        """Learn that there are no more parts to come, but for those of processes that die."""
        self.exhausted = True
        self._notify()

    def close(self) -> None:
        """Give no more out: whoever waits gets nothing."""
        self._closed = True
        self._notify()

    async def take(self, hands: Hands) -> StagedPart | None:
        """The next part, into somebody's hands; None where there is none to come.

        Every query's merge may wait for what part 0 comes to. So it goes to nobody who has others at hand: where as
        many queries as can be under way wait for it already, it would be behind them for ever.
        """
        while not (self._closed or hands.closed):
            number = min((n for n in self._parts if n or not hands.parts), default=None)
            if number is not None:
                hands.parts[number] = part = self._parts.pop(number)
                self._notify()
                return part
            if self.exhausted and not self._parts:
                break
            await self._changed.wait()
        return None

    def release(self, hands: Hands) -> None:
        """Put no more parts into somebody's hands."""
        hands.released = True
        self._notify()

    def give_back(self, hands: Hands) -> list[int]:
        """Take back what a process had that is gone; the parts that killed too many, ``NO_PART`` among them."""
        hands.gone = True
        self._parts |= hands.parts
        self._notify()
        return self.died(*hands.parts)

    def died(self, *numbers: int) -> list[int]:
        """Count a death with these parts at hand; those of which there were too many."""
        for number in numbers or (NO_PART,):
            self._deaths[number] += 1
        return [number for number in numbers or (NO_PART,) if self._deaths[number] >= DEATHS]

    def began(self) -> None:
        """Learn that a process got as far as to ask for a part."""
        self._deaths[NO_PART] = 0

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
