"""``--only-failed``: which queries may be asked about, from the dead letters of the run before."""

from pathlib import Path
from typing import Self

import orjson

from batchrank.errors import JobError
from batchrank.job import Job
from batchrank.records import Query


class OnlyFailed:
    """Tells the queries that failed in the run before from those whose answers the ledger must have.

    Args:
        ids: ids of queries that failed.
        places: places of records that could not be read, in case they were mended.
    """

    def __init__(self, ids: frozenset[str], places: frozenset[str]) -> None:
        self._ids = ids
        self._places = places

    @classmethod
    def of(cls, job: Job) -> Self:
        """Read the dead letters of a job.

        Raises:
            JobError: there are none, or they can't be read.
        """
        path = Path(job.output.path if job.output else "") / "failed.jsonl"
        try:
            letters = [orjson.loads(line) for line in path.read_bytes().splitlines() if line]
        except FileNotFoundError:
            raise JobError(f"--only-failed: {path} does not exist: run the job without it first") from None
        except (OSError, orjson.JSONDecodeError) as error:
            raise JobError(f"--only-failed: {path} can't be read: {error}") from None
        ids = frozenset(letter["query_id"] for letter in letters if letter["query_id"] is not None)
        return cls(
            ids, frozenset(f"{letter['file']}, {letter['unit']} {letter['number']}" for letter in letters)
        )

    def __call__(self, query: Query) -> bool:
        """Whether requests may be sent for this query."""
        return query.id in self._ids or str(query.place) in self._places
