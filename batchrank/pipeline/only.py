"""``--only-failed``: which queries may be asked about, from the dead letters of the run before."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import orjson

from batchrank.data import Query
from batchrank.errors import JobError
from batchrank.job.config import Job
from batchrank.outcomes import Failure
from batchrank.pipeline.output import folder_of
from batchrank.write.switch import LETTERS, SUMMARY, newest

_UNITS = ("line", "row", "query")


class OnlyFailed:
    """Tells the queries that failed in the run before from those whose answers the ledger must have.

    Args:
        ids: ids of queries that failed.
        places: places of records that could not be read, in case they were mended.
        ranked: how many queries the run before ranked.
    """

    def __init__(self, ids: frozenset[str], places: frozenset[str], ranked: int) -> None:
        self._ids = ids
        self._places = places
        self._ranked = ranked

    @classmethod
    def of(cls, job: Job) -> Self:
        """Read the dead letters of a job.

        Raises:
            JobError: there are none, or they can't be read.
        """
        path = newest(folder_of(job) or Path(), LETTERS)
        try:
            letters = [orjson.loads(line) for line in path.read_bytes().splitlines() if line]
        except FileNotFoundError:
            raise JobError(f"--only-failed: {path} does not exist: run the job without it first") from None
        except (OSError, orjson.JSONDecodeError) as error:
            raise JobError(f"--only-failed: {path} can't be read: {error}") from None
        ids = frozenset(letter["query_id"] for letter in letters if letter["query_id"] is not None)
        return cls(ids, frozenset(_place(letter) for letter in letters), _ranked(job))

    def __call__(self, query: Query) -> bool:
        """Whether requests may be sent for this query."""
        return query.id in self._ids or str(query.place) in self._places

    def fewer(self, ranked: int) -> JobError | None:
        """What to stop with where fewer queries are ranked than before; None where none would be missing."""
        if ranked >= self._ranked:
            return None
        return JobError(
            f"--only-failed: {ranked:,} queries are ranked now and {self._ranked:,} were before, because the input has "
            "changed since; the others would be missing from the output, which stays as it is: run the job without "
            "--only-failed"
        )


def _ranked(job: Job) -> int:
    """How many queries the last complete run ranked; 0 where that can't be told."""
    try:
        summary = orjson.loads(newest(folder_of(job) or Path(), SUMMARY).read_bytes())
        return int(summary["totals"]["queries"]) if summary["complete"] else 0
    except (OSError, ValueError, TypeError, KeyError):
        return 0


def _place(letter: dict[str, Any]) -> str:
    """Where a dead letter's query stands, as ``Place`` tells it: the unit is the key of its number."""
    return next((f"{letter['file']}, {unit} {letter[unit]}" for unit in _UNITS if unit in letter), "")


def refuse_unasked(results: Iterable[object]) -> None:
    """Stop a run that would lose a ranking: a query that did not fail before, and that the ledger can't answer.

    Raises:
        JobError: one of the results is the failure of such a query; the earlier output stays.
    """
    failure = next((r for r in results if isinstance(r, Failure) and r.cause == "not-asked"), None)
    if failure is not None:
        raise JobError(
            f"--only-failed: query {failure.query_id!r} ({failure.place}) is not in failed.jsonl, and the ledger lacks "
            "answers for it, because the input or the job has changed since; it would be missing from the output, "
            "which stays as it is: run the job without --only-failed"
        )
