"""Defines the sections of a job that say how a run goes: how fast, in which processes, whom it tells.

Rankings don't depend on the processes.
"""

import os
import re
import socket
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from batchrank.job.endpoint import http_address
from batchrank.job.sections import Positive, Section


class Rate(Section):
    """How fast requests are sent; None takes the model card's quota.

    Attributes:
        share: the part of the quota that this process may use, a number or such as ``1/4``.
        account: jobs of one user on this host that say the same name share the quota, and each has what others leave.
    """

    rpm: Annotated[float, Field(gt=0)] | None = None
    tpm: Annotated[float, Field(gt=0)] | None = None
    share: float | str = 1.0
    account: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    concurrency: Literal["auto"] | Positive = "auto"

    @field_validator("share")
    @classmethod
    def _part(cls, value: float | str) -> float | str:
        try:
            part = Fraction(str(value))
        except (ValueError, ZeroDivisionError):
            raise ValueError(
                f"{value!r} is no part of the quota; write a number such as 0.25, or 1/4"
            ) from None
        if not 0 < part <= 1:
            raise ValueError(
                f"{value} is no part of the quota; write a number above 0 and up to 1, or such as 1/4"
            )
        return value

    @model_validator(mode="after")
    def _shared_once(self) -> "Rate":
        if self.account is None:
            return self
        if self.part != 1:
            raise ValueError(
                "account and share exclude each other: jobs of one account divide the quota among themselves; remove "
                "rate.share"
            )
        if not hasattr(socket, "AF_UNIX"):
            raise ValueError(
                "account needs Unix sockets, which this platform doesn't have; give each job a part, as rate.share: 1/4"
            )
        return self

    @property
    def part(self) -> Fraction:
        """The share as an exact fraction."""
        return Fraction(str(self.share))


_UNITS = {"h": 3_600, "d": 86_400, "w": 7 * 86_400}
"""Seconds."""
_AGE = re.compile(r"([0-9]{1,6})\s*([hdw])", re.IGNORECASE)


def parse_age(text: str) -> int:
    """An age in seconds.

    Raises:
        ValueError: it is none, or no time at all.
    """
    found = _AGE.fullmatch(text.strip())
    if found is None or int(found[1]) == 0:
        raise ValueError(f"{text!r} is no age; write a number of hours, days or weeks: 36h, 30d or 4w")
    return int(found[1]) * _UNITS[found[2].lower()]


class Reuse(Section):
    """What the ledger knows of earlier runs isn't asked again.

    Attributes:
        documents: document by document; else only requests that are the same as a whole.
        max_age: answers older than this are asked again, such as ``30d``; None for never.
        audit: among so many queries, one small old request is asked again, to notice a changed model; 0 for none.
    """

    documents: bool = True
    max_age: str | None = None
    audit: Annotated[int, Field(ge=0)] = 100

    @field_validator("max_age")
    @classmethod
    def _an_age(cls, value: str | None) -> str | None:
        if value is not None:
            parse_age(value)
        return value

    @property
    def seconds(self) -> float | None:
        """The greatest age in seconds."""
        return None if self.max_age is None else parse_age(self.max_age)


_MEMORY = r"^[0-9]+(\.[0-9]+)?\s*([KMGT]i?B?|B)?$"


class Ray(Section):
    """The Ray cluster whose machines rank.

    Attributes:
        address: a running cluster's, as ``ray.init`` takes it: ``auto`` for the one that this machine is part of,
            ``local`` for one of this machine alone, for as long as the run lasts.
        workers: processes that rank; ``auto`` one for each machine at first, then as many as bring more.
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


TOLD = "BATCHRANK_RUN_"
"""What the variables begin with that a command finds in its environment; no key of a job does."""


class On(Section):
    """What follows the end of a run: a command for the shell, a program with its arguments, or an http(s) address.

    Attributes:
        complete: after a complete run, also if some queries failed (exit codes 0 and 3).
        failed: after one that is not complete, whatever cut it short.
        gate: after a complete one that did not pass its gate (exit code 5).
    """

    complete: str | tuple[str, ...] | None = None
    failed: str | tuple[str, ...] | None = None
    gate: str | tuple[str, ...] | None = None

    @field_validator("*")
    @classmethod
    def _hook(cls, value: Any) -> Any:
        first = value if value is None or isinstance(value, str) else next(iter(value), "")
        if first is not None and not first.strip():
            raise ValueError(
                "is empty; write a command, a list of a program and its arguments, or an address"
            )
        return http_address(value) if is_address(value) else value


def is_address(hook: Any) -> bool:
    """Whether a hook is an address, as opposed to a command."""
    return isinstance(hook, str) and hook.lower().startswith(("http://", "https://"))
