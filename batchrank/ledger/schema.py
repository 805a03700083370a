"""Makes the ledger's tables, and brings those of older versions up to date without losing an answer."""

import sqlite3
import zlib
from collections.abc import Callable
from typing import Any

from batchrank.ledger.rows import ANSWER, DAY, answer_checksum, checksum

SCHEMA = 5
"""The schema of this version; what older ones lacked is added, as ``_ADDED`` says."""
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, run INTEGER NOT NULL, used INTEGER NOT NULL, known INTEGER NOT NULL,
    day INTEGER NOT NULL DEFAULT 0, at INTEGER NOT NULL DEFAULT 0, tokens INTEGER, predicted INTEGER NOT NULL,
    searches INTEGER, question INTEGER, purpose INTEGER, digest INTEGER NOT NULL, request_id TEXT NOT NULL,
    scores BLOB NOT NULL, contents BLOB, server INTEGER
);
CREATE INDEX IF NOT EXISTS questions ON answers (question);
CREATE TABLE IF NOT EXISTS rejections (
    key BLOB PRIMARY KEY, status INTEGER, code TEXT NOT NULL, message TEXT NOT NULL, request_id TEXT NOT NULL,
    run INTEGER NOT NULL, used INTEGER NOT NULL, digest INTEGER NOT NULL DEFAULT 0, question INTEGER,
    server INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS refused ON rejections (question);
CREATE TABLE IF NOT EXISTS attempts (
    key BLOB NOT NULL, kind TEXT NOT NULL, status INTEGER, code TEXT NOT NULL, message TEXT NOT NULL,
    request_id TEXT NOT NULL, predicted INTEGER NOT NULL, run INTEGER NOT NULL, documents INTEGER NOT NULL DEFAULT 0,
    day INTEGER NOT NULL DEFAULT 0, digest INTEGER NOT NULL DEFAULT 0, server INTEGER
);
CREATE TABLE IF NOT EXISTS sent (
    key BLOB PRIMARY KEY, predicted INTEGER NOT NULL, run INTEGER NOT NULL, documents INTEGER NOT NULL DEFAULT 0,
    day INTEGER NOT NULL DEFAULT 0, digest INTEGER NOT NULL DEFAULT 0, server INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value BLOB NOT NULL, digest INTEGER NOT NULL DEFAULT 0)
WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS paid (
    run INTEGER NOT NULL, day INTEGER NOT NULL, answers INTEGER NOT NULL, tokens INTEGER NOT NULL,
    predicted INTEGER NOT NULL, documents INTEGER NOT NULL, searches INTEGER NOT NULL, expected INTEGER NOT NULL,
    unnamed INTEGER NOT NULL, ratio REAL, hidden REAL, search_ratio REAL, search_hidden REAL, digest INTEGER NOT NULL,
    PRIMARY KEY (run, day)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS servers (
    id INTEGER PRIMARY KEY, url TEXT NOT NULL, key_name TEXT NOT NULL, digest INTEGER NOT NULL
);
"""
"""Answers have row numbers: without, SQLite would put all but a few hundred bytes of each on pages of its own, and a
score would take three times the room. Their question is NULL where they are of a ledger before schema 4, 0 where
nothing was noted; ``known`` is the epoch in which it became known, which the ledger counts its processes by. A server
is NULL before schema 5, and where a rejection was foreseen and nobody asked."""
_THIRD = {
    "rejections": "key, status, code, message, request_id, run",
    "attempts": "key, kind, status, code, message, request_id, predicted, run, documents, day",
    "sent": "key, predicted, run, documents, day",
    "state": "name, value",
}
"""What digests covered from schema 3 on."""
_ASKED = ("answers", "rejections", "attempts", "sent")
"""The tables whose rows tell a server from schema 5 on."""


def _know_questions(db: sqlite3.Connection) -> None:
    """Rewrite answers and rejections with room for their questions.

    Raises:
        sqlite3.DatabaseError: a row is damaged; a new digest would hide that.
    """
    db.execute("ALTER TABLE answers RENAME TO older")
    for statement in _TABLES.split(";")[:2]:
        db.execute(statement)
    older = "key, scores, tokens, predicted, request_id, run, day, searches, digest, used"
    marks = ",".join("?" * (ANSWER.count(",") + 3))
    db.executemany(
        f"INSERT INTO answers ({ANSWER}, digest, used) VALUES ({marks})",  # noqa: S608 our own words
        map(_with_question, db.execute(f"SELECT {older} FROM older")),  # noqa: S608 our own words
    )
    db.execute("DROP TABLE older")
    for *row, digest in db.execute(f"SELECT {_THIRD['rejections']}, digest FROM rejections"):  # noqa: S608 our own words
        if checksum(*row) != digest:
            raise sqlite3.DatabaseError("a rejection is corrupt: it doesn't match its checksum")
    db.execute("ALTER TABLE rejections ADD COLUMN question INTEGER")
    db.execute(f"UPDATE rejections SET digest = checksum({_THIRD['rejections']}, question)")  # noqa: S608 our own words


def _know_servers(db: sqlite3.Connection) -> None:
    """Make room for servers. Digests of rows without one stay as they are, so no row is written, however many."""
    for table in _ASKED:
        if not any(name == "server" for _, name, *_ in db.execute(f"PRAGMA table_info({table})")):
            db.execute(f"ALTER TABLE {table} ADD COLUMN server INTEGER")


def _with_question(row: tuple[Any, ...]) -> tuple[Any, ...]:
    *known, digest, used = row
    if third_answer_checksum(*known) != digest:
        raise sqlite3.DatabaseError("an answer is corrupt: it doesn't match its checksum")
    key, scores, tokens, predicted, request_id, run, day, searches = known
    what = (None, None, request_id, scores, None, None)
    facts = (key, run, run, day, day * DAY, tokens, predicted, searches, *what)
    return (*facts, answer_checksum(*facts), used)


def third_answer_checksum(
    key: bytes,
    scores: bytes,
    tokens: int | None,
    predicted: int,
    request_id: str,
    run: int,
    day: int,
    searches: int | None,
) -> int:
    """The digest of an answer before schema 4; where the day was unknown, as before schema 3, it covers less."""
    known = zlib.crc32(f"{-1 if tokens is None else tokens}".encode(), zlib.crc32(scores, zlib.crc32(key)))
    known = known if searches is None else zlib.crc32(f"{searches}".encode(), known)
    return zlib.crc32(f"{predicted} {run} {day} {request_id}".encode(), known) if day else known


_ADDED: dict[int, tuple[str | Callable[[sqlite3.Connection], None], ...]] = {
    1: (
        "ALTER TABLE answers ADD COLUMN searches INTEGER",
        "ALTER TABLE attempts ADD COLUMN documents INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE sent ADD COLUMN documents INTEGER NOT NULL DEFAULT 0",
    ),
    2: (
        "ALTER TABLE answers ADD COLUMN day INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE attempts ADD COLUMN day INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE sent ADD COLUMN day INTEGER NOT NULL DEFAULT 0",
        *(f"ALTER TABLE {table} ADD COLUMN digest INTEGER NOT NULL DEFAULT 0" for table in _THIRD),
        *(f"UPDATE {table} SET digest = checksum({columns})" for table, columns in _THIRD.items()),  # noqa: S608 our own words
    ),
    3: (_know_questions,),
    4: (_know_servers,),
}
"""What takes each older schema to the next one. Day 0 is unknown: such spending counts for a run and in total."""


def bring_up_to_date(db: sqlite3.Connection) -> None:
    """Make the tables, or change those of an older version, in one transaction.

    Raises:
        sqlite3.DatabaseError: they are of a newer version, or damaged.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA:
        raise sqlite3.DatabaseError(
            f"its schema is version {version}, this batchrank reads {SCHEMA}; use the batchrank that wrote it"
        )
    if version == SCHEMA:
        return
    db.create_function("checksum", -1, checksum, deterministic=True)
    db.execute("BEGIN IMMEDIATE")
    for older in range(version or SCHEMA, SCHEMA):
        for step in _ADDED[older]:
            db.execute(step) if isinstance(step, str) else step(db)
    for statement in _TABLES.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {SCHEMA}")
    db.execute("COMMIT")
