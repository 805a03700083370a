"""Makes one validated Job from a file, the environment and ``--set``; every error names its key and its line."""

import difflib
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from batchrank.errors import JobError
from batchrank.job.config import Job
from batchrank.job.document import read_document, value_of
from batchrank.job.paths import filled, moved
from batchrank.job.running import TOLD

PREFIX = "BATCHRANK_"
_KEY = re.compile(r"[A-Za-z_-]+(\.[A-Za-z_-]+)*")
SHORT = {"input": "path", "endpoint": "url"}
"""Sections that may be written as the value of one of their keys."""
_HARMLESS = {"timeout", "wire", "region"}
"""Keys of endpoint whose faulty values are repeated."""


def load_job(
    path: str | Path, *, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Job:
    """Read a job file and what overrides it.

    Args:
        path: a ``.yaml``, ``.yml`` or ``.toml`` file; paths inside it are relative to it.
        overrides: ``key.sub=value``, as given to ``--set``; they win over the environment, and it over the file.
        environ: the environment, ``os.environ`` by default.

    Raises:
        JobError: the file can't be read, or a key is unknown, of the wrong type, impossible.
    """
    path = Path(path)
    data, lines = read_document(path)
    if "input" not in data and "datasets" in data:
        raise JobError(f"{path}: this is a benchmark file, not a job's: batchrank bench {path}")
    origin = {key: f"{path}, line {line}" for key, line in lines.items()}
    _override(data, origin, overrides, os.environ if environ is None else environ)
    for key in ("input", "output"):
        if key not in data:
            raise JobError(
                f"{path}: {key}.path: required; say where the {'queries are' if key == 'input' else 'rankings go'}"
            )
    return _anchored(_validated(data, origin, str(path)), path, origin)


def make_job(
    data: dict[str, Any],
    *,
    name: str,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Job:
    """Make a job without a file, for a command that says by its own options what it is about.

    Args:
        data: its keys, changed to what it has with all that overrides them; it may lack ``input`` and ``output``.
        name: the command's name, which the job has too.
        overrides: as in ``load_job``.
        environ: as in ``load_job``.
        file: the file that it will be written to, which paths are relative to; None for the folder at hand.

    Raises:
        JobError: a key is unknown, of the wrong type, impossible.
    """
    origin: dict[tuple[str, ...], str] = {}
    _override(data, origin, overrides, os.environ if environ is None else environ)
    return _anchored(_validated(data, origin, f"batchrank {name}"), file or Path(f"{name}.yaml"), origin)


def _override(
    data: dict[str, Any],
    origin: dict[tuple[str, ...], str],
    overrides: Sequence[str],
    environ: Mapping[str, str],
) -> None:
    """Put what the environment and ``--set`` say over the keys of a job."""
    data |= spelled_out(data)
    for source, changes in (
        ("environment", partial(_environment, environ, data)),
        ("--set", partial(_overrides, overrides)),
    ):
        try:
            _merge_into(data, changes(), origin, source)
        except ValueError as error:
            raise JobError(f"{source}: a value {error}") from None


def _validated(data: dict[str, Any], origin: dict[tuple[str, ...], str], path: str) -> Job:
    try:
        return Job.model_validate(data)
    except ValidationError as error:
        raise JobError("\n".join(_explain(e, origin, path) for e in _telling(error))) from None
    except JobError as error:
        raise JobError(f"{_where(_named(str(error)), origin) or path}: {error}") from None


def _environment(environ: Mapping[str, str], data: dict[str, Any]) -> dict[str, Any]:
    """What the environment changes, read as the settings library does it, which is imported if there is anything."""
    environ = {name: value for name, value in environ.items() if not name.startswith(TOLD)}
    if not any(name.startswith(PREFIX) for name in environ):
        return {}
    from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

    class EnvironmentJob(Job, BaseSettings):
        model_config = SettingsConfigDict(enable_decoding=False)

    endpoint = data.get("endpoint")
    named = endpoint.get("api_key_env") if isinstance(endpoint, dict) else None
    own = {"DASHSCOPE_API_KEY", *map(str, named if isinstance(named, list) else [named])}
    for name in environ:
        if name.startswith(PREFIX) and name not in own:
            first = name.removeprefix(PREFIX).split("__")[0].lower()
            if first not in Job.model_fields:
                raise JobError(
                    f"environment, {name}: unknown key {first!r}{_closest(first, Job.model_fields)}"
                )
    source = EnvSettingsSource(
        EnvironmentJob, env_prefix=PREFIX, env_nested_delimiter="__", case_sensitive=False
    )
    source.env_vars = {k.lower(): v for k, v in environ.items() if k.startswith(PREFIX) and k not in own}
    changes = {key: _plain(value) for key, value in source().items()}
    if isinstance(changes.get("endpoint"), dict) and "body" in changes["endpoint"]:
        changes["endpoint"]["body"] = _typed(changes["endpoint"]["body"])
    return changes


def _plain(value: Any) -> Any:
    """What a text from the environment or --set means; the schema turns texts into numbers where it wants some."""
    if isinstance(value, dict):
        return {key: _plain(nested) for key, nested in value.items()}
    structured = isinstance(value, str) and re.match(r"\s*([\[{]|null\s*$)", value)
    return value_of(value) if structured else value


def _typed(value: Any) -> Any:
    """What a text stands for where the schema can't tell: a field that is added to requests may be of any type."""
    if isinstance(value, dict):
        return {key: _typed(nested) for key, nested in value.items()}
    return value_of(value) if isinstance(value, str) else value


def _overrides(overrides: Sequence[str]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for item in overrides:
        key, equals, value = item.partition("=")
        key = f"{key}.{SHORT[key]}" if key in SHORT and not value.lstrip().startswith("{") else key
        if not equals or not _KEY.fullmatch(key):
            shown = item if item.split(".")[0] in Job.model_fields and _KEY.fullmatch(item) else "(not shown)"
            raise JobError(f"--set {shown}: write key.sub=value, for example --set rate.rpm=60")
        *parents, last = key.split(".")
        target = data
        for parent in parents:
            inner = target.get(parent)
            if not isinstance(inner, dict):
                inner = target[parent] = {} if inner is None else {"base": inner}
            target = inner
        target[last] = (_typed if key.startswith("endpoint.body") else _plain)(value)
    return data


def _merge_into(
    data: dict[str, Any],
    changes: dict[str, Any],
    origin: dict[tuple[str, ...], str],
    source: str,
    at: tuple[str, ...] = (),
) -> None:
    for key, value in changes.items():
        here = (*at, key)
        value = spelled_out({key: value})[key] if not at else value
        if isinstance(value, dict):
            if not isinstance(data.get(key), dict):
                data[key] = (
                    {"base": data[key]} if here == ("model",) and isinstance(data.get(key), str) else {}
                )
            _merge_into(data[key], value, origin, source, here)
        else:
            data[key] = value
            origin[here] = source


def spelled_out(data: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a job with each section as a mapping, also one that is written short: ``input: a.jsonl``."""
    return {
        key: {SHORT[key]: value} if key in SHORT and isinstance(value, str | list) else value
        for key, value in data.items()
    }


def _telling(error: ValidationError) -> list[Any]:
    """The errors without those of union branches where another branch got further into the value."""
    errors = error.errors()
    keys = [tuple(part for part in e["loc"] if not _is_branch(part)) for e in errors]
    return [
        e
        for e, key in zip(errors, keys, strict=True)
        if not any(len(k) > len(key) and k[: len(key)] == key for k in keys)
    ]


def _explain(error: Any, origin: dict[tuple[str, ...], str], path: str) -> str:
    keys = tuple(str(part) for part in error["loc"] if not _is_branch(part))
    where, key = _where(keys, origin) or path, ".".join(keys)
    if error["type"] == "extra_forbidden":
        return f"{where}: {key}: unknown key{_closest(keys[-1], _fields_at(keys[:-1]))}"
    if error["type"] == "missing":
        return f"{path}: {key}: required"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {key + ': ' if key else ''}{message[0].lower() + message[1:]}" + _given(error)


def _given(error: Any) -> str:
    value = error.get("input")
    if error["loc"][:1] == ("endpoint",) and not _HARMLESS & set(error["loc"]):
        return ""  # who mistakes what belongs there has often written a secret
    return (
        f"; got {value!r}"
        if isinstance(value, str | int | float | bool) and error["type"] != "value_error"
        else ""
    )


def _is_branch(part: object) -> bool:
    """Whether a step of an error's location names a branch of a union instead of a key."""
    return isinstance(part, str) and bool(
        re.search(r"[\[(]|^(str|int|constrained-int|Workspace|dict)$", part)
    )


def _named(message: str) -> tuple[str, ...]:
    """The key that a message begins with."""
    return tuple(message.partition(":")[0].split("."))


def _where(keys: tuple[str, ...], origin: dict[tuple[str, ...], str]) -> str:
    for depth in range(len(keys), 0, -1):
        if keys[:depth] in origin:
            return origin[keys[:depth]]
    return ""


def _closest(name: str, known: typing.Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _fields_at(keys: tuple[str, ...]) -> list[str]:
    model: type[BaseModel] = Job
    for key in keys:
        annotation = model.model_fields[key].annotation if key in model.model_fields else None
        options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        nested = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)


def _anchored(job: Job, path: Path, origin: dict[tuple[str, ...], str]) -> Job:
    """The job with its name and the placeholders of its output filled in, and every path relative to the job file."""

    def here(own: str) -> str:
        return str(path.parent / os.path.expanduser(own))  # noqa: PTH111 pathlib raises where there is no home

    data = job.model_dump(exclude_unset=True)
    name = data["name"] = job.name or path.stem
    if job.output is None:
        return Job.model_validate(moved(data, here))
    given = job.output.path
    try:
        output, dated = filled(given, name, lambda own: own if own == "-" or "://" in own else here(own))
    except JobError as error:
        raise JobError(f"{_where(('output', 'path'), origin) or path}: {error}") from None
    if not job.ledger and (job.destination != job.output_folder or given == "-" or dated):
        data["ledger"] = f"{name}.ledger.sqlite"
    found = Job.model_validate(moved(data, here))
    assert found.output is not None
    return found.model_copy(update={"output": found.output.named(output, dated)})
