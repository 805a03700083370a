"""Defines what processes of a run tell one another: who takes part, on what terms, how far each is, what is done."""

import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from batchrank.cluster.remote import Room
from batchrank.io.address import Where
from batchrank.job.config import Job
from batchrank.outcomes import Failure
from batchrank.pipeline.checkpoint import Checkpoint
from batchrank.pipeline.earlier import OnlyFailed
from batchrank.pipeline.summary import Completed, Totals
from batchrank.send.requests import Past
from batchrank.version import __version__


def versions() -> dict[str, str]:
    """What the bytes of a part depend on besides the job: all processes of a run have the same."""
    import numpy
    import pyarrow

    return {
        "batchrank": __version__,
        "Python": platform.python_version(),
        "numpy": numpy.__version__,
        "pyarrow": pyarrow.__version__,
        "machine": platform.machine(),
    }


def differing(found: Mapping[str, str]) -> str | None:
    """Why a process with these versions can't take part in a run of this one; None where it can."""
    wanted = versions()
    if dict(found) == wanted:
        return None
    return (
        "a process that ranks has other versions than this one, so it might write other bytes: "
        + ", ".join(
            f"{name} {found.get(name)}, not {wanted[name]}"
            for name in wanted
            if found.get(name) != wanted[name]
        )
    )


@dataclass(slots=True, eq=False)
class Terms:
    """What a process that ranks needs to know of its run.

    Attributes:
        job: the job, without what only the gateway needs.
        written: the folder that parts are published in; None where it isn't shared, so that they are handed over.
        staging: the folder of this machine where they are written before, if that is an address.
        counted: whether a cap holds that tokens count against.
        run: the run's number in the ledger, and ``legacy`` whether that has entries of an older batchrank.
        legacy: see there.
        past: which answers of earlier runs may be used; None where there is none.
        scope: what tells the job's state in the ledger.
        anew: whether rejections of earlier runs are asked about again.
        only: tells the queries that may be asked about; None for all.
        drain: seconds that requests in flight are given once the run has to stop.
        level: from which level on log records are told.
        room: how many queries may be under way.
        head: what part 0 came to, as ``Verdicts.head`` tells; None while that isn't known.
    """

    job: Job
    written: Where | None
    staging: Path | None
    counted: bool
    run: int
    legacy: bool
    past: Past | None
    scope: str
    anew: bool
    only: OnlyFailed | None
    drain: float
    level: int
    room: Room
    head: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a process has come.

    Attributes:
        admitted: queries and records taken on, and the documents of the former.
        admitted_documents: see there.
        unfinished: those under way.
        completed: those that came out of ranking.
        open: the sums of parts that it has not handed over.
        reused_requests: as in ``Counts``, like all that follow.
        trouble: what the output's store is waited for; None while all is well.
    """

    admitted: int = 0
    admitted_documents: int = 0
    unfinished: int = 0
    completed: Completed = field(default_factory=Completed)
    open: Totals = field(default_factory=Totals)
    reused_requests: int = 0
    recalled: int = 0
    saved_tokens: int = 0
    saved_searches: int = 0
    spared_tokens: int = 0
    splits: int = 0
    trouble: str | None = None

    def __add__(self, other: "Standing") -> "Standing":
        sums: dict[str, Any] = {"trouble": self.trouble or other.trouble}
        for name in (one.name for one in fields(self) if one.name not in sums):
            mine, theirs = getattr(self, name), getattr(other, name)
            sums[name] = mine.plus(theirs) if isinstance(mine, Totals) else mine + theirs
        return Standing(**sums)


@dataclass(frozen=True, slots=True)
class Finished:
    """A part that stands in the output.

    Attributes:
        checkpoint: its files and digests, the position after it, its own sums, and its verdict's state.
        letters: its dead letters, in order.
        first_failure: its first query or record that could not be ranked.
    """

    checkpoint: Checkpoint
    letters: list[Failure]
    first_failure: Failure | None

    @property
    def number(self) -> int:
        """The part's number."""
        return self.checkpoint.part


async def logged(name: str, level: int, message: str) -> None:
    """Log what a process tells."""
    logging.getLogger(name).log(level, "%s", message)
