"""Runs a job in several processes: the run of one process, in which a crew ranks what that would rank itself."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread

from batchrank.cluster.account import Account
from batchrank.cluster.crew import Crew
from batchrank.cluster.processes import LocalStarter, Starter
from batchrank.cluster.rank import Finished, Terms
from batchrank.cluster.remote import Room
from batchrank.cluster.stage import Layout
from batchrank.errors import BatchrankError
from batchrank.io.address import Where
from batchrank.io.scratch import Scratch
from batchrank.job.config import Job
from batchrank.merge.verdict import Verdicts
from batchrank.outcomes import Failure
from batchrank.pipeline.assemble import Engine
from batchrank.pipeline.checkpoint import Checkpoint, Resume, Start, scope
from batchrank.pipeline.earlier import OnlyFailed
from batchrank.pipeline.parts import part_documents
from batchrank.pipeline.prepare import Preparer
from batchrank.pipeline.run import Run
from batchrank.pipeline.sink import FailureLines
from batchrank.pipeline.summary import Totals
from batchrank.write.writer import FailureLog, StreamWriter, Writer

SILENCE = 60.0
"""Seconds after which a process elsewhere that says nothing is taken for dead: of a machine that vanished nobody is
told."""


class Commits:
    """Commits the parts that a crew has finished, and sums them up, as a sink does for one process.

    Attributes:
        first_failure: the first query or record that could not be ranked.
        committed: the sums of the parts that stand.

    Args:
        totals: those of an earlier process.
        failures: takes dead letters.
        verdicts: learns what parts came to.
        publish: notes that a part stands.
    """

    def __init__(
        self,
        totals: Totals,
        failures: FailureLog | FailureLines,
        verdicts: Verdicts,
        resume: Resume,
        checkpoints: list[Checkpoint],
    ) -> None:
        self.committed = totals
        self.first_failure: Failure | None = None
        self.crew: Crew | None = None
        self._failures = failures
        self._verdicts = verdicts
        self._resume = resume
        self._checkpoints = checkpoints

    @property
    def totals(self) -> Totals:
        """The sums so far, those of parts at hand included."""
        return self.committed if self.crew is None else self.committed.plus(self.crew.held)

    @property
    def held(self) -> int:
        """Rankings in parts that don't stand yet."""
        return 0 if self.crew is None else self.crew.held.queries

    async def commit(self, finished: Finished) -> None:
        """Commit a part, after all before it.

        Raises:
            OutputError: the dead letters can't be written.
            LedgerError: the ledger can't be.
        """
        part = finished.checkpoint
        self.first_failure = self.first_failure or finished.first_failure
        self._verdicts.take(part.verdicts)
        marked = await anyio.to_thread.run_sync(self._write, finished.letters)
        self.committed = self.committed.plus(Totals(**part.totals))
        checkpoint = replace(
            part,
            totals=self.committed.state(),
            verdicts=part.verdicts | {"head": self._verdicts.head},
            letters=marked,
        )
        await self._resume.published(checkpoint)
        self._checkpoints.append(checkpoint)

    def _write(self, letters: list[Failure]) -> list[object] | None:
        for failure in letters:
            self._failures.write(failure)
        kept = self._failures.mark()
        return None if kept is None else [kept.bytes, kept.sha256]

    async def close(self, *, complete: bool) -> list[Checkpoint]:
        """Make sure that nothing of an older run is left, if the run has come to its end."""
        if complete and self.crew is not None:
            await self.crew.clear()
        return []


class CrewRun(Run):
    """One run of a job in several processes."""

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
        self._sink = commits = Commits(start.totals, failures, parts.verdicts, resume, checkpoints)
        assert self.outputs.written is not None
        written = self.outputs.written.absolute()
        scratch = await anyio.to_thread.run_sync(Scratch)
        try:
            async with self._starter() as (starter, size):
                crew = Crew(
                    starter,
                    size,
                    Account(parts.gateway, parts.ledger, parts.sender.counts),
                    parts.fleet,
                    layout=Layout(
                        input=self._input,
                        documents=part_documents(self.job.output),
                        part=len(checkpoints),
                        position=checkpoints[-1].position if checkpoints else 0,
                        folder=scratch.path,
                        level=_level(),
                    ),
                    terms=self._terms(parts, start, None if self.job.engine.ray else written),
                    commit=commits.commit,
                    check=self._check_failures,
                    clear=partial(self.outputs.clear, writer),
                    drain=self.options.drain,
                    gauge=self.gauge,
                    folder=written,
                    staging=self._staging(),
                    silence=SILENCE if self.job.engine.ray else None,
                )
                commits.crew = self._flow = self._reader = crew
                if self._reason is not None:
                    crew.stop(self._reason)
                await crew.run()
        finally:
            await anyio.to_thread.run_sync(scratch.close)
        self.notices += crew.notices
        if parts.driver.recollector is not None:
            await parts.driver.recollector.restore()  # what other processes have found
        return crew.reason

    @asynccontextmanager
    async def _starter(self) -> AsyncIterator[tuple[Starter, int]]:
        """What starts processes, and how many are to rank."""
        hidden = [] if self.job.endpoint.api_key_file else [*self.job.key_sources]
        if self.job.engine.ray is None:
            yield LocalStarter(hidden), self.job.engine.size
        else:
            from batchrank.cluster.ray import ray_starter

            async with ray_starter(self.job.engine.ray, self.job.name or "job", hidden) as started:
                yield started

    def _staging(self) -> Path | None:
        staging = self.outputs.staging
        return None if staging is None else staging.absolute()

    def _terms(self, parts: Engine, start: Start, written: Where | None) -> Terms:
        recall = parts.sender.recall
        return Terms(
            job=without_access(self.job),
            written=written,
            staging=self._staging(),
            counted=parts.gateway.counted,
            run=parts.ledger.run,
            legacy=parts.ledger.legacy,
            past=start.past,
            scope=scope(self.job),
            anew=recall.anew,
            only=recall.allow if isinstance(recall.allow, OnlyFailed) else None,
            drain=self.options.drain,
            level=_level(),
            room=Room(1, parts.fleet.most),
            head=parts.verdicts.head,
        )


def _level() -> int:
    return logging.getLogger("batchrank").getEffectiveLevel()


def without_access(job: Job) -> Job:
    """A job for those who send nothing: without what lets requests in."""
    nothing: dict[str, Any] = {"headers": {}, "proxy": None, "api_key_env": None, "api_key_file": None}
    return job.model_copy(update={"endpoint": job.endpoint.model_copy(update=nothing)})
