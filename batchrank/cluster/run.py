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
from batchrank.cluster.commits import Commits
from batchrank.cluster.crew import Crew
from batchrank.cluster.messages import Terms
from batchrank.cluster.processes import LocalStarter, Starter
from batchrank.cluster.remote import Room
from batchrank.cluster.scaling import Scaling
from batchrank.cluster.stage import Layout
from batchrank.errors import BatchrankError
from batchrank.io.address import Where
from batchrank.io.scratch import Scratch
from batchrank.job.config import Job
from batchrank.pipeline.assemble import Engine
from batchrank.pipeline.checkpoint import Checkpoint, Start
from batchrank.pipeline.earlier import OnlyFailed
from batchrank.pipeline.parts import part_documents
from batchrank.pipeline.prepare import Preparer
from batchrank.pipeline.resume import Resume, scope
from batchrank.pipeline.run import Run
from batchrank.pipeline.sink import FailureLines
from batchrank.pipeline.summary import Progress
from batchrank.write.writer import FailureLog, StreamWriter, Writer

SILENCE = 60.0
"""Seconds after which a process elsewhere that says nothing is taken for dead: of a machine that vanished nobody is
told."""


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
        self._sink = commits = Commits(
            start.totals, failures, parts.verdicts, resume, checkpoints, partial(self.outputs.clear, writer)
        )
        assert self.outputs.written is not None
        written = self.outputs.written.absolute()
        ray = self.job.engine.ray
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
                    terms=self._terms(parts, start, None if ray else written),
                    commits=commits,
                    check=self._check_failures,
                    drain=self.options.drain,
                    gauge=self.gauge,
                    folder=written,
                    staging=self._staging(),
                    silence=SILENCE if ray else None,
                    scaling=self._scaling(),
                )
                self._flow = self._reader = crew
                if self._reason is not None:
                    crew.stop(self._reason)
                await crew.run()
        finally:
            await anyio.to_thread.run_sync(scratch.close)
        self.notices += crew.notices
        if parts.driver.recollector is not None:
            await parts.driver.recollector.restore()  # what other processes have found
        return crew.reason

    def progress(self) -> Progress | None:
        """A snapshot, with those that rank, and what they wait for."""
        found, crew = super().progress(), self._flow
        if found is None or not isinstance(crew, Crew):
            return found
        rankers, machines = crew.rankers
        trouble = found.trouble or crew.standing.trouble
        return replace(found, rankers=rankers, machines=machines, trouble=trouble)

    @asynccontextmanager
    async def _starter(self) -> AsyncIterator[tuple[Starter, int]]:
        """What starts processes, and how many are to rank, at first where that is to be found out."""
        hidden = self.job.key_variables
        if self.job.engine.ray is None:
            yield LocalStarter(hidden), self.job.engine.size
        else:
            from batchrank.cluster.ray import ray_starter

            async with ray_starter(self.job.engine.ray, self.job.name or "job", hidden) as started:
                yield started

    def _scaling(self) -> Scaling | None:
        """What finds out how many are to rank; None where the job says it."""
        ray = self.job.engine.ray
        return Scaling() if ray is not None and ray.workers == "auto" else None

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
