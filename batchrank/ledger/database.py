"""Opens the ledger's file, and tells the user what SQLite's errors mean."""

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import orjson

from batchrank.errors import LedgerError
from batchrank.ledger.checks import check, lost_commits
from batchrank.ledger.schema import SCHEMA, bring_up_to_date

_APPLICATION = 0x62726B31
"""What tells a ledger from other SQLite files, in their header's field for it; ledgers before schema 3 had none."""
_OLD_TABLES = {"answers", "rejections", "attempts", "sent", "state"}


def connect(path: Path | None, *, salvage: bool = False) -> sqlite3.Connection:
    """Open or create a ledger, lock it, and see that it is whole; None keeps it in memory.

    Args:
        path: the file.
        salvage: take what can be read of a damaged ``-wal``.

    Raises:
        sqlite3.Error: it is in use, damaged, of a newer version, or no ledger.
        OSError: the system refuses.
        LedgerError: it is lost, or another program's.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _require_ours(path, salvage=salvage)
        _claim(path)
    db = sqlite3.connect(
        ":memory:" if path is None else path, isolation_level=None, check_same_thread=False, timeout=0.2
    )
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        if (
            _identify(db, path) == 0
        ):  # before the journal's mode, so that it is in the file itself from the start
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA journal_size_limit = 0")
        db.execute("PRAGMA synchronous = FULL")
        bring_up_to_date(db)
        if path is not None:
            check(db)
    except BaseException:
        db.close()
        raise
    return db


def look(path: Path | None, *, salvage: bool = False) -> sqlite3.Connection:
    """Open a ledger only to look at it: nothing is written, and no lock keeps a run from beginning, once this returns.

    1. It was closed as a whole: the file itself, with nothing locked. Whoever looks has to see that it stays as it is,
       as ``facts`` tells it.
    2. It has a log, because a run was cut off, or it is of an older version: a private copy, brought up to date. Unless
       there is a log to be read, SQLite is told that nothing changes: else it would leave an empty one behind.

    Raises:
        sqlite3.Error: as ``connect``.
        OSError: as ``connect``.
        LedgerError: as ``connect``.
    """
    assert path is not None
    _require_ours(path, salvage=salvage)
    logged = path.with_name(path.name + "-wal").exists()
    address = f"{path.absolute().as_uri()}?mode=ro{'' if logged else '&immutable=1'}"
    there = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=0.2)
    if not logged and there.execute("PRAGMA user_version").fetchone()[0] == SCHEMA:
        return there
    own = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a file that SQLite removes
    try:
        with closing(there) as db:
            db.execute("BEGIN")
            db.execute("SELECT 1 FROM sqlite_master").fetchone()  # a backup would wait for a lock for ever
            db.backup(own)
        bring_up_to_date(own)
    except BaseException:
        own.close()
        raise
    return own


def facts(path: Path) -> tuple[object, ...]:
    """What changes when a process begins to use a ledger, or did meanwhile."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, path.with_name(path.name + "-wal").exists()


def _require_ours(path: Path, *, salvage: bool) -> None:
    """Refuse a file that opening would harm: another program's, or one whose log holds what would be lost.

    A file that is there is looked at by SQLite, with nothing locked or written, and never opened here: closing it would
    end this process's locks on it, those of another Ledger on the same file included.
    """
    log = path.with_name(path.name + "-wal")
    size = path.stat().st_size if path.is_file() else 0
    if path.is_symlink():
        return  # refused when it is claimed
    if size == 0:
        if not salvage and log.is_file() and log.stat().st_size > 0:
            raise LedgerError(
                f"{path}: the ledger is gone, or empty, and {log.name} beside it, which held its latest answers, is of "
                "no use without it: put both back. To start without them all the same, paying again for what they "
                "held, run with --fresh"
            )
        return
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        _identify(db, path)
    if not salvage and lost_commits(log):
        _require_unused(path)
        raise LedgerError(
            f"{log}: the ledger's latest commits are damaged, so nothing is sent. Restore {path.name} and {log.name} "
            "from a backup. To go on with what can be read, paying again for what can't, run with --fresh"
        )


def _identify(db: sqlite3.Connection, path: Path | None) -> int:
    """The file's application id: that of a ledger, or 0 where it is an old one or empty."""
    application: int = db.execute("PRAGMA application_id").fetchone()[0]
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if application not in (0, _APPLICATION) or (application == 0 and tables and not tables >= _OLD_TABLES):
        raise LedgerError(
            f"{path}: this SQLite file is not a ledger of batchrank; it is left alone. Name another file as ledger:, "
            "or restore the ledger if this is a damaged one"
        )
    return application


def _require_unused(path: Path) -> None:
    """A log that another process is writing to is not damaged."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.2)) as db:
        db.execute("SELECT 1 FROM sqlite_master").fetchone()


def copy(db: sqlite3.Connection, to: Path) -> None:
    """Write a consistent copy of a ledger to a file that is not there yet, durably.

    Raises:
        FileExistsError: there is such a file.
        sqlite3.Error: it can't be written.
    """
    fd = os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with closing(sqlite3.connect(to)) as target:
            db.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        os.fsync(fd)
    finally:
        os.close(fd)


def _claim(path: Path) -> None:
    """Make the file the user's alone: it holds what was asked and answered.

    A file that is there already is never opened here: closing it would end this process's locks on it, those of
    another Ledger on the same file included.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except FileExistsError:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise OSError(errno.ELOOP, "it is a symbolic link; name the file itself as ledger:") from None
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file") from None
        path.chmod(0o600)


_DAMAGE = (
    "malformed",
    "not a database",
    "corrupt",
    "no such table",
    "no such column",
    "no such index",
    "duplicate column",
    "decode",
)
"""Words of SQLite and of ours that tell a damaged file."""


@contextmanager
def translated(path: Path | None, what: str) -> Iterator[None]:
    """Raise a ``LedgerError`` that says what to do where SQLite or the system refuses."""
    try:
        yield
    except LedgerError:
        raise
    except (sqlite3.Error, OSError, UnicodeDecodeError, orjson.JSONDecodeError, OverflowError) as error:
        raise LedgerError(_explain(path, what, error)) from error


def in_use(path: Path | None) -> str:
    """What to tell of a ledger that another process uses."""
    return f"{path}: another batchrank process is using this ledger; wait for it to end, or stop it"


def _explain(path: Path | None, what: str, error: Exception) -> str:
    text = str(error.strerror if isinstance(error, OSError) and error.strerror else error)
    if "locked" in text or "busy" in text:
        return in_use(path)
    if any(word in text for word in _DAMAGE) or isinstance(error, ValueError):
        return (
            f"{path}: the ledger is damaged ({text}), so nothing more is sent. Restore it from a backup, or recover "
            f"what can be read with: sqlite3 {path} .recover | sqlite3 recovered.sqlite"
        )
    if "full" in text or "I/O error" in text:
        return f"{path}: the ledger can't be {what}, the disk may be full ({text}); make room and run the job again"
    return (
        f"{path}: the ledger can't be {what}: {text}. See that the file and its folder can be written; if they can, "
        "restore the ledger from a backup"
    )
