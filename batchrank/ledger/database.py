"""The ledger's file: how it is opened, and what its errors mean to the user."""

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchrank.errors import LedgerError

_SCHEMA = 2
"""The schema of this version; what older ones lacked is added, as ``_ADDED`` says."""
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, scores BLOB NOT NULL, tokens INTEGER, predicted INTEGER NOT NULL, request_id TEXT NOT NULL,
    run INTEGER NOT NULL, used INTEGER NOT NULL, digest INTEGER NOT NULL, searches INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rejections (
    key BLOB PRIMARY KEY, status INTEGER, code TEXT NOT NULL, message TEXT NOT NULL, request_id TEXT NOT NULL,
    run INTEGER NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempts (
    key BLOB NOT NULL, kind TEXT NOT NULL, status INTEGER, code TEXT NOT NULL, message TEXT NOT NULL,
    request_id TEXT NOT NULL, predicted INTEGER NOT NULL, run INTEGER NOT NULL, documents INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS sent (
    key BLOB PRIMARY KEY, predicted INTEGER NOT NULL, run INTEGER NOT NULL, documents INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""

_ADDED = {
    1: (
        "ALTER TABLE answers ADD COLUMN searches INTEGER",
        "ALTER TABLE attempts ADD COLUMN documents INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE sent ADD COLUMN documents INTEGER NOT NULL DEFAULT 0",
    ),
}
"""What takes each older schema to the next one."""


def connect(path: Path | None) -> sqlite3.Connection:
    """Open or create a ledger and lock it; None keeps it in memory."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _claim(path)
    db = sqlite3.connect(
        ":memory:" if path is None else path, isolation_level=None, check_same_thread=False, timeout=0.2
    )
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA:
            raise sqlite3.DatabaseError(f"its schema is version {version}, this batchrank reads {_SCHEMA}")
        db.execute("BEGIN IMMEDIATE")
        for older in range(version or _SCHEMA, _SCHEMA):
            for statement in _ADDED[older]:
                db.execute(statement)
        for statement in _TABLES.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {_SCHEMA}")
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


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


@contextmanager
def translated(path: Path | None, what: str) -> Iterator[None]:
    """Raise a ``LedgerError`` that says what to do where SQLite or the system refuses."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(_explain(path, what, error)) from error


def _explain(path: Path | None, what: str, error: Exception) -> str:
    text = str(error.strerror if isinstance(error, OSError) else error)
    if "locked" in text or "busy" in text:
        return f"{path}: another batchrank process is using this ledger; wait for it to end, or stop it"
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return (
            f"{path}: the ledger is damaged ({text}), so nothing more is sent. Restore it from a backup, or recover "
            f"what can be read with: sqlite3 {path} .recover | sqlite3 recovered.sqlite"
        )
    if "full" in text or "I/O error" in text:
        return f"{path}: the ledger can't be {what}, the disk may be full ({text}); make room and run the job again"
    return f"{path}: the ledger can't be {what}: {text}"
