"""Defines what a job says of answers that are known, and reads ages such as ``30d``."""

import re
from typing import Annotated

from pydantic import Field, field_validator

from batchrank.job.sections import Section

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
