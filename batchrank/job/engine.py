"""Defines what a job says of the processes that it runs in; rankings don't depend on it."""

import os
from typing import Annotated, Literal

from pydantic import Field, model_validator

from batchrank.job.sections import Section

_MEMORY = r"^[0-9]+(\.[0-9]+)?\s*([KMGT]i?B?|B)?$"


class Ray(Section):
    """The Ray cluster whose machines rank.

    Attributes:
        address: a running cluster's, as ``ray.init`` takes it: ``auto`` for the one that this machine is part of,
            ``local`` for one of this machine alone, for as long as the run lasts.
        workers: processes that rank; ``auto`` as many as the cluster's processors allow.
        cpus: processors that each takes.
        memory: memory that each takes, such as ``700MiB``; None asks for none.
    """

    address: Annotated[str, Field(min_length=1)] = "auto"
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    cpus: Annotated[float, Field(gt=0)] = 1
    memory: Annotated[str, Field(pattern=_MEMORY)] | None = None


class Engine(Section):
    """Where the work is done: in one process by default.

    Attributes:
        processes: processes of this machine that rank, besides the one that sends and the one that reads; 1 for one
            process that does it all; ``auto`` for one fewer than there are processors.
        ray: machines of a cluster instead.
    """

    processes: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = 1
    ray: Ray | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "Engine":
        if self.ray is not None and "processes" in self.model_fields_set:
            raise ValueError("processes and ray exclude each other; keep one of them")
        return self

    @property
    def size(self) -> int:
        """Processes of this machine that rank; 1 where the one that was started does it all."""
        if self.processes != "auto":
            return self.processes
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, usable - 1)

    @property
    def several(self) -> bool:
        """Whether there is more than one process."""
        return self.ray is not None or self.size > 1
