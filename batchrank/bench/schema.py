"""Makes the JSON Schema of benchmark files, by which editors complete and check them, from that of jobs."""

from typing import Any

from batchrank.bench.matrix import Bench
from batchrank.job.schema import DIALECT, job_schema

_TEXT: dict[str, Any] = {"type": "string"}
_TEXTS: dict[str, Any] = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}
_MEANINGS = {
    "output": "The folder for tables and jobs.",
    "datasets": "By name: a path, a list of them, or the keys of input, and qrels.",
    "models": "Names; or by name a model's name or mapping, or {model, job}.",
    "instructs": "By name; null is the model's own.",
    "methods": "Merge methods.",
    "measures": "Of quality, as ir-measures names them.",
    "job": "Keys that all jobs have.",
}


def bench_schema() -> dict[str, Any]:
    """The schema of benchmark files, in YAML: what `batchrank bench` takes."""
    job = job_schema()
    keys = dict(job["properties"])
    definitions: dict[str, Any] = job["$defs"]
    given = keys["input"]["anyOf"][-1]  # the mapping, after what stands for it in short
    source = dict(definitions[given["$ref"].rsplit("/", 1)[1]])
    dataset = source | {"properties": source["properties"] | {"qrels": _TEXTS}}
    part = {"type": "object", "properties": keys, "additionalProperties": False}
    model = keys["model"]
    own = {
        "type": "object",
        "properties": {"model": model, "job": {"$ref": "#/$defs/Part"}},
        "required": ["model"],
        "additionalProperties": False,
    }
    whole = {
        "type": "object",
        "properties": {"input": given, "qrels": _TEXTS},
        "required": ["input"],
        "additionalProperties": False,
    }
    properties: dict[str, Any] = {
        "output": _TEXT,
        "datasets": _named({"anyOf": [*_TEXTS["anyOf"], {"$ref": "#/$defs/Dataset"}, whole]}),
        "models": {
            "anyOf": [
                {"type": "array", "items": model["anyOf"][0], "minItems": 1},
                _named({"anyOf": [*model["anyOf"], own]}),
            ]
        },
        "instructs": _named({"type": ["string", "null"]}),
        "methods": {"type": "array", "items": {"enum": _methods(definitions)}, "minItems": 1},
        "measures": {"type": "array", "items": _TEXT, "minItems": 1},
        "job": {"$ref": "#/$defs/Part"},
    }
    assert set(properties) == set(Bench.model_fields)
    return {
        "$schema": DIALECT,
        "title": "batchrank benchmark",
        "type": "object",
        "properties": {name: node | {"description": _MEANINGS[name]} for name, node in properties.items()},
        "required": [name for name, field in Bench.model_fields.items() if field.is_required()],
        "additionalProperties": False,
        "$defs": definitions | {"Part": part, "Dataset": dataset},
    }


def _named(value: dict[str, Any]) -> dict[str, Any]:
    names = {"pattern": r"^[^/\x00]+$"}
    return {"type": "object", "additionalProperties": value, "propertyNames": names, "minProperties": 1}


def _methods(definitions: dict[str, Any]) -> list[str]:
    names: list[str] = definitions["Merge"]["properties"]["method"]["enum"]
    return names
