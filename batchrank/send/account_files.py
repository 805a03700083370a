"""Keeps what jobs that share an account meet at: a socket, a lock for who listens there, and what was sent lately.

All of it is in a folder that only this user can enter. It is below ``/tmp``, and not where ``XDG_RUNTIME_DIR`` or
``TMPDIR`` point, because cron has neither: jobs that don't meet would each send the whole quota.
"""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO

import orjson

from batchrank.errors import JobError

_SHARED = Path("/tmp")  # noqa: S108 the folder in it is checked
_KEPT = 65.0
"""Seconds after which a file of departures is begun anew, when the other one holds the last minute, and more."""
_MINUTE = 60.1
_HELD_UP = 1.0
"""Seconds that a request may leave after it was admitted; it is taken to have left so much later."""

Departure = tuple[float, int, str]
"""Seconds ago, tokens, and the name of the key."""


def user_folder() -> Path:
    """The folder of this user, which is made where there is none.

    Raises:
        JobError: somebody else made it, or may enter it.
    """
    base = _SHARED if _SHARED.is_dir() else Path(tempfile.gettempdir())
    folder = base / f"batchrank-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise JobError(
            f"rate.account: {folder} must be a folder that only you can enter, as jobs tell each other there what they "
            "sent; have it removed, or make it one: chmod 700"
        )
    return folder


class AccountFiles:
    """Where the jobs of one account meet.

    Args:
        account: the account's name; a hash of it names the files.
        folder: where they are, by default the user's own.
    """

    def __init__(self, account: str, folder: Path | None = None) -> None:
        name = blake2b(account.encode(), digest_size=8).hexdigest()
        base = (folder or user_folder()) / name
        self.socket = base.with_suffix(".sock")
        self._lock = base.with_suffix(".lock")
        self._logs = base.with_suffix(".0.log"), base.with_suffix(".1.log")

    def lock(self) -> IO[bytes] | None:
        """Become the one who listens, for as long as the file that is returned is open; None where somebody is.

        What a process left that was killed while it listened is removed.
        """
        file = self._lock.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._lock.exists() and os.path.samestat(os.fstat(file.fileno()), self._lock.stat()):
                self.socket.unlink(missing_ok=True)
                return file
        except OSError:
            pass
        file.close()
        return None

    def departures(self, now: float) -> "Departures":
        """What was sent lately, for who has the lock."""
        return Departures(self._logs, now, [self._lock])


class Departures:
    """What the jobs of an account have sent in the last minute, in two files that are written in turns.

    A line is written before a request is admitted: whatever is killed, the next process knows of it. Others follow when
    it has left, and when it is billed.
    """

    def __init__(self, logs: tuple[Path, Path], now: float, used: Iterable[Path]) -> None:
        self._used = *used, *logs
        found = [[*_lines(path, now)] for path in logs]
        self.before = [*_summed([line for lines in found for line in lines], now)]
        latest = [max((at for at, _, _, _ in lines), default=0.0) for lines in found]
        self._paths = (logs[0], logs[1]) if latest[0] > latest[1] else (logs[1], logs[0])
        self._file = self._paths[0].open("ab", buffering=0)
        self._begun = now

    def note(self, at: float, tokens: int, key: str, *, requests: int = 1) -> None:
        """Note that so many requests, and tokens, count from a time; negative ones count there no longer."""
        if at - self._begun > _KEPT:
            self._file.close()
            self._paths = self._paths[1], self._paths[0]
            self._file = self._paths[0].open("wb", buffering=0)
            self._begun = at
            for path in self._used:  # what looks unused is removed from such folders some day
                with suppress(OSError):
                    os.utime(path)
        self._file.write(orjson.dumps([at, requests, tokens, key]) + b"\n")

    def close(self) -> None:
        """Write nothing more."""
        self._file.close()


def _lines(path: Path, now: float) -> Iterator[tuple[float, int, int, str]]:
    """Those of the last minute; one that was cut short, or is of a time to come, tells nothing."""
    data = path.read_bytes() if path.exists() else b""
    for line in data.splitlines():
        with suppress(orjson.JSONDecodeError, ValueError, TypeError):
            at, requests, tokens, key = orjson.loads(line)
            if now - _MINUTE - _HELD_UP <= at <= now:
                yield float(at), int(requests), int(tokens), str(key)


def _summed(lines: Iterable[tuple[float, int, int, str]], now: float) -> Iterator[Departure]:
    """What was admitted at each time, with what bills have changed of it since."""
    found: dict[tuple[float, str], list[int]] = {}
    for at, requests, tokens, key in lines:
        both = found.setdefault((at, key), [0, 0])
        both[0] += requests
        both[1] += tokens
    for (at, key), (requests, tokens) in found.items():
        ago = max(0.0, now - at - _HELD_UP)
        for number in range(requests):
            yield ago, 0 if number else max(0, tokens), key
