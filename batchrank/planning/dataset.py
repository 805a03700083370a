"""Looks at the first records of a dataset, and says what was found: how many, how long, and what is taken for what."""

from dataclasses import dataclass, field
from typing import Any

from batchrank.data import Query
from batchrank.errors import InputError, UnsortedError
from batchrank.job.config import Job
from batchrank.job.sections import Input
from batchrank.pipeline.preconditions import Preconditions
from batchrank.pipeline.prepare import Prepared
from batchrank.planning.survey import Survey, survey
from batchrank.read.base import Source
from batchrank.read.layout import Joined, find, layout, notes
from batchrank.read.told import Told, told

SAMPLE = 1000
"""Records that are looked at."""
_MB = 1e6


@dataclass(slots=True, kw_only=True)
class Found(Survey):
    """What a look at a dataset found; counts are of the sample.

    Attributes:
        sources: the files.
        notes: which files there are that aren't read, and why.
        told: what is taken for what.
        most: candidates of the longest list.
        scored: queries whose candidates have first-stage scores.
        characters: of all documents that are texts, ``longest`` of them in one.
        unsorted: why pairs have to be sorted; None where they come grouped.
        fault: why nothing of it can be ranked yet; None where some can.
    """

    sources: list[Source]
    notes: list[str]
    told: Told = field(default_factory=Told)
    most: int = 0
    scored: int = 0
    characters: int = 0
    longest: int = 0
    unsorted: str | None = None
    fault: str | None = None

    def add(self, query: Query, ready: Prepared) -> None:
        """Count one query, and how long its texts are."""
        Survey.add(self, query, ready)
        lengths = [len(text) for text in query.documents if isinstance(text, str)]
        self.most = max(self.most, len(query))
        self.scored += query.first_stage_scores is not None
        self.characters += sum(lengths)
        self.longest = max(self.longest, *lengths, 0)


def look(source: Input, model: Any) -> Found:
    """Read the first records of a dataset, as a job of this model would; what can't be ranked is told, not raised.

    Raises:
        InputError: there is no such file.
        JobError: the model is unknown.
    """
    # Nothing that is told depends on exact counts, and the vocabulary takes its time.
    job = Job(model=model, input=source, tokenizer="bytes")
    found = Found(sources=find(source.path, source.format), notes=notes(source))
    if found.sources and not isinstance(_files(source), Joined):
        found.told = told(found.sources[0], source.columns)
    try:
        survey(Preconditions(job), found, limit=SAMPLE)
    except UnsortedError as error:
        if source.sort:
            raise
        found = look(source.model_copy(update={"sort": True}), model)
        found.unsorted = str(error)
    except InputError as error:
        found.fault = str(error)
    if not found.queries and found.fault is None:
        why = next(iter(found.failed.values()), None)
        found.fault = f"none of its {found.lost:,} records can be ranked" + (f": {why}" if why else "")
    if found.fault and "input.columns" in found.fault and not found.told.unknown:
        found.told.unknown += ["query_id", "query", "doc_id", "text"]
    return found


def _files(source: Input) -> Joined | list[Source] | None:
    try:
        return layout(source)
    except InputError:
        return None  # the survey says what is wrong


def facts(found: Found) -> list[str]:
    """What was found, a line each."""
    files = found.sources
    formats = ", ".join(sorted({source.format for source in files}))
    size = sum(source.bytes for source in files) / _MB
    lines = [f"{len(files):,} {'file' if len(files) == 1 else 'files'} ({formats}), {size:,.1f} MB"]
    lines += found.notes
    lines += _columns(found.told)
    if not found.queries:
        return [*lines, f"nothing of it can be ranked yet: {found.fault}"]
    mean = found.documents / found.queries
    lines.append(f"{_queries(found)}, {mean:,.0f} candidates each on average, {found.most:,} at most")
    length = found.characters / max(1, found.documents)
    lines.append(f"documents of {length:,.0f} characters on average, {found.longest:,} at most")
    if found.scored == found.queries:
        lines.append("candidates have first-stage scores: they are ordered by them, the highest first")
    elif found.scored:
        lines.append(f"candidates of {found.scored:,} queries have first-stage scores, the rest are in order")
    else:
        lines.append("candidates have no first-stage scores: the order given is taken as the first stage's")
    if found.unsorted:
        lines.append("pairs are not grouped by query: input.sort groups them on disk first")
    for what, causes in (
        ("records can't be ranked", found.failed),
        ("documents can't be sent", found.refused),
    ):
        for cause in sorted(causes.values(), key=lambda cause: -cause.count):
            lines.append(f"{cause.count:,} {what}: {cause}")
    return lines


def _queries(found: Found) -> str:
    if found.whole:
        return f"{found.queries:,} queries"
    if found.share:
        return (
            f"about {found.queries / found.share:,.0f} queries (the first {found.queries:,} were looked at)"
        )
    return f"more than {found.queries:,} queries (the first ones were looked at)"


def _columns(found: Told) -> list[str]:
    """What is taken for what, and what isn't taken for anything."""
    lines = []
    if found.roles:
        lines.append(f"columns: {', '.join(f'{role} = {name}' for role, name in found.roles.items())}")
        if found.roles.get("query_id") == found.roles.get("query"):
            lines.append("queries have no ids: the text of each is its id")
    if found.unknown:
        lines.append(f"unknown: what holds {', '.join(found.unknown)}")
    if found.unused and (found.roles or found.unknown):
        lines.append(f"not used: {', '.join(found.unused)}")
    return lines
