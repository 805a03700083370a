"""Reads a benchmark file, tells which cells it has, and makes the job of each, so that one file describes them all."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from batchrank.errors import JobError
from batchrank.io.storage import address_of
from batchrank.job.config import Job
from batchrank.job.document import read_document
from batchrank.job.load import load_job, spelled_out
from batchrank.ledger import LEDGER

_NAME = r"^[^/\x00]+$"
_Name = Annotated[str, Field(pattern=_NAME)]
_PATHS = ("path", "corpus", "queries")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(_Section):
    """One dataset: the keys of a job's ``input``, and the judgements that tell quality, if there are any."""

    input: dict[str, Any]
    qrels: tuple[str, ...] = ()

    @field_validator("qrels", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class Model(_Section):
    """One model: a job's ``model``, and other keys that only jobs of this model have."""

    model: str | dict[str, Any]
    job: dict[str, Any] = {}


class Bench(_Section):
    """A benchmark. Its cells share a ledger, so that what several of them ask is paid once.

    Attributes:
        output: the folder for tables and jobs.
        datasets: by name; a path alone will do.
        models: names, or by name what makes them up.
        instructs: by name; None is the model's own.
        methods: merge methods.
        measures: of quality, as ir-measures names them.
        job: keys that all jobs have.
    """

    output: str
    datasets: Annotated[dict[_Name, Dataset], Field(min_length=1)]
    models: Annotated[dict[_Name, Model], Field(min_length=1)]
    instructs: dict[_Name, str | None] = {"default": None}
    methods: Annotated[tuple[_Name, ...], Field(min_length=1)] = ("hub",)
    measures: Annotated[tuple[str, ...], Field(min_length=1)] = ("nDCG@10", "RR@10")
    job: dict[str, Any] = {}

    @field_validator("output")
    @classmethod
    def _here(cls, value: str) -> str:
        if "://" in value:
            raise ValueError("a benchmark keeps its tables and outputs in a folder here, not at an address")
        return value

    @field_validator("datasets", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        """``name: path`` and ``name: {path: ..., qrels: ...}`` as what they stand for."""
        if not isinstance(value, dict):
            return value
        return {str(name): _dataset(entry) for name, entry in value.items()}

    @field_validator("models", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """A list of names, or a mapping of names to models."""
        if isinstance(value, list):
            value = {name: {"model": name} for name in value if isinstance(name, str)} or value
        if not isinstance(value, dict):
            return value
        return {
            name: entry if isinstance(entry, dict) and "model" in entry else {"model": entry}
            for name, entry in value.items()
        }


def _dataset(entry: Any) -> Any:
    if isinstance(entry, str | list):
        return {"input": {"path": entry}}
    if isinstance(entry, dict) and "input" not in entry:
        return {
            "input": {key: value for key, value in entry.items() if key != "qrels"},
            "qrels": entry.get("qrels", ()),
        }
    return entry


@dataclass(frozen=True, slots=True)
class Cell:
    """One job of a benchmark.

    Attributes:
        dataset: its name.
        model: its name.
        instruct: its name.
        method: the merge method.
        folder: its own folder: job file and output.
        data: its job file's content.
        qrels: judgements of the dataset.
    """

    dataset: str
    model: str
    instruct: str
    method: str
    folder: Path
    data: dict[str, Any]
    qrels: tuple[str, ...]

    @property
    def name(self) -> str:
        """What people call it."""
        parts = (self.dataset, self.model, self.instruct, self.method)
        return " / ".join(part for part in parts if part != "default")

    @property
    def path(self) -> Path:
        """Its job file."""
        return self.folder / "job.yaml"

    @property
    def output(self) -> Path:
        """Its output folder."""
        return self.folder / "out"

    def job(self, overrides: Sequence[str] = ()) -> Job:
        """Write its job file, which `batchrank run` takes as well, and load it.

        Raises:
            JobError: the keys make no job.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        text = f"# Written by batchrank bench: {self.name}\n"
        self.path.write_text(text + yaml.safe_dump(self.data, sort_keys=False, allow_unicode=True), "utf-8")
        return load_job(self.path, overrides=overrides)


def load_bench(path: str | Path) -> tuple[Bench, list[Cell]]:
    """Read a benchmark file; paths in it are relative to it.

    Returns:
        The benchmark, and its cells in the order datasets, models, instructs, methods.

    Raises:
        JobError: the file can't be read, or a key is unknown, missing or of a wrong type.
    """
    path = Path(path)
    data, _ = read_document(path, "benchmark")
    if "datasets" not in data and {"input", "model"} & data.keys():
        raise JobError(f"{path}: this is a job file, not a benchmark's: batchrank run {path}")
    try:
        bench = Bench.model_validate(data)
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors()]
        raise JobError("\n".join(lines)) from None
    cells = list(_cells(bench, path.parent))
    folders = [cell.folder for cell in cells]
    if len(set(folders)) < len(folders):
        raise JobError(
            f"{path}: two names make the same folder name, which can't hold all characters; rename one"
        )
    return bench, cells


def _cells(bench: Bench, base: Path) -> Iterator[Cell]:
    root = _at(base, bench.output)
    product = itertools.product(
        bench.datasets.items(), bench.models.items(), bench.instructs.items(), bench.methods
    )
    for (dataset, source), (name, model), (instruct, text), method in product:
        folder = Path(root).joinpath(*map(_plain, (dataset, name, instruct, method)))
        data = _merged(spelled_out(bench.job), spelled_out(model.job))
        data = _merged(data, {"merge": {"method": method}, "model": model.model})
        data["input"] = data.get("input", {}) | _anchored(source.input, base)
        data["output"] = data.get("output", {}) | {"path": "out"}
        # A method is measured by itself: what another cell was told of a document must not help it.
        data["reuse"] = {"documents": False, **data.get("reuse", {})}
        if data.get("ledger"):
            data["ledger"] = _at(base, data["ledger"])
        elif not (
            folder / "out" / LEDGER
        ).exists():  # a cell of an older batchrank has paid answers of its own
            data["ledger"] = str(Path(root) / LEDGER)
        if text is not None:
            data["instruct"] = text
        if key := data.get("endpoint", {}).get("api_key_file"):
            files = _at(base, key) if isinstance(key, str) else [_at(base, file) for file in key]
            data["endpoint"] = data["endpoint"] | {"api_key_file": files}
        qrels = tuple(_at(base, path) for path in source.qrels)
        yield Cell(dataset, name, instruct, method, folder, data, qrels)


def _merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Two sets of keys, section by section; the second wins."""
    found = dict(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict) and key != "model"
        found[key] = _merged(found[key], value) if both else value
    return found


def _anchored(source: dict[str, Any], base: Path) -> dict[str, Any]:
    def at(value: Any) -> Any:
        return [at(v) for v in value] if isinstance(value, list) else _at(base, str(value))

    return {key: at(value) if key in _PATHS and value is not None else value for key, value in source.items()}


def _at(base: Path, path: str) -> str:
    path = address_of(path)
    return path if "://" in path else str((base / Path(path).expanduser()).absolute())


def _plain(name: str) -> str:
    """A name as a folder's."""
    return re.sub(r"[^\w.+-]+", "_", name).lstrip(".") or "_"
