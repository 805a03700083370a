"""The run-wide verdict, for queries that finish in any order: each waits for just the evidence it depends on."""

import anyio

from batchrank.errors import BatchrankError
from batchrank.merge.verdict import Verdicts
from batchrank.merging import Overlap, Verdict


class SharedVerdicts:
    """Wraps the pure ``Verdicts``: whoever asks too early waits until the evidence is in."""

    def __init__(self, verdicts: Verdicts) -> None:
        self.verdicts = verdicts
        self._changed = anyio.Event()
        self._reason: BatchrankError | None = None

    def stop(self, reason: BatchrankError) -> None:
        """Let nobody wait any longer: evidence may never come in, so whoever lacks some gets the reason raised."""
        self._reason = self._reason or reason
        self._notify()

    async def at(self, ordinal: int) -> Verdict:
        """The verdict that counts for the multi-chunk query with this ordinal.

        Raises:
            BatchrankError: the one given to ``stop``.
        """
        while (verdict := self.verdicts.at(ordinal)) is None:
            if self._reason is not None:
                raise self._reason
            await self._changed.wait()
        return verdict

    async def before(self, ordinal: int) -> Verdict:
        """The verdict that stood right before the multi-chunk query with this ordinal; ``unknown`` before the first.

        Raises:
            BatchrankError: the one given to ``stop``.
        """
        if not ordinal and not self.verdicts.settled:
            return "unknown"
        return await self.at(max(ordinal - 1, 0))

    def record_probe(self, ordinal: int, probe: Overlap | None) -> None:
        """Take in a probe's evidence; None when the query ended without any."""
        self.verdicts.record_probe(ordinal, probe)
        self._notify()

    def record_hub(self, ordinal: int, hub: Overlap | None) -> None:
        """Take in a hub's evidence; None when the query had no hub."""
        self.verdicts.record_hub(ordinal, hub)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
