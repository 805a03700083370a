"""Kills jobs on a Ray cluster: the process that was started, actors that rank, and nodes with those on them.

What must hold is what ``crash_harness`` lists, and that no actor outlives the job. The process that was started is the
account, so it is killed at the same points as one that does all by itself.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import commands
from crash_harness import POINTS, STARTED, Harness
from ray_nodes import Nodes

from batchrank.emulator.app import Emulator

_GONE = 20.0
"""Seconds after which no actor of a job that has ended may be there any more."""


class OnRay(Harness):
    """Jobs that are ranked by two actors, or by as many as the run itself finds right."""

    kinds = (
        STARTED, *POINTS, "ranker", "ranker+ranker", "ranker+node", "ranker+random", "node", "node+node", "node+ranker",
        "node+random", "reader",
    )  # fmt: skip
    beginning = 6.0  # so long it takes until the first request is sent

    def __init__(self, folder: Path, emulator: Emulator, *, nodes: Nodes, **options: Any) -> None:
        self.nodes = nodes
        self._adding: asyncio.Task[Any] | None = None
        self._before = _kept()  # others' files, of whatever age
        super().__init__(folder, emulator, **options)

    def engine(self) -> dict[str, Any]:
        """Where jobs that are killed are ranked."""
        workers = 2 if self.figures.jobs % 2 else "auto"
        return {"ray": {"address": self.nodes.address, "workers": workers}}

    def _after(self) -> int:
        """In a quarter of the cases it is before anything is asked."""
        return 0 if self._rng.random() < 0.25 else super()._after()

    async def _kill(self, process: commands.Process, role: str, ended: "asyncio.Task[Any]") -> bool:
        if role in (STARTED, "reader"):
            return await super()._kill(process, role, ended)
        if role == "node":
            await self._added()
            await asyncio.to_thread(self.nodes.kill, self._rng.choice(self.nodes.all))
            self._adding = asyncio.create_task(asyncio.to_thread(self.nodes.add))
            return True
        while not ended.done():
            if self.nodes.kill_actor(self._rng):
                return True
            await asyncio.sleep(0.01)
        return False

    async def _added(self) -> None:
        """Wait for a node that comes in place of one that was killed."""
        if self._adding is not None:
            await self._adding

    async def _one_job(self, name: str, expected: dict[str, bytes], kills: int) -> None:
        await super()._one_job(name, expected, kills)
        await self._added()
        until = time.monotonic() + _GONE
        while left := self.nodes.actors():
            assert time.monotonic() < until, f"actors outlive their job: {left}"
            await asyncio.sleep(0.1)
        assert not (kept := _kept() - self._before), f"files that nobody removes: {kept}"


def _kept() -> set[str]:
    """What processes left that is in no folder of theirs, as only those are removed when their process was killed."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("batchrank-*") if path.is_file()}
