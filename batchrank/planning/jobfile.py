"""Writes a job file for people: its keys in their usual order, what each is for beside it, and what could be set."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from batchrank.job.config import Job

_COLUMN = 30
"""Where comments begin, so that they stand below one another."""


def job_text(
    data: Mapping[str, Any],
    *,
    head: Sequence[str],
    notes: Mapping[str, str],
    could: Mapping[str, Sequence[str]],
) -> str:
    """A job file.

    Args:
        data: its keys.
        head: lines of the comment that it begins with.
        notes: what stands beside a key, by its dotted name.
        could: lines for sections that it lacks, which are written as comments.
    """
    lines = [f"# {line}".rstrip() for line in head] + [""]
    for name in Job.model_fields:
        if name in data:
            lines += _entry(name, data[name], notes, name)
        elif name in could:
            lines += [f"# {line}" for line in could[name]]
    return "\n".join(lines) + "\n"


def _entry(name: str, value: Any, notes: Mapping[str, str], dotted: str, indent: str = "") -> Iterator[str]:
    nested = isinstance(value, Mapping) and value
    line = f"{indent}{name}:" if nested else f"{indent}{name}: {scalar(value)}"
    note = notes.get(dotted)
    yield line if note is None else f"{line:<{_COLUMN - 1}} # {note}"
    if nested:
        for key, inner in value.items():
            yield from _entry(key, inner, notes, f"{dotted}.{key}", f"{indent}  ")


def scalar(value: Any) -> str:
    """A value on one line of YAML, quoted where it must be."""
    options: dict[str, Any] = {"width": 10**6, "allow_unicode": True, "default_flow_style": True}
    plain = yaml.safe_dump(value, **options).removesuffix("...\n").strip()
    return plain if "\n" not in plain else json.dumps(value)
