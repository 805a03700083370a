"""Commits the parts that several processes have finished, in the order of the input, and sums them up."""

from collections.abc import Callable
from dataclasses import replace

import anyio
import anyio.to_thread

from batchrank.cluster.messages import Finished
from batchrank.errors import BatchrankError
from batchrank.merge.verdict import Verdicts
from batchrank.outcomes import Failure
from batchrank.pipeline.checkpoint import Checkpoint
from batchrank.pipeline.resume import Resume
from batchrank.pipeline.sink import FailureLines
from batchrank.pipeline.summary import Totals
from batchrank.write.writer import FailureLog


class Commits:
    """What a sink is for one process.

    Attributes:
        first_failure: the first query or record that could not be ranked.
        open: tells the sums of parts that processes have at hand.

    Args:
        totals: the sums of the parts that stand.
        failures: takes dead letters.
        verdicts: learns what parts came to.
        resume: where it is noted that a part stands.
        checkpoints: of the parts that stand, those to come included.
        clear: takes down what an older run left, before the first part is put in place.
    """

    def __init__(
        self,
        totals: Totals,
        failures: FailureLog | FailureLines,
        verdicts: Verdicts,
        resume: Resume,
        checkpoints: list[Checkpoint],
        clear: Callable[[], None],
    ) -> None:
        self.first_failure: Failure | None = None
        self.open: Callable[[], Totals] = Totals
        self._committed = totals
        self._failures = failures
        self._verdicts = verdicts
        self._resume = resume
        self._checkpoints = checkpoints
        self._clear: Callable[[], None] | None = clear
        self._finished: dict[int, Finished] = {}
        self._turn = anyio.Lock()
        self._broken = False

    @property
    def totals(self) -> Totals:
        """The sums so far, those of parts at hand included."""
        return self._committed.plus(self._held())

    @property
    def held(self) -> int:
        """Rankings in parts that don't stand yet."""
        return self._held().queries

    def _held(self) -> Totals:
        sums = self.open()
        for one in self._finished.values():
            sums = sums.plus(Totals(**one.checkpoint.totals))
        return sums

    async def clear(self) -> None:
        """Take down what an older run left, if that is still to be done.

        Raises:
            OutputError: the system refuses.
        """
        async with self._turn:
            if self._clear is not None:
                await anyio.to_thread.run_sync(self._clear)
                self._clear = None

    async def take(self, finished: Finished) -> None:
        """Take a part, and commit what is finished as far as no part before it is missing.

        Raises:
            OutputError: the dead letters can't be written.
            LedgerError: the ledger can't be.
        """
        self._finished[finished.number] = finished
        async with self._turn:
            while not self._broken and (one := self._finished.get(len(self._checkpoints))) is not None:
                try:
                    await self._commit(one)
                except BatchrankError:
                    self._broken = True  # what comes later may not be committed either
                    raise
                del self._finished[one.number]

    async def _commit(self, finished: Finished) -> None:
        part = finished.checkpoint
        self.first_failure = self.first_failure or finished.first_failure
        self._verdicts.take(part.verdicts)
        marked = await anyio.to_thread.run_sync(self._write, finished.letters)
        sums = self._committed.plus(Totals(**part.totals))
        verdicts = part.verdicts | {"head": self._verdicts.head}
        checkpoint = replace(part, totals=sums.state(), verdicts=verdicts, letters=marked)
        await self._resume.published(checkpoint)
        self._checkpoints.append(checkpoint)
        self._committed = sums

    def _write(self, letters: list[Failure]) -> list[object] | None:
        for failure in letters:
            self._failures.write(failure)
        kept = self._failures.mark()
        return None if kept is None else [kept.bytes, kept.sha256]

    async def close(self, *, complete: bool) -> list[Checkpoint]:
        """Make sure that nothing of an older run is left, if the run has come to its end."""
        if complete:
            await self.clear()
        return []
