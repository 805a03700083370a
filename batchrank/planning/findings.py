"""Looks at a job's input for ``batchrank check``, and holds what that finds."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from batchrank.data import Query
from batchrank.errors import InputError, QueryError
from batchrank.job.config import Job
from batchrank.outcomes import Failure
from batchrank.pipeline.assemble import sharder
from batchrank.pipeline.prepare import Preparer
from batchrank.read.layout import notes
from batchrank.read.reader import read

_FAILED_QUERIES = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        name: what was looked at.
        state: ``ok``, ``note`` (the job would run) or ``fault``.
        text: what was found, and what to do about it.
        exit_code: what a run would end with because of it.
    """

    name: str
    state: Literal["ok", "note", "fault"]
    text: str
    exit_code: int = 0


@dataclass(slots=True)
class _Seen:
    """What was read: sums over the queries that can be ranked, and what can't be, with an example of each cause."""

    queries: int = 0
    documents: int = 0
    chunks: int = 0
    blank: int = 0
    truncated: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Failure] = field(default_factory=dict)

    def take(self, item: Query | Failure, preparer: Preparer) -> None:
        failure = item if isinstance(item, Failure) else self._add(item, preparer)
        if failure is not None:
            self.causes[failure.cause] += 1
            self.examples.setdefault(failure.cause, failure)

    def _add(self, query: Query, preparer: Preparer) -> Failure | None:
        try:
            ready = preparer.prepare(query)
        except QueryError as error:
            return Failure(query.place, query.id, error.cause, str(error))
        self.queries += 1
        self.documents += len(query)
        self.chunks += len(ready.shards.chunks)
        self.truncated += ready.truncated
        self.blank += len(query) - len(query.sendable)
        return None


def check_input(job: Job, limit: int | None) -> Iterator[Finding]:
    """Read the input and prepare it, as a run would; ``limit`` records, None for all.

    Raises:
        InputError: the input as a whole is unusable.
        JobError: the job's limits or its prompt leave nothing that can be sent.
    """
    if job.input is None:
        raise InputError("input.path: required")
    if "-" in job.input.path:
        yield Finding("input", "note", "standard input can be read only once, so it was not looked at")
        return
    for note in notes(job.input):
        yield Finding("input", "note", note)
    preparer = Preparer(job, sharder(job))
    seen = _Seen()
    whole = True
    for item in read(job.input):
        if limit is not None and seen.queries + seen.causes.total() >= limit:
            whole = False
            break
        seen.take(item, preparer)
    scope = "all of it was read" if whole else f"the first {limit:,} records were read; --all reads the rest"
    extra = f", {seen.blank:,} blank documents will not be sent" if seen.blank else ""
    extra += (
        f", {seen.truncated:,} texts are longer than the API reads and will be cut" if seen.truncated else ""
    )
    text = f"{seen.queries:,} queries, {seen.documents:,} documents, {seen.chunks:,} requests{extra}; {scope}"
    none = InputError.exit_code if whole else _FAILED_QUERIES
    yield Finding("input", "ok" if seen.queries else "fault", text, 0 if seen.queries else none)
    for cause, count in seen.causes.most_common():
        first = seen.examples[cause]
        text = f"{count:,} would fail: {cause}; the first, {first.place}: {first.message}"
        yield Finding("input", "fault", text, _FAILED_QUERIES)
