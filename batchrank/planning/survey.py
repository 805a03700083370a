"""Reads and prepares a job's input as a run does, and counts what comes: the one look that init, check and plan share.

Because each query goes through the same reader, refusals and sharding as in a run, what is counted here as failed is
what a run would write to its dead letters before a single request.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from batchrank.data import Query
from batchrank.errors import BatchrankError, InputError, JobError, TooManyFailuresError
from batchrank.job.config import Job
from batchrank.job.sections import Input
from batchrank.outcomes import Failure
from batchrank.pipeline.parts import PartCutter, part_documents
from batchrank.pipeline.preconditions import Preconditions
from batchrank.pipeline.prepare import Prepared
from batchrank.pipeline.stages import Reader
from batchrank.pipeline.summary import DOCUMENT_CAUSES, Outcome
from batchrank.read.base import Gauge
from batchrank.read.reader import read


@dataclass(slots=True)
class Cause:
    """One cause for which queries, records or documents are left out: the first of them, and how many there are."""

    first: Failure
    count: int = 0

    def __str__(self) -> str:
        return f"{self.first.cause}; the first, {self.first.place}: {self.first.message}"


@dataclass(slots=True, kw_only=True)
class Survey:
    """What was read; commands that count more override ``add``.

    Attributes:
        queries: queries that can be ranked.
        documents: their candidates.
        blank: candidates without a text, which are never sent.
        chunks: requests of one pass.
        truncated: texts that are cut before they are sent, or by the API, as far as that can be told exactly.
        failed: queries and records that can't be ranked, by cause.
        refused: documents that can't be sent, or are missing, though their query can be ranked, by cause.
        whole: whether all of the input was read, and ``share`` the part that was, 0 when its size is unknown.
    """

    queries: int = 0
    documents: int = 0
    blank: int = 0
    chunks: int = 0
    truncated: int = 0
    failed: dict[str, Cause] = field(default_factory=dict)
    refused: dict[str, Cause] = field(default_factory=dict)
    whole: bool = True
    share: float = 0.0

    @property
    def lost(self) -> int:
        """How many queries and records can't be ranked."""
        return sum(cause.count for cause in self.failed.values())

    def add(self, query: Query, ready: Prepared) -> None:
        """Count one query that can be ranked, as read and as prepared."""
        self.queries += 1
        self.documents += len(query)
        self.blank += len(query) - len(query.sendable)
        self.chunks += len(ready.shards.chunks)
        self.truncated += ready.truncated
        for failure in ready.faults:
            self.refused.setdefault(failure.cause, Cause(failure)).count += 1

    def fail(self, failure: Failure) -> None:
        """Count one query or record that can't be ranked, or one document that is missing from a ranking."""
        causes = self.refused if failure.cause in DOCUMENT_CAUSES else self.failed
        causes.setdefault(failure.cause, Cause(failure)).count += 1

    def stop(self, job: Job) -> BatchrankError | None:
        """Why a run would stop over what was read; None where it would come to its end."""
        most = job.failures.max_queries
        if most is not None and self.lost > most:
            return TooManyFailuresError(
                f"failures.max_queries: {self.lost:,} queries would fail, more than {most:,}"
            )
        if self.whole and not self.queries:
            return InputError("input.path: no query in it can be ranked")
        return None


_Found = TypeVar("_Found", bound=Survey)
Watch: TypeAlias = Callable[[Gauge], AbstractContextManager[None]]
"""Shows how far reading has come while a block runs."""


def unwatched(gauge: Gauge) -> AbstractContextManager[None]:
    """Show nothing."""
    return nullcontext()


def survey(
    ground: Preconditions, found: _Found, *, limit: int | None = None, watch: Watch = unwatched
) -> _Found:
    """Read a job's input and prepare each query, sending nothing.

    Args:
        ground: what prepares the job's queries.
        found: counts what comes.
        limit: records to look at, None for all.
        watch: shows how far reading has come.

    Raises:
        JobError: the job has no input, or what it sets leaves nothing that can be sent.
        InputError: the input as a whole is unusable.
    """
    if ground.job.input is None:
        raise JobError("input.path: required")
    gauge = Gauge()
    reader = Reader(iter(()), ground.preparer, PartCutter(part_documents(ground.job.output)))
    with watch(gauge):
        _read(ground.job.input, reader, found, limit, gauge)
    return found


def _read(source: Input, reader: Reader, found: Survey, limit: int | None, gauge: Gauge) -> None:
    # Putting all queries in order takes as long as reading them, and tells nothing unless the first so many are wanted.
    as_it_comes = limit is not None or source.limit is None
    for number, item in enumerate(read(source, gauge, as_it_comes=as_it_comes)):
        if number == limit:
            found.whole = False
            break
        prepared = reader.prepare(item, number)
        if not isinstance(prepared, Outcome) and isinstance(item, Query):
            found.add(item, prepared)
        elif isinstance(prepared, Outcome) and isinstance(prepared.result, Failure):
            found.fail(prepared.result)
        found.share = gauge.share
