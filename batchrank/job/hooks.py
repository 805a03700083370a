"""Defines whom a run tells of its end: commands that are run, or addresses that its summary is sent to."""

from typing import Any

from pydantic import field_validator

from batchrank.job.endpoint import http_address
from batchrank.job.sections import Section

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
