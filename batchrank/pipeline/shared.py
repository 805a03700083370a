"""Shares among all queries what earlier ones of them decide, and lets whoever asks too early wait for it."""

from collections.abc import Callable
from typing import TypeVar

import anyio

from batchrank.errors import BatchrankError
from batchrank.merge.verdict import Verdicts
from batchrank.outcomes import Overlap, Verdict

Known = TypeVar("Known")


class Waiting:
    """Lets queries wait for what others bring."""

    def __init__(self) -> None:
        self._changed = anyio.Event()
        self._reason: BatchrankError | None = None

    def stop(self, reason: BatchrankError) -> None:
        """Let nobody wait any longer: what is missing may never come, so whoever lacks it gets the reason raised."""
        self._reason = self._reason or reason
        self.notify()

    def notify(self) -> None:
        """Let whoever waits look again."""
        self._changed.set()
        self._changed = anyio.Event()

    async def known(self, look: Callable[[], Known | None]) -> Known:
        """What a look finds, once it finds something.

        Raises:
            BatchrankError: the one given to ``stop``.
        """
        while (found := look()) is None:
            if self._reason is not None:
                raise self._reason
            await self._changed.wait()
        return found


class SharedVerdicts(Waiting):
    """Wraps the pure ``Verdicts``."""

    def __init__(self, verdicts: Verdicts) -> None:
        super().__init__()
        self.verdicts = verdicts

    async def at(self, part: int, index: int) -> Verdict:
        """The verdict that counts for the multi-chunk query with this index in its part.

        Raises:
            BatchrankError: the one given to ``stop``.
        """
        return await self.known(lambda: self.verdicts.at(part, index))

    async def before(self, part: int, preceding: int) -> Verdict:
        """The verdict that stood right after so many multi-chunk queries of a part.

        Raises:
            BatchrankError: the one given to ``stop``.
        """
        return await self.known(lambda: self.verdicts.before(part, preceding))

    def record_probe(self, part: int, index: int, probe: Overlap | None) -> None:
        """Take in a probe's evidence; None when the query ended without any."""
        self.verdicts.record_probe(part, index, probe)
        self.notify()

    def record_hub(self, part: int, index: int, hub: Overlap | None) -> None:
        """Take in a hub's evidence; None when the query had no hub."""
        self.verdicts.record_hub(part, index, hub)
        self.notify()

    def record_end(self, part: int, count: int) -> None:
        """Take in how many multi-chunk queries a part holds, now that it is known where it ends."""
        self.verdicts.record_end(part, count)
        self.notify()
