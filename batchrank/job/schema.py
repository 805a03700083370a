"""Explains the keys of a job: one sentence each, and the JSON Schema by which editors complete and check them."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from batchrank.job.config import Job
from batchrank.models import Card, cards

KEYS: dict[str, str] = {
    "name": "The job's name; default: the file's stem.",
    "input": "Where the queries and their candidates come from; a path alone is input.path.",
    "input.path": 'A file, glob, folder, address (s3://, hf://), dataset (beir:NAME), a list of them, or "-" (stdin).',
    "input.format": "How the files are written; auto tells it from their names and first bytes.",
    "input.corpus": "Where the texts of documents are, when path names them by id: files, or a dataset's folder.",
    "input.queries": "Where the texts of queries are, when path names them by id.",
    "input.split": "Which part of a dataset's folder; default: test.",
    "input.subset": "Which language or subset of a dataset's folder that has several.",
    "input.columns": "Which column or key holds what, where names don't tell; columns without names have numbers.",
    "input.columns.query_id": "The query's id.",
    "input.columns.query": "The query's text.",
    "input.columns.candidates": "The list of candidates, in files with one record a query.",
    "input.columns.doc_id": "The document's id.",
    "input.columns.text": "The document's text; where it alone is named, images and videos are not looked for.",
    "input.columns.score": "The first stage's score, higher is better.",
    "input.columns.image": "The document's image: an address, a data URI, a path below image_root, or bytes.",
    "input.columns.video": "The document's video: an address.",
    "input.sort": "Group pairs by query on disk first; needed where they come in another order.",
    "input.order": "Rank queries by this field of their records, such as -priority: the highest first with a minus.",
    "input.sample": "Draw so many queries, or a part (5%); or {queries, seed, by: file | documents}.",
    "input.limit": "Read the first N queries only.",
    "model": "A model that `batchrank models` lists, or a mapping that changes one: {base, name, price, ...}.",
    "endpoint": "Where requests are sent, and with which key; an address alone is endpoint.url.",
    "endpoint.url": 'The full address; "emulator" starts the API inside the process; default: the model\'s own.',
    "endpoint.urls": "Instead, the addresses of several servers of one model: the least busy one is asked.",
    "endpoint.identity": "What answers are remembered under; default: wire, model and region, not the address.",
    "endpoint.wire": "The format of requests and answers; default: the model's own.",
    "endpoint.region": "beijing, singapore, hongkong, or {workspace, region}: picks the vendor's host.",
    "endpoint.api_key_env": "The NAME of the variable that holds the key, never the key; several: each has the quota.",
    "endpoint.api_key_file": "A file that holds the key, or several; it is read again when the server refuses the key.",
    "endpoint.auth": "How the key is sent: bearer, a header's name such as api-key, or none.",
    "endpoint.headers": "Extra headers; their values are kept out of logs and reports.",
    "endpoint.body": "Fields added to the body of every request, such as {max_tokens_per_doc: 512}.",
    "endpoint.template": "The model's own prompt around queries and documents; default: the model's.",
    "endpoint.template.query": "The prompt around a query; {query} and {instruct} in it stand for their texts.",
    "endpoint.template.document": "The prompt around a document; {document} in it stands for its text.",
    "endpoint.proxy": "A proxy's address, or none; default: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.",
    "endpoint.ca_file": "Certificates that are trusted instead of the system's, as a PEM file.",
    "endpoint.client_cert": "The certificate that this client shows, as a PEM file, perhaps with its key.",
    "endpoint.client_key": "The key of that certificate, where it is a file of its own.",
    "endpoint.timeout": "Seconds that one attempt may take.",
    "instruct": "The ranking instruction, for models that take one.",
    "fps": "Video frames a second that the model looks at.",
    "image_root": "Local images are refused unless they lie under this folder.",
    "merge": "How the chunks of one query become one ranking.",
    "merge.method": "hub: exact to top_k; full: the whole order exact; rrf: rough; raw: absolute scores only.",
    "merge.top_k": "The depth that must be exact.",
    "reuse": "What the ledger knows of earlier runs, so that it isn't asked and paid again.",
    "reuse.documents": "Document by document: a changed list pays for new documents; false: same requests only.",
    "reuse.max_age": "Answers older than this are asked again: 30d, 12h, 2w; default: however old.",
    "reuse.audit": "Among so many queries, one small old request is asked again, to notice a changed model; 0: none.",
    "limits": "What one request may hold; default: the model's limits.",
    "limits.documents": "Documents in one request.",
    "limits.request_tokens": "Tokens in one request: query tokens x documents + document tokens.",
    "limits.item_tokens": "Tokens after which the API cuts a query or a document.",
    "limits.item_characters": "Characters after which the API refuses an item: a longer one is cut before it is sent.",
    "limits.body_bytes": "The largest request body in bytes.",
    "limits.long_documents": "Beyond item_tokens: truncate (the API cuts), split (ranked by the best passage), error.",
    "limits.passage_overlap": "With split: tokens that neighbouring passages share.",
    "limits.overhead_tokens": "Tokens billed per document on top of query, instruct and document.",
    "limits.headroom": "The part of request_tokens that is kept free.",
    "tokenizer": "auto (the model's own, else an estimate or bytes), qwen, bytes, or a tokenizer's file.",
    "rate": "How fast requests are sent; default: the model's quota.",
    "rate.rpm": "Requests a minute that the account may send.",
    "rate.tpm": "Tokens a minute that the account may send.",
    "rate.share": "The part of the quota that this process may use, where several share it: 0.25, or 1/4.",
    "rate.account": "A name: jobs of this user and machine that say it share the quota; each has what others leave.",
    "rate.concurrency": "Requests in flight; auto follows the latency.",
    "retry": "How often one request is tried, and for how long.",
    "retry.attempts": "Tries per request; being throttled doesn't count.",
    "retry.max_delay": "The longest pause between two tries, seconds.",
    "retry.outage": "Stop, to be continued later, after so many seconds without any success.",
    "budget": "What may be spent; checked before every request.",
    "budget.max_cost": "In the currency of the model's price.",
    "budget.max_tokens": "In tokens.",
    "budget.max_requests": "In requests that were answered, or may have been billed.",
    "budget.per": "What the caps hold for: run (one input and its settings), day (UTC), total (all the ledger paid).",
    "failures": "What may fail.",
    "failures.max_queries": "Stop the run once more queries than this have failed.",
    "gate": "Compare the rankings with those of the last run that passed; past a threshold the exit code is 5.",
    "gate.against": "Another job's output folder to compare with; default: this one's last run that passed.",
    "gate.depth": "Documents of each query that are compared.",
    "gate.persistence": "The p of rank-biased overlap: the higher, the more lower ranks count.",
    "gate.min_rbo": "The least mean rank-biased overlap, 0 to 1; null for none.",
    "gate.min_tau": "The least mean Kendall's tau, -1 to 1.",
    "gate.qrels": "Judgements, for min_ndcg and max_ndcg_drop.",
    "gate.min_ndcg": "The least nDCG at the depth.",
    "gate.max_ndcg_drop": "The most that nDCG may fall, as a difference.",
    "on": "Whom to tell of a run's end: a command gets the summary on stdin, an http(s) address by POST.",
    "on.complete": "After a complete run, if some queries failed too: a command, a list of its words, or an address.",
    "on.failed": "After a run that is not complete, whatever cut it short.",
    "on.gate": "After a complete run that did not pass its gate.",
    "engine": "The processes that do the work; rankings don't depend on them.",
    "engine.processes": "Processes of this machine that rank; 1: one does it all; auto: all processors but one.",
    "engine.ray": "Machines of a Ray cluster instead.",
    "engine.ray.address": "The cluster: auto for the one this machine is part of, or as ray.init takes it.",
    "engine.ray.workers": "Processes that rank; auto: one a machine at first, then as many as bring more.",
    "engine.ray.cpus": "Processors that each of them takes.",
    "engine.ray.memory": "Memory that each of them takes, such as 700MiB.",
    "output": "Where rankings go.",
    "output.path": 'A folder, an address (s3://bucket/folder), or "-" for JSON lines on standard output; {date} (UTC) '
    "and {name} may stand in it.",
    "output.format": "parquet, jsonl, or a format of the field: trec, rank_llm, mteb, msmarco.",
    "output.top_n": "Write only the first N documents of each query.",
    "output.texts": "Write the documents' texts beside their ids, and the queries' (parquet, jsonl; rank_llm always "
    "does).",
    "output.part_documents": "A part, with files of its own, ends with the query that brings it to so many documents "
    "of the input.",
    "ledger": "The file of all paid answers; name another job's to reuse them. Default: ledger.sqlite in output.path; "
    "for standard output, an address or {date} in it NAME.ledger.sqlite beside the job file.",
}


def sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a key's value may be."""
    options = get_args(annotation) or (annotation,)
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def key_names(model: type[BaseModel] = Job, at: str = "") -> Iterator[str]:
    """The dotted names of all keys, sections before what is in them; what a mapping may hold instead is left out."""
    for name, field in model.model_fields.items():
        yield at + name
        for section in sections(field.annotation):
            if section.__name__ not in ("Workspace", "Sample"):
                yield from key_names(section, f"{at}{name}.")


DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MAPPING_ONLY = {"base", "price"}
_ONE_OR_MANY = (("Input", "path"), ("Input", "corpus"), ("Input", "queries"), ("Gate", "qrels"))


def job_schema() -> dict[str, Any]:
    """The schema of job files, in YAML or TOML.

    What pydantic's own schema says of ``Job`` is made to fit files: ``input`` and ``endpoint`` may be a path and an
    address, a path may be one string, a column a number, a
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
    definitions["Input"]["properties"]["sample"]["anyOf"][:0] = [
        {"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\d+(\.\d+)?%$"}
    ]  # fmt: skip
    for column in definitions["Columns"]["properties"].values():
        column["anyOf"].insert(1, {"type": "integer", "minimum": 1})
    schema["required"] = ["input", "model", "output"]
    for name in ("input", "output"):
        properties[name] = properties[name]["anyOf"][0]
    texts = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    properties["input"] = {"anyOf": [{"type": "string"}, texts, properties["input"]]}
    properties["endpoint"] = {"anyOf": [{"type": "string"}, properties["endpoint"]]}
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
