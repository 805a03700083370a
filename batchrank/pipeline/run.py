"""Runs a whole job (read, shard, send, merge, write), goes on where it was stopped, and sums up at the end."""

import time
from dataclasses import dataclass
from functools import partial
from itertools import islice

import anyio.to_thread

from batchrank.errors import (
    BatchrankError,
    BudgetReachedError,
    JobError,
    OutputError,
    TooManyFailuresError,
    UnsortedError,
)
from batchrank.io.patience import Patience
from batchrank.job.config import Job
from batchrank.ledger.ledger import Ledger
from batchrank.pipeline.assemble import Engine, engine, opened_ledger
from batchrank.pipeline.checkpoint import Checkpoint, Start
from batchrank.pipeline.deadline import Deadline, Until
from batchrank.pipeline.earlier import OnlyFailed, refuse_unasked
from batchrank.pipeline.history import noted
from batchrank.pipeline.outlook import Done, outlook
from batchrank.pipeline.output import Outputs
from batchrank.pipeline.parts import PartCutter, part_documents
from batchrank.pipeline.preconditions import Preconditions, refuse_empty_ledger, refuse_unfinished
from batchrank.pipeline.prepare import Preparer
from batchrank.pipeline.report import Report, report, snapshot
from batchrank.pipeline.resume import Resume, scope
from batchrank.pipeline.sink import FailureLines, Sink
from batchrank.pipeline.stages import Flow, Reader
from batchrank.pipeline.stations import Moving, Reading, Writing
from batchrank.pipeline.summary import Outcome, Progress, Totals
from batchrank.pipeline.workers import MemoryBudget, background_task, unwrap_exception_groups
from batchrank.read.base import Gauge
from batchrank.read.reader import read
from batchrank.write.writer import FailureLog, StreamWriter, Writer


@dataclass(frozen=True, slots=True)
class Options:
    """How to run a job.

    Attributes:
        fresh: start over even if an earlier run could be continued; its paid answers are still reused.
        forget: drop all paid answers first.
        only_failed: ask the API only about what failed in the run before.
        drain: seconds that requests in flight are given once the run has to stop.
        until: when the run has to have ended, done or not; None for any time.
    """

    fresh: bool = False
    forget: bool = False
    only_failed: bool = False
    drain: float = 25.0
    until: Until | None = None


class Run:
    """One run of a job; ``execute`` once. ``progress`` and ``stop`` may be used meanwhile.

    Raises:
        JobError: the job lacks an input or an output.
    """

    def __init__(self, job: Job, options: Options | None = None) -> None:
        if not isinstance(job, Job):
            kind = type(job).__name__
            raise JobError(f"a run needs a batchrank.Job, this is a {kind}; load_job() reads a job file")
        if job.input is None or job.output is None:
            raise JobError("a run needs input.path and output.path; batchrank.rerank() needs neither")
        self.job = job
        self.options = options or Options()
        self.notices: list[str] = []
        self.outputs = Outputs(job)
        self.folder = self.outputs.folder
        self._input = job.input
        self._reason: BatchrankError | None = None
        self._flow: Moving | None = None
        self._sink: Writing | None = None
        self._reader: Reading | None = None
        self._engine: Engine | None = None
        self.gauge = Gauge()
        self._before, self._patience = Totals(), Patience(job.retry.outage)
        self._deadline = Deadline(self.options.until, self.options.drain, self.notices.append)
        self._started = time.monotonic()

    @property
    def totals(self) -> Totals:
        """The sums over all queries that were written so far."""
        return Totals() if self._sink is None else self._sink.totals

    def stop(self, reason: BatchrankError, *, drain: float | None = None) -> None:
        """Admit no more queries, drain what is in flight (for ``options.drain`` seconds), and let ``execute`` end."""
        self._reason = self._reason or reason
        self._patience.heed(reason)
        if self._flow is not None:
            self._flow.stop(self._reason, drain=drain)

    async def execute(self) -> Report:
        """Run the job, continuing an earlier run that was cut short.

        Returns:
            What came of it, with the exit code; also written to ``summary.json``.

        Raises:
            JobError: the job can't be run: no key, no such tokenizer, nothing failed before, the output would overwrite
                the input.
            InputError: the input as a whole is unusable.
            LedgerError: the ledger can't be used, or that of the run before is gone.
            OutputError: the output can't be written.
        """
        self._started = time.monotonic()
        ground = Preconditions(self.job, fresh=self.options.fresh)
        await anyio.to_thread.run_sync(ground.require)
        only = OnlyFailed.of(self.job) if self.options.only_failed else None
        self.notices += ground.notes
        await anyio.to_thread.run_sync(self.outputs.claim)
        try:
            with unwrap_exception_groups(), self._patience.applied():
                async with opened_ledger(self.job.ledger_path, salvage=self.options.fresh) as ledger:
                    return await self._execute(ledger, ground, only)
        finally:
            self.outputs.release()

    async def _execute(self, ledger: Ledger, ground: Preconditions, only: OnlyFailed | None) -> Report:
        shards, outputs = ground.sharder, self.outputs
        if not self.options.fresh:
            refuse_empty_ledger(self.job, await ledger.load("runs"))
        finished = await self._take_folder(ledger, ground)
        resume = Resume(
            ledger, self.job, ground.files, shards.counter.name, outputs.written, staging=outputs.staging
        )
        if finished:
            await resume.complete()
        if self.options.forget:
            await ledger.forget()
        start = await resume.begin(fresh=self.options.fresh, replay=only is not None)
        self._tell(start)
        verdicts = start.verdicts(self.job.card.scores)
        past = None if ledger.path is None else start.past
        opened = engine(self.job, shards, ledger, start.spent, verdicts, past=past, scope=scope(self.job))
        async with background_task(partial(self._deadline.watch, self)), opened as parts:
            parts.sender.recall.allow, parts.sender.recall.anew = only, self.options.fresh
            self._engine = parts
            running = partial(self._run, parts, resume, start, ground)
            return await noted(parts, lambda: self.totals, running)

    async def _take_folder(self, ledger: Ledger, ground: Preconditions) -> bool:
        """See that the output folder is this job's to write to; whether a switch was finished."""
        outputs, record = self.outputs, self.outputs.record
        finished = await anyio.to_thread.run_sync(outputs.settle)
        if outputs.written is None:
            return finished
        identity = await ledger.identity()
        if not self.options.fresh:
            await anyio.to_thread.run_sync(refuse_unfinished, outputs.written, record, identity)
        if record is not None and record.get("ledger_id") != identity and outputs.aside:
            self.notices.append(
                f"the complete output in {outputs.target} is another job's ({record.get('job')}); this one replaces it"
            )
        await anyio.to_thread.run_sync(outputs.note, identity, ground.sharder.counter.name, ground.files)
        return finished

    async def _run(self, parts: Engine, resume: Resume, start: Start, ground: Preconditions) -> Report:
        checkpoints = list(start.checkpoints)
        self._before = start.totals
        outputs = self.outputs
        writer, failures = await anyio.to_thread.run_sync(outputs.open, len(checkpoints), start.kept)
        try:
            reason = await self._rank(
                parts, resume, start, checkpoints, ground.preparer, failures, writer=writer
            )
            assert self._sink is not None
            sink = self._sink
            if reason is None and not self.totals.queries and sink.first_failure is not None:
                usable = self._flow is not None and self._flow.admitted_documents > 0
                reason = outputs.nothing_ranked(sink.first_failure, self.totals.failed, usable=usable)
            if reason is None and isinstance(parts.sender.recall.allow, OnlyFailed):
                reason = parts.sender.recall.allow.fewer(self.totals.queries)
            if isinstance(reason, UnsortedError):  # a query that was found twice lacks documents
                await anyio.to_thread.run_sync(writer.withdraw)
                checkpoints = []
            elif not isinstance(reason, OutputError):
                checkpoints += await sink.close(complete=reason is None)
            if reason is None:
                await anyio.to_thread.run_sync(failures.close)
        finally:
            writer.abort()
            failures.abort()
        result = report(
            self.job, parts, self.totals,
            reason=reason, elapsed=time.monotonic() - self._started, checkpoints=checkpoints, inputs=ground.files,
            notices=[*self._said(parts, reason), *parts.fleet.notices, *outputs.notices(reason, sink.held)],
        )  # fmt: skip
        result = await anyio.to_thread.run_sync(outputs.sum_up, result)
        if reason is None:
            await resume.complete(self.totals.verdict)
            await anyio.to_thread.run_sync(outputs.take_over)
        return result

    async def _rank(
        self,
        parts: Engine,
        resume: Resume,
        start: Start,
        checkpoints: list[Checkpoint],
        preparer: Preparer,
        failures: FailureLog | FailureLines,
        *,
        writer: Writer | StreamWriter,
    ) -> BatchrankError | None:
        """Rank and write what is not written yet; why the run stopped early, None where it did not.

        Args:
            parts: what it is done with.
            resume: where each part is noted that stands.
            start: where the run starts.
            checkpoints: of the parts that stand, those to come included.
            preparer: makes queries ready to be sent.
            failures: takes dead letters.
            writer: writes rankings.
        """
        self._sink = sink = Sink(
            writer, failures, start.totals,
            top_k=self.job.merge.top_k, verdicts=parts.verdicts, clear=lambda: self.outputs.clear(writer),
        )  # fmt: skip

        async def deliver(outcomes: list[Outcome]) -> None:
            if parts.sender.recall.allow is not None:
                refuse_unasked(outcome.result for outcome in outcomes)
            for checkpoint in await sink.write(outcomes):
                await resume.published(checkpoint)
                checkpoints.append(checkpoint)
            self._check_failures()

        memory = MemoryBudget(parts.fleet)
        self._flow = flow = Flow(parts.driver, deliver, memory=memory, drain=self.options.drain)
        if self._reason is not None:
            flow.stop(self._reason)
        items = islice(read(self._input, self.gauge), start.position, None)  # what came before is written
        cutter = PartCutter(part_documents(self.job.output), part=len(checkpoints))
        self._reader = reader = Reader(
            items, preparer, cutter,
            position=start.position, precompute=parts.driver.precompute, ended=parts.driver.verdicts.record_end,
        )  # fmt: skip
        await flow.run(reader.batches())
        return flow.reason

    def _check_failures(self) -> None:
        most = self.job.failures.max_queries
        if most is not None and (failed := self.totals.failed) > most:
            raise TooManyFailuresError(
                f"failures.max_queries: {failed} queries failed, more than {most}; see {self.outputs.letters}"
            )

    def _said(self, parts: Engine, reason: BatchrankError | None) -> list[str]:
        """What was said on the way, but for a forecast that did not come true; and at a cap, what going on takes."""
        said = [text for text in self.notices if reason is not None or text != self._deadline.notice]
        if isinstance(reason, BudgetReachedError) and self._flow is not None:
            done = Done.of(parts, self._flow, self._before, read=self._read, share=self._share)
            said.append(outlook(done, self.job.price, self.job.budget, str(reason).partition(":")[0]))
        return said

    def _tell(self, start: Start) -> None:
        self.notices += [start.notice] if start.notice is not None else []
        if self.outputs.target != self.folder:
            self.notices.append(
                f"rankings go to {self.outputs.target}; the ledger ({self.job.ledger_path}) and the folder "
                f"{self.folder} stay on this machine, and are needed to go on"
            )
        if self.folder is None and self.job.ledger_path is None:
            self.notices.append("there is no ledger: answers are lost if the run is cut short")

    def progress(self) -> Progress | None:
        """A snapshot; None before the first request could be sent."""
        parts, flow = self._engine, self._flow
        if parts is None or flow is None:
            return None
        return snapshot(
            parts, self.totals, flow, self._before, trouble=self._patience.trouble(),
            share=self._share, read=self._read,
            elapsed=time.monotonic() - self._started, forecast=self._deadline.forecast,
        )  # fmt: skip

    @property
    def _read(self) -> int:
        """Queries and bad records that were read."""
        return self._reader.read if self._reader else 0

    @property
    def _share(self) -> float:
        """The part of the input that was read: by bytes, or by queries where only so many are wanted."""
        reader, limit = self._reader, self._input.limit
        if reader is None or reader.exhausted:
            return 1.0 if reader else 0.0
        return max(self.gauge.share, min(1.0, reader.read / limit)) if limit else self.gauge.share
