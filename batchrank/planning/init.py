"""Looks at a dataset and writes a job file for it that runs as it is (``batchrank init``).

Where nothing can be made of the data yet, the file is written all the same, with the lines that the user has to fill.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from batchrank.errors import JobError
from batchrank.io import storage
from batchrank.job.config import Job
from batchrank.job.document import read_document
from batchrank.job.load import make_job
from batchrank.planning.dataset import Found, facts, look
from batchrank.read.told import FILL_IN

_COLUMN = 30
"""Where comments begin, so that they stand below one another."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_VAGUE = re.compile(
    r"(data|dataset|train|test|dev|validation|part|candidates|input|queries|export)?[-_.\d]*", re.IGNORECASE
)
"""Names that many datasets have, so that the folder around them tells more."""


def write_job(
    data: str,
    path: Path,
    *,
    model: str | None = None,
    url: str | None = None,
    columns: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    force: bool = False,
) -> Found:
    """Look at a dataset and write a job for it.

    Args:
        data: a file, a glob or a folder.
        path: the job file to write, YAML.
        model: the model's name; None for the default one.
        url: the endpoint's address; None for the model's own, or the emulator where there is no key.
        columns: which column or key holds what, by role.
        overrides: further keys of the job, as given to ``--set``; paths in them are relative to the job file.
        force: replace a file that is there already.

    Raises:
        InputError: there is no such dataset.
        JobError: the file is there already, or can't be written; or a key can't be used.
        UnknownModelError: there is no card of that name.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise JobError(f"{path}: the job is written as YAML; end its name in .yaml")
    if path.exists() and not force:
        raise JobError(f"{path} is there already; name another file with --job, or replace it with --force")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # as paths in the job go by way of it
    except OSError as error:
        raise _unwritable(path, error) from None
    keys: dict[str, Any] = {
        "input": {"path": _relative(data, path.parent)},
        "model": "qwen3-rerank",
        "output": {"path": _folder(data, path), "format": "parquet"},
    }
    if columns:
        keys["input"]["columns"] = dict(columns)
    own = [*([f"model={model}"] if model else []), *([f"endpoint.url={url}"] if url else [])]
    job = make_job(keys, name="init", overrides=[*own, *overrides], environ={}, file=path)
    assert job.input is not None
    found = look(job.input, job.model)
    if found.told.unknown == ["query_id"] and (query := found.told.roles.get("query")):
        job = make_job(
            keys, name="init", overrides=[f"input.columns.query_id={query}"], environ={}, file=path
        )
        assert job.input is not None
        found = look(job.input, job.model)
    try:
        path.write_text(_text(data, found, job, keys, path), encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from None
    return found


def _unwritable(path: Path, error: OSError) -> JobError:
    return JobError(f"{path} can't be written: {error.strerror or error}")


_NOTES = {
    "model": "batchrank models lists the others",
    "input.sort": "pairs are not grouped by query",
    "merge.top_k": "the depth that must be exact",
    "output.format": "parquet | jsonl | trec",
}


def _text(data: str, found: Found, job: Job, keys: dict[str, Any], path: Path) -> str:
    """The job file, commented."""
    given = Job.model_validate(keys).model_dump(mode="json", exclude_unset=True)
    for name, value in given["input"].items():
        if isinstance(value, list) and len(value) == 1:
            given["input"][name] = value[0]
    notes = dict(_NOTES)
    if found.unsorted:
        given["input"]["sort"] = True
    if found.told.unknown:
        fill = dict.fromkeys(found.told.unknown, FILL_IN)
        there = ", ".join(found.told.unused or found.told.names) or "or its number, from 1"
        notes |= {f"input.columns.{role}": f"fill in its name; not used yet: {there}" for role in fill}
        if "query_id" in fill and (query := found.told.roles.get("query")):
            fill["query_id"] = query
            notes["input.columns.query_id"] = "there is none: the text of each query is its id"
        given["input"]["columns"] = given["input"].get("columns", {}) | fill
    given["merge"] = {"top_k": min(100, max(1, found.most or 100))} | given.get("merge", {})
    notes |= _endpoint(job, given)
    currency = job.price.currency if job.price else "the model's currency"
    budget = (
        "budget:",
        f"  max_cost: 5               # {currency}; the run stops before it would pass it, and can be continued",
        "  per: run                  # run | day | total",
    )
    return _job_text(given, head=_head(data, found, job, path), notes=notes, could={
        "endpoint": ["endpoint:", f"  region: singapore           # default: {job.url}"], "budget": budget,
    })  # fmt: skip


def _endpoint(job: Job, given: dict[str, Any]) -> dict[str, str]:
    """Let the job run as it is: on the emulator where there is no key, or without one on a server of the user's own."""
    key, own = next(iter(job.key_sources), None), given.get("endpoint", {})
    if key is None or os.environ.get(key, "").strip() or job.endpoint.api_key_file:
        return {}
    if not own.keys() & {"url", "urls"} and "url" not in own:
        given["endpoint"] = own | {"url": "emulator"}
        return {"endpoint.url": f"the emulator, free: {key} is not set; remove this once it is"}
    if "auth" not in own and all(urlsplit(url).hostname in _LOOPBACK for url in job.urls):
        given["endpoint"] = own | {"auth": "none"}
        return {"endpoint.auth": f"{key} is not set; remove this if the server wants a key"}
    return {}


def _head(data: str, found: Found, job: Job, path: Path) -> list[str]:
    return [
        f"{data}, reranked with {job.card.name}. Written by batchrank init, which found:",
        *(f"  {line}" for line in facts(found)),
        "",
        f"  batchrank check {path.name}       tells what would fail, without spending anything",
        f"  batchrank plan {path.name}        tells what it would cost",
        f"  batchrank run {path.name}         runs it, or continues it where it stopped",
        "Editors complete and check this file with: batchrank schema > job.schema.json, and as first line",
        "  yaml-language-server: $schema=job.schema.json",
    ]


def _folder(data: str, path: Path) -> str:
    """A folder for the output that no other dataset's job writes to: named as the data, and numbered if need be.

    The job file that is replaced keeps its folder, as its paid answers are there.
    """
    name = next((name for name in _names(data) if not _VAGUE.fullmatch(name)), None) or next(
        _names(data), "job"
    )
    if path.exists():
        try:
            before = read_document(path)[0]
            if _path(before.get("input")) == _relative(data, path.parent):
                return str(before["output"]["path"])
        except (JobError, KeyError, TypeError):
            pass  # what it was isn't known
    for number in range(1, 1000):
        folder = f"out/{name}" if number == 1 else f"out/{name}-{number}"
        if not (path.parent / folder).exists():
            break
    else:
        folder = f"out/{name}"
    return folder.replace("{", "{{").replace("}", "}}")


def _path(value: object) -> object:
    return value.get("path") if isinstance(value, dict) else value


def _names(data: str) -> Iterator[str]:
    """What a dataset may be called: its file's name, then those of the folders around it."""
    parts = [part for part in storage.address_of(data).rstrip("/").split("/") if part not in ("", ".", "..")]
    for position, part in enumerate(reversed(parts)):
        name = part.partition("?")[0]
        name = (name.partition(".")[0] if position == 0 else name).split("*")[0].strip("-_. ")
        if name and not name.endswith(":"):
            yield name


def _relative(data: str, folder: Path) -> str:
    """The dataset's path as seen from the job file."""
    data = storage.address_of(data)
    if storage.is_remote(data) or Path(data).is_absolute():
        return data
    return os.path.relpath(data, folder)


def _job_text(
    data: Mapping[str, Any],
    *,
    head: Sequence[str],
    notes: Mapping[str, str],
    could: Mapping[str, Sequence[str]],
) -> str:
    """A job file.

    Args:
        data: its keys.
        head: lines of the comment that it begins with.
        notes: what stands beside a key, by its dotted name.
        could: lines for sections that it lacks, which are written as comments.
    """
    lines = [f"# {line}".rstrip() for line in head] + [""]
    for name in Job.model_fields:
        if name in data:
            lines += _entry(name, data[name], notes, name)
        elif name in could:
            lines += [f"# {line}" for line in could[name]]
    return "\n".join(lines) + "\n"


def _entry(name: str, value: Any, notes: Mapping[str, str], dotted: str, indent: str = "") -> Iterator[str]:
    nested = isinstance(value, Mapping) and value
    line = f"{indent}{name}:" if nested else f"{indent}{name}: {_scalar(value)}"
    note = notes.get(dotted)
    yield line if note is None else f"{line:<{_COLUMN - 1}} # {note}"
    if nested:
        for key, inner in value.items():
            yield from _entry(key, inner, notes, f"{dotted}.{key}", f"{indent}  ")


def _scalar(value: Any) -> str:
    """A value on one line of YAML, quoted where it must be."""
    options: dict[str, Any] = {"width": 10**6, "allow_unicode": True, "default_flow_style": True}
    plain = yaml.safe_dump(value, **options).removesuffix("...\n").strip()
    return plain if "\n" not in plain else json.dumps(value)
