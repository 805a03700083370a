"""Knows which keys of a job are paths, moves them to another folder, and fills in the braces of ``output.path``.

``{date}`` is the day on which a run began, in UTC as the days of a budget are, so that it is one day on all machines.
``{name}`` is the job's name. A brace that is a part of the path itself is written twice. So each night's output has a
folder of its own.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from string import Formatter
from typing import Any

from batchrank.errors import JobError
from batchrank.io.address import Where, located
from batchrank.models import is_file

_KEYS = {
    "input": ("path", "corpus", "queries"),
    "endpoint": ("api_key_file", "ca_file", "client_cert", "client_key"),
    "gate": ("against", "qrels"),
    "output": ("path",),
}
"""Keys of sections that hold a path, or a list of them."""
_COUNTERS = ("auto", "qwen", "bytes")
"""Values of ``tokenizer`` that are no file."""


def moved(data: dict[str, Any], at: Callable[[str], str]) -> dict[str, Any]:
    """A job as plain data, with every path made another one.

    Args:
        data: the job, or the part of it that is set.
        at: makes a path another one; standard input and output, and addresses, are left as they are.
    """

    def to(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [to(one) for one in value]
        return value if value in (None, "", "-") or "://" in value else at(value)

    found = dict(data)
    for section, keys in _KEYS.items():
        if isinstance(known := data.get(section), dict):
            found[section] = known | {key: to(known[key]) for key in keys if key in known}
    for key in ("image_root", "ledger"):
        if key in data:
            found[key] = to(data[key])
    if data.get("tokenizer", "auto") not in _COUNTERS:
        found["tokenizer"] = to(data["tokenizer"])
    model = data.get("model")
    if isinstance(model, dict) and is_file(str(model.get("tokenizer") or "")):
        found["model"] = model | {"tokenizer": to(model["tokenizer"])}
    return found


def absolute(path: str) -> str:
    """A path as it is from anywhere on this machine; what a glob or a link means is left to whoever reads it."""
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 pathlib raises where there is no home


_DAY = r"(\d{4}-\d\d-\d\d)"
_MARK = "\0"
"""Stands for the date in a path, as no path can hold it."""
_LITERAL = "a brace that is a part of the path itself is written twice, as in out/{{x}}"


@dataclass(frozen=True, slots=True)
class Dated:
    """A path that holds the date.

    Attributes:
        parts: what stands before, between and after the dates.
    """

    parts: tuple[str, ...]

    def at(self, day: str) -> str:
        """The path of a day."""
        return day.join(self.parts)

    @property
    def template(self) -> str:
        """The path of any day from the root on, as messages and ledgers tell it."""
        return "{date}".join(self._absolute())

    def day_of(self, path: Where) -> str | None:
        """The day whose path it is; None where it is that of none."""
        first, *rest = map(re.escape, self._absolute())
        match = re.fullmatch(first + _DAY + r"\1".join(rest), str(path.absolute()))
        return match[1] if match else None

    def _absolute(self) -> list[str]:
        return str(located(_MARK.join(self.parts)).absolute()).split(_MARK)


def today() -> str:
    """The day, in UTC and ISO format."""
    return datetime.now(UTC).date().isoformat()


def filled(path: str, name: str, anchored: Callable[[str], str]) -> tuple[str, Dated | None]:
    """A path as it is today, and how it is on other days, if that differs.

    Args:
        path: as the job file has it.
        name: the job's name.
        anchored: makes it a path that counts from another folder.

    Raises:
        JobError: a placeholder is unknown, or a brace stands alone.
    """
    parts = tuple(anchored("".join(_parsed(path, name))).split(_MARK))
    return today().join(parts), Dated(parts) if len(parts) > 1 else None


def _parsed(path: str, name: str) -> list[str]:
    found: list[str] = []
    known = {"date": _MARK, "name": name}
    try:
        for literal, field, form, conversion in Formatter().parse(path):
            found.append(literal)
            if field is None:
                continue
            if field not in known or form or conversion:
                said = f"{field}{'!' + conversion if conversion else ''}{':' + form if form else ''}"
                raise JobError(
                    f"output.path: {{{said}}} is unknown; {{date}} is the day on which a run began (UTC, as "
                    f"{today()}) and {{name}} the job's name; {_LITERAL}"
                )
            found.append(known[field])
    except ValueError as error:
        raise JobError(f"output.path: {path!r} has a brace that stands alone ({error}); {_LITERAL}") from None
    return found
