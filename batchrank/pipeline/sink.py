"""Writes outcomes to files, in input order, in a worker thread, and takes a checkpoint where a part ends."""

import logging
from collections.abc import Callable
from typing import Protocol

import anyio.to_thread

from batchrank.errors import escaped
from batchrank.io.atomic import Kept
from batchrank.merge.verdict import Verdicts
from batchrank.outcomes import Failure, Ranking
from batchrank.pipeline.checkpoint import Checkpoint
from batchrank.pipeline.summary import Outcome, Totals
from batchrank.write.writer import Part, StreamWriter, Writer

log = logging.getLogger(__name__)


class Letters(Protocol):
    """What takes dead letters, in order."""

    def write(self, failure: Failure) -> object:
        """Take one."""

    def mark(self) -> Kept | None:
        """What stands in their file so far, durable from now on; None where there is none."""


class FailureLines:
    """Dead letters as log lines, for runs without an output folder."""

    def write(self, failure: Failure) -> None:
        """Log one failure."""
        where, name = escaped(str(failure.place)), failure.query_id
        log.warning("%s: query %r: %s: %s", where, name, failure.cause, escaped(failure.message))

    def mark(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is held back."""

    def abort(self) -> None:
        """Nothing is held back."""


class PartTally:
    """Sums up the part at hand apart from those before it; its dead letters go through here, too.

    Attributes:
        totals: the sums, of this part alone.
        items: how many queries and records of it came so far.

    Args:
        letters: where dead letters go.
        top_k: the depth that should be certified.
    """

    def __init__(self, letters: Letters, top_k: int) -> None:
        self._letters = letters
        self._top_k = top_k
        self.totals = Totals()
        self.items = 0

    def failed(self, failure: Failure) -> None:
        """Take in a query or record that could not be ranked."""
        self.items += 1
        self._letters.write(failure)
        self.totals.fail(failure.cause)

    def ranked(self, outcome: Outcome, ranking: Ranking) -> None:
        """Take in a query that was ranked."""
        self.items += 1
        for failure in outcome.lost:
            self._letters.write(failure)
        self.totals.add(ranking, outcome.lost, outcome.truncated, self._top_k)


class Sink:
    """Takes outcomes in input order and writes them.

    Attributes:
        first_failure: the first query or record that could not be ranked.

    Args:
        writer: writes rankings, in parts.
        failures: writes dead letters.
        totals: the sums of the parts that stand already.
        top_k: the depth that should be certified.
        verdicts: whether scores can be compared, as checkpoints tell whoever goes on.
        clear: called before anything is put in place: takes down what an older run left.
    """

    def __init__(
        self,
        writer: Writer | StreamWriter,
        failures: Letters,
        totals: Totals,
        *,
        top_k: int,
        verdicts: Verdicts,
        clear: Callable[[], None],
    ) -> None:
        self._clear: Callable[[], None] | None = clear
        self._writer = writer
        self._failures = failures
        self._top_k = top_k
        self._verdicts = verdicts
        self._position = 0
        self.first_failure: Failure | None = None
        # In one, so that whoever looks from another thread finds no query in both, or in none.
        self._sums = totals, PartTally(failures, top_k)

    @property
    def totals(self) -> Totals:
        """The sums so far, the part at hand included."""
        before, part = self._sums
        return before.plus(part.totals)

    @property
    def held(self) -> int:
        """Rankings since the last part that was published."""
        return self._sums[1].totals.queries

    async def write(self, outcomes: list[Outcome]) -> list[Checkpoint]:
        """Write some outcomes; the checkpoints of parts that this published."""
        return await anyio.to_thread.run_sync(self._write, outcomes)

    async def close(self, *, complete: bool) -> list[Checkpoint]:
        """Publish the last part, which ends with the input, if the run has come to its end; its checkpoint.

        A part that a stop cut short is given up: under its final name it would look like a complete one. The ledger
        has its answers, and a resumed run writes it anew.
        """
        if not complete:
            await anyio.to_thread.run_sync(self._writer.abort)
            return []
        return await anyio.to_thread.run_sync(self._close)

    def _close(self) -> list[Checkpoint]:
        self._clear_once()
        checkpoints = self._end() if self._sums[1].items else []
        self._writer.close()
        return checkpoints

    def _write(self, outcomes: list[Outcome]) -> list[Checkpoint]:
        checkpoints: list[Checkpoint] = []
        tally = self._sums[1]
        for outcome in outcomes:
            self._position = outcome.position + 1
            if isinstance(outcome.result, Failure):
                tally.failed(outcome.result)
                self.first_failure = self.first_failure or outcome.result
            else:
                if self._clear is not None:
                    self._clear_once()
                tally.ranked(outcome, outcome.result)
                self._writer.write(outcome.result)
            if outcome.last:
                checkpoints += self._end()
                tally = self._sums[1]
        return checkpoints

    def _end(self) -> list[Checkpoint]:
        """Publish the part at hand, where parts are published, and add its sums to those of the run."""
        self._clear_once()
        part = self._writer.end()
        self._sums = self.totals, PartTally(self._failures, self._top_k)
        return [] if part is None else [self._checkpoint(part)]

    def _clear_once(self) -> None:
        if self._clear is not None:
            self._clear()
            self._clear = None

    def _checkpoint(self, part: Part) -> Checkpoint:
        """How the run stands now that a part is in place."""
        letters = self._failures.mark()
        return Checkpoint(
            part=part.index,
            files={file.name: file.bytes for file in part.files},
            digests={file.name: file.sha256 for file in part.files},
            tags={file.name: file.tag for file in part.files if file.tag is not None},
            position=self._position,
            totals=self._sums[0].state(),
            verdicts=self._verdicts.state(part.index),
            letters=None if letters is None else [letters.bytes, letters.sha256],
        )
