"""Sums up what answers cost, and keeps the sums of those that are dropped, so that spending never looks smaller."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from batchrank.ledger.rows import ROWS, checksum
from batchrank.models import SEARCH_DOCUMENTS

DOCUMENTS = "(LENGTH(scores) - 1) / CASE SUBSTR(scores, 1, 1) WHEN x'34' THEN 4 ELSE 8 END"
"""SQL for the number of documents that an answer scored."""
_EXPECTED = f"(({DOCUMENTS} + {SEARCH_DOCUMENTS - 1}) / {SEARCH_DOCUMENTS})"
_SUMS = {
    "answers": "COUNT(*)",
    "tokens": "COALESCE(SUM(tokens), 0)",
    "predicted": "COALESCE(SUM(CASE WHEN tokens IS NULL THEN predicted END), 0)",
    "documents": f"COALESCE(SUM(CASE WHEN tokens IS NULL THEN {DOCUMENTS} END), 0)",
    "searches": "COALESCE(SUM(searches), 0)",
    "expected": f"COALESCE(SUM(CASE WHEN searches IS NULL THEN {_EXPECTED} END), 0)",
    "unnamed": f"COALESCE(SUM(CASE WHEN searches IS NULL THEN {DOCUMENTS} END), 0)",
}
"""What is added up, and its SQL over answers: predicted tokens and documents of those that named no tokens, expected
searches and documents of those that named no searches."""
_WORST = {
    "ratio": "MAX(CAST(tokens AS REAL) / MAX(predicted, 1))",
    "hidden": f"MAX(CAST(tokens - predicted AS REAL) / ({DOCUMENTS}))",
    "search_ratio": f"MAX(CAST(searches AS REAL) / {_EXPECTED})",
    "search_hidden": f"MAX(CAST(searches - {_EXPECTED} AS REAL) / ({DOCUMENTS}))",
}
"""Of what the largest counts: bills as multiples of the prediction, and beyond it by document."""
_OF_ANSWERS = ", ".join(f"{sql} AS {name}" for name, sql in (_SUMS | _WORST).items())
_OF_BOTH = ", ".join((*(f"SUM({name})" for name in _SUMS), *(f"MAX({name})" for name in _WORST)))


def drop(db: sqlite3.Connection, where: str, values: Sequence[Any]) -> int:
    """Drop answers, whose cost is added to what was paid in their run and on their day; how many.

    Args:
        db: the ledger.
        where: SQL that tells which answers.
        values: what its question marks stand for.
    """
    # One look at the table where nothing is dropped, as with nearly every group of new answers.
    sums = f"SELECT run, day, {_OF_ANSWERS} FROM answers WHERE {where} GROUP BY run, day"  # noqa: S608 our own words
    found = db.execute(sums, values).fetchall()
    for row in found:
        _add(db, row)
    return db.execute(f"DELETE FROM answers WHERE {where}", values).rowcount if found else 0  # noqa: S608 our own words


def _add(db: sqlite3.Connection, new: Sequence[Any]) -> None:
    columns = ROWS["paid"]
    known = db.execute(f"SELECT {columns}, digest FROM paid WHERE run = ? AND day = ?", new[:2]).fetchone()  # noqa: S608 our own words
    if known is not None:
        *old, digest = known
        if checksum(*old) != digest:
            raise sqlite3.DatabaseError("what was paid is corrupt: it doesn't match its checksum")
        last = 2 + len(_SUMS)
        sums = [one + other for one, other in zip(old[2:last], new[2:last], strict=True)]
        worst = [_larger(one, other) for one, other in zip(old[last:], new[last:], strict=True)]
        new = (*old[:2], *sums, *worst)
    marks = ",".join("?" * (len(new) + 1))
    db.execute(f"INSERT OR REPLACE INTO paid ({columns}, digest) VALUES ({marks})", (*new, checksum(*new)))  # noqa: S608 our own words


def _larger(one: float | None, other: float | None) -> float | None:
    return max((value for value in (one, other) if value is not None), default=None)


def totals(db: sqlite3.Connection, where: str, values: Sequence[Any]) -> tuple[Any, ...]:
    """What answers cost, the dropped ones included: what ``_SUMS`` and ``_WORST`` name, in this order.

    Args:
        db: the ledger.
        where: SQL that tells which runs or days.
        values: what its question marks stand for.
    """
    answers = f"SELECT {_OF_ANSWERS} FROM answers WHERE {where}"  # noqa: S608 our own words
    dropped = f"SELECT {', '.join((*_SUMS, *_WORST))} FROM paid WHERE {where}"  # noqa: S608 our own words
    sums = f"SELECT {_OF_BOTH} FROM ({answers} UNION ALL {dropped})"  # noqa: S608 our own words
    found: tuple[Any, ...] = db.execute(sums, (*values, *values)).fetchone()
    return found
