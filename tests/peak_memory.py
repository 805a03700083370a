"""How much memory a process took at most since a moment, on Linux: its peak is reset then, so none hides it."""

import sys
from pathlib import Path

import pytest

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
_SELF = Path("/proc/self")


class Peak:
    """The peak since it was made; not ``ru_maxrss``, which remembers earlier ones, even those of its parent."""

    def __init__(self) -> None:
        (_SELF / "clear_refs").write_text("5")
        self._before = _resident()

    def grown(self) -> int:
        """MiB that resident memory rose to at most, above what it was at the beginning."""
        return (_resident() - self._before) // 1024


def _resident() -> int:
    return int((_SELF / "status").read_text().split("VmHWM:")[1].split()[0])
