"""The JSON Schema of a job file, for editors: completes and explains keys, and marks what would be refused."""

from typing import Any

from batchrank.job.keys import KEYS
from batchrank.job.schema import Job
from batchrank.models import Card, cards

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MAPPING_ONLY = {"base", "price"}
_ONE_OR_MANY = (("Input", "path"), ("Input", "corpus"), ("Input", "queries"), ("Gate", "qrels"))


def job_schema() -> dict[str, Any]:
    """The schema of job files, in YAML or TOML.

    What pydantic's own schema says of ``Job`` is made to fit files: a path may be one string, a column a number, a
    model's name is one that has a card, a model's mapping has a card's fields, and ``input`` and ``output`` are
    required.
    """
    schema = Job.model_json_schema()
    definitions = schema["$defs"]
    card = Card.model_json_schema()
    definitions |= card.pop("$defs", {})
    properties = schema["properties"]
    properties["model"] = {"anyOf": [_names(), _mapping(card)]}
    for section, name in _ONE_OR_MANY:
        keys = definitions[section]["properties"]
        keys[name] = {"anyOf": [{"type": "string"}, *keys[name].get("anyOf", [keys[name]])]}
    for column in definitions["Columns"]["properties"].values():
        column["anyOf"].insert(1, {"type": "integer", "minimum": 1})
    schema["required"] = ["input", "model", "output"]
    for name in ("input", "output"):
        properties[name] = properties[name]["anyOf"][0]
    _explain(schema, definitions)
    described: dict[str, Any] = _plain(schema)
    return {"$schema": DIALECT, "title": "batchrank job"} | described


def _names() -> dict[str, Any]:
    return {"type": "string", "enum": sorted(cards())}


def _mapping(card: dict[str, Any]) -> dict[str, Any]:
    """A mapping that changes a card: ``base`` names it; ``price`` stands for a price in every region."""
    fields = {
        name: {key: value for key, value in field.items() if key != "default"}  # the default is the base's
        for name, field in card["properties"].items()
        if name != "prices"
    }
    fields["base"] = _names() | {"description": "The model card that this one changes."}
    fields["price"] = {"$ref": "#/$defs/Price"}
    named: dict[str, Any] = {"required": ["name"], "properties": {"name": _names()}}
    return {
        "type": "object",
        "properties": dict(sorted(fields.items(), key=lambda item: item[0] not in _MAPPING_ONLY)),
        "additionalProperties": False,
        "anyOf": [{"required": ["base"]}, named],
    }


def _explain(schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    for key, text in KEYS.items():
        at: dict[str, Any] = schema
        for name in key.split("."):
            at = _resolved(at, definitions)["properties"][name]
        at["description"] = text


def _resolved(at: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a section, wherever pydantic put it."""
    for option in [at, *at.get("anyOf", [])]:
        if "$ref" in option:
            found: dict[str, Any] = definitions[option["$ref"].rsplit("/", 1)[1]]
            return found
    return at


def _plain(node: Any) -> Any:
    """Without the titles pydantic makes up, and the sections' docstrings, which are about the code."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    made_up = {"title"} if isinstance(node.get("title"), str) else set()
    if isinstance(node.get("default"), dict):
        made_up.add("default")  # a section's defaults are its keys'
    if node.get("type") == "object" and "\n" in str(node.get("description", "")):
        made_up.add("description")
    return {key: _plain(value) for key, value in node.items() if key not in made_up}
