"""Writes outcomes to files, in input order, in a worker thread, and takes a checkpoint after each published part."""

import logging
from collections.abc import Callable
from typing import Any

import anyio.to_thread

from batchrank.errors import escaped
from batchrank.merge.verdict import SPAN, Verdicts
from batchrank.outcomes import Failure, Ranking
from batchrank.pipeline.checkpoint import Checkpoint
from batchrank.pipeline.rank import Outcome
from batchrank.pipeline.summary import Totals
from batchrank.write.writer import FailureLog, Part, StreamWriter, Writer

log = logging.getLogger(__name__)


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


class Sink:
    """Takes outcomes in input order and writes them.

    Attributes:
        first_failure: the first query or record that could not be ranked.
        held: rankings since the last part that was published.

    Args:
        writer: writes rankings, in parts.
        failures: writes dead letters.
        totals: sums up what was written.
        top_k: the depth that should be certified.
        verdicts: the run-wide verdict, whose state goes into checkpoints.
        multi_chunk_index: queries of more than one chunk that came before.
        clear: called before the first ranking is written, or at the end if none is: takes down what an older run left.
    """

    def __init__(
        self,
        writer: Writer | StreamWriter,
        failures: FailureLog | FailureLines,
        totals: Totals,
        *,
        top_k: int,
        verdicts: Verdicts,
        multi_chunk_index: int,
        clear: Callable[[], None],
    ) -> None:
        self._clear: Callable[[], None] | None = clear
        self._writer = writer
        self._failures = failures
        self._totals = totals
        self._top_k = top_k
        self._verdicts = verdicts
        self._multi_chunk_index = multi_chunk_index
        self._position = 0
        self.first_failure: Failure | None = None
        self.held = 0

    async def write(self, outcomes: list[Outcome]) -> list[Checkpoint]:
        """Write some outcomes; the checkpoints of parts that this published."""
        return await anyio.to_thread.run_sync(self._write, outcomes)

    async def close(self, *, complete: bool) -> list[Checkpoint]:
        """Publish the last part, if the run has come to its end; its checkpoint.

        A part that a stop cut short is given up: under its final name it would look like a complete one. The ledger
        has its answers, and a resumed run writes it anew.
        """
        if not complete:
            await anyio.to_thread.run_sync(self._writer.abort)
            return []
        await anyio.to_thread.run_sync(self._clear_once)
        part = await anyio.to_thread.run_sync(self._writer.close)
        return [] if part is None else [self._checkpoint(part)]

    def _write(self, outcomes: list[Outcome]) -> list[Checkpoint]:
        checkpoints: list[Checkpoint] = []
        for outcome in outcomes:
            if outcome.multi_chunk_index is not None:
                self._multi_chunk_index = outcome.multi_chunk_index + 1
            self._position = outcome.position + 1
            if isinstance(outcome.result, Failure):
                self._fail(outcome.result)
            elif (part := self._rank(outcome, outcome.result)) is not None:
                checkpoints.append(self._checkpoint(part))
        return checkpoints

    def _fail(self, failure: Failure) -> None:
        self._failures.write(failure)
        self.first_failure = self.first_failure or failure
        self._totals.fail(failure.cause)

    def _rank(self, outcome: Outcome, ranking: Ranking) -> Part | None:
        for failure in outcome.lost:
            self._failures.write(failure)
        if self._clear is not None:
            self._clear_once()
        self.held += 1
        self._totals.add(ranking, outcome.lost, outcome.truncated, self._top_k)
        return self._writer.write(ranking)

    def _clear_once(self) -> None:
        if self._clear is not None:
            self._clear()
            self._clear = None

    def _evidence(self) -> dict[str, Any]:
        """The verdict's state as far as what is written depends on it: later queries will give theirs again."""
        state = self._verdicts.state()
        probes = {
            at: value for at, value in state["probes"].items() if int(at) * SPAN < self._multi_chunk_index
        }
        hubs = {at: value for at, value in state["hubs"].items() if int(at) < self._multi_chunk_index}
        return state | {"probes": probes, "hubs": hubs}

    def _checkpoint(self, part: Part) -> Checkpoint:
        """How the run stands now that a part is in place."""
        letters = self._failures.mark()
        self.held = 0
        return Checkpoint(
            part=part.index,
            files={file.name: file.bytes for file in part.files},
            digests={file.name: file.sha256 for file in part.files},
            position=self._position,
            ordinal=self._multi_chunk_index,
            totals=self._totals.state(),
            verdicts=self._evidence(),
            letters=None if letters is None else [letters.bytes, letters.sha256],
        )
