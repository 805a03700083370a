"""Reads ages such as ``30d``, as a job and the command line say them."""

import re

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
