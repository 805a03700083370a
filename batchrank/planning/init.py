"""Looks at a dataset and writes a job file for it that runs as it is (``batchrank init``)."""

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from batchrank.data import Query
from batchrank.errors import InputError, JobError, UnsortedError
from batchrank.job.config import Job
from batchrank.job.sections import Input
from batchrank.outcomes import Failure
from batchrank.read.base import Gauge, Source
from batchrank.read.layout import find, notes
from batchrank.read.reader import read

SAMPLE = 1000
"""Queries that are looked at."""
_MB = 1e6


@dataclass(slots=True)
class Found:
    """What a look at a dataset found; counts are of the sample.

    Attributes:
        sources: the files.
        whole: whether the sample is all there is.
        share: the part of the input that was read, 0 when unknown.
        scored: queries whose candidates have first-stage scores.
        longest: characters of the longest document.
        causes: records that can't be ranked, by cause, and ``example`` one of them.
        notes: which files there are that aren't read, and why.
        unsorted: why pairs have to be sorted; None where they come grouped.
    """

    sources: list[Source]
    whole: bool = True
    share: float = 0.0
    queries: int = 0
    documents: int = 0
    most: int = 0
    scored: int = 0
    characters: int = 0
    longest: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    example: Failure | None = None
    unsorted: str | None = None
    notes: list[str] = field(default_factory=list)

    def take(self, item: Query | Failure) -> None:
        """Count one query or one record that can't be ranked."""
        if isinstance(item, Failure):
            self.causes[item.cause] += 1
            self.example = self.example or item
            return
        lengths = [len(text) for text in item.documents if isinstance(text, str)]
        self.queries += 1
        self.documents += len(item)
        self.most = max(self.most, len(item))
        self.scored += item.first_stage_scores is not None
        self.characters += sum(lengths)
        self.longest = max(self.longest, *lengths, 0)


def look(path: str, sample: int = SAMPLE) -> Found:
    """Read the first queries of a dataset.

    Raises:
        InputError: nothing of it can be ranked; says what would help.
    """
    try:
        found = _sampled(path, sample)
    except UnsortedError as error:
        found = _sampled(path, sample, sort=True)
        found.unsorted = str(error)
    if not found.queries:
        why = found.example
        hint = f"; the first, {why.place}: {why.message}" if why else ""
        raise InputError(f"{path}: none of its {sum(found.causes.values()):,} records can be ranked{hint}")
    return found


def _sampled(path: str, sample: int, *, sort: bool = False) -> Found:
    found = Found(find([path]), notes=notes(Input(path=(path,))))
    gauge = Gauge()
    for item in read(Input(path=(path,), sort=sort), gauge):
        if found.queries >= sample:
            found.whole = False
            break
        found.take(item)
        found.share = gauge.share
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
    found = look(data)
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
    for cause, count in found.causes.most_common():
        lines.append(f"{count:,} records can't be ranked: {cause}")
    if found.example is not None:
        lines.append(f"  the first, {found.example.place}: {found.example.message}")
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
    key = job.api_key_env
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
