"""Looks at a dataset and writes a job file for it that runs as it is (``batchrank init``)."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from batchrank.data import Query
from batchrank.errors import InputError, JobError, UnsortedError
from batchrank.job.config import Job
from batchrank.job.sections import Input
from batchrank.pipeline.preconditions import Preconditions
from batchrank.pipeline.prepare import Prepared
from batchrank.planning.survey import Survey, survey
from batchrank.read.base import Source
from batchrank.read.layout import find, notes

SAMPLE = 1000
"""Records that are looked at."""
_MB = 1e6


@dataclass(slots=True, kw_only=True)
class Found(Survey):
    """What a look at a dataset found; counts are of the sample.

    Attributes:
        sources: the files.
        notes: which files there are that aren't read, and why.
        most: candidates of the longest list.
        scored: queries whose candidates have first-stage scores.
        characters: of all documents that are texts, ``longest`` of them in one.
        unsorted: why pairs have to be sorted; None where they come grouped.
    """

    sources: list[Source]
    notes: list[str]
    most: int = 0
    scored: int = 0
    characters: int = 0
    longest: int = 0
    unsorted: str | None = None

    def add(self, query: Query, ready: Prepared) -> None:
        """Count one query, and how long its texts are."""
        Survey.add(self, query, ready)
        lengths = [len(text) for text in query.documents if isinstance(text, str)]
        self.most = max(self.most, len(query))
        self.scored += query.first_stage_scores is not None
        self.characters += sum(lengths)
        self.longest = max(self.longest, *lengths, 0)


def look(path: str, model: str, *, sort: bool = False) -> Found:
    """Read the first records of a dataset, as a job of this model would.

    Raises:
        InputError: nothing of it can be ranked; says what would help.
        JobError: the model is unknown.
    """
    # Nothing that is told depends on exact counts, and the vocabulary takes its time.
    job = Job(model=model, input=Input(path=(path,), sort=sort), tokenizer="bytes")
    found = Found(sources=find([path]), notes=notes(Input(path=(path,))))
    try:
        survey(Preconditions(job), found, limit=SAMPLE)
    except UnsortedError as error:
        if sort:
            raise
        found = look(path, model, sort=True)
        found.unsorted = str(error)
    if not found.queries:
        why = next(iter(found.failed.values()), None)
        hint = f": {why}" if why else ""
        raise InputError(f"{path}: none of its {found.lost:,} records can be ranked{hint}")
    return found


def write_job(data: str, path: Path, *, model: str, force: bool) -> Found:
    """Look at a dataset and write a job for it.

    Args:
        data: a file, a glob or a folder.
        path: the job file to write, YAML.
        model: the model's name.
        force: replace a file that is there already.

    Raises:
        InputError: nothing of the dataset can be ranked.
        JobError: the file is there already, or can't be written.
        UnknownModelError: there is no card of that name.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise JobError(f"{path}: the job is written as YAML; end its name in .yaml")
    if path.exists() and not force:
        raise JobError(f"{path} is there already; name another file with --job, or replace it with --force")
    job = Job(model=model)
    found = look(data, model)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_text(data, found, job, path), encoding="utf-8")
    except OSError as error:
        raise JobError(f"{path} can't be written: {error.strerror or error}") from None
    return found


def facts(found: Found) -> list[str]:
    """What was found, a line each."""
    files = found.sources
    formats = ", ".join(sorted({source.format for source in files}))
    size = sum(source.bytes for source in files) / _MB
    lines = [f"{len(files):,} {'file' if len(files) == 1 else 'files'} ({formats}), {size:,.1f} MB"]
    lines += found.notes
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


def _text(data: str, found: Found, job: Job, path: Path) -> str:
    """The job file, commented."""
    key = next(iter(job.key_sources), None)
    ready = key is None or bool(os.environ.get(key, "").strip())
    currency = job.price.currency if job.price else "the model's currency"
    shown = "".join(f"#   {line}\n" for line in facts(found))
    name = Path(data.rstrip("/")).stem.split("*")[0].strip("-_.") or "job"
    endpoint = f"# endpoint:\n#   region: singapore           # default: {job.url}\n"
    if not ready:
        endpoint = (
            f"endpoint:\n  url: emulator               # the API on loopback, free: {key} is not set. For the\n"
            f"                              # real one remove these lines and: export {key}=...\n"
        )
    sort = "  sort: true                  # pairs are not grouped by query\n" if found.unsorted else ""
    depth = min(100, max(1, found.most))
    return f"""\
# {data}, reranked with {job.card.name}. Written by batchrank init, which found:
{shown}#
#   batchrank check {path.name}       tells what would fail, without spending anything
#   batchrank plan {path.name}        tells what it would cost
#   batchrank run {path.name}         runs it, or continues it where it stopped
# Editors complete and check this file with: batchrank schema > job.schema.json, and as first line
#   yaml-language-server: $schema=job.schema.json

input:
  path: {_scalar(_relative(data, path.parent))}
{sort}model: {_scalar(job.card.name)}           # batchrank models lists the others
{endpoint}merge:
  top_k: {depth}                  # the depth that must be exact
# budget:
#   max_cost: 5               # {currency}; the run stops before it would pass it, and can be continued
#   per: run                  # run | day | total
output:
  path: {_scalar(f"out/{name}")}
  format: parquet             # parquet | jsonl | trec
"""


def _relative(data: str, folder: Path) -> str:
    """The dataset's path as seen from the job file."""
    if "://" in data or Path(data).is_absolute():
        return data
    return os.path.relpath(data, folder)


def _scalar(text: str) -> str:
    """A text as YAML, quoted where it must be."""
    plain = yaml.safe_dump(text, width=10**6, allow_unicode=True).removesuffix("...\n").strip()
    return plain if "\n" not in plain else json.dumps(text)
