"""What a run depends on: every key of a job, unless it is listed as harmless."""

from typing import Any

import orjson
import pytest

from batchrank.job.config import Job
from batchrank.pipeline.earlier import HARMLESS, identity, leaves

BASE: dict[str, Any] = {
    "model": "qwen3-rerank",
    "input": {"path": "in.jsonl"},
    "output": {"path": "out"},
    "gate": {},
    "image_root": "images",
}
OTHERS: dict[str, Any] = {
    "reuse.documents": False,
    "reuse.max_age": "30d",
    "reuse.audit": 10,
    "name": "other", "input.path": "other.jsonl", "input.format": "jsonl", "input.corpus": "corpus.jsonl",
    "input.queries": "queries.tsv", "input.split": "dev", "input.subset": "en", "input.sort": True, "input.limit": 5,
    "model": "gte-rerank-v2", "endpoint.url": "http://127.0.0.1:9/rerank", "endpoint.wire": "cohere",
    "endpoint.identity": "other",
    "endpoint.urls": ["http://127.0.0.1:9/rerank", "http://127.0.0.1:10/rerank"],
    "endpoint.region": "singapore", "endpoint.api_key_env": ["OTHER_KEY"], "endpoint.api_key_file": "key",
    "endpoint.auth": "api-key", "endpoint.headers": {"x-model": "canary-header"},
    "endpoint.body": {"token": "canary-body"}, "endpoint.template.query": "Q {query}",
    "endpoint.template.document": "D {document}", "endpoint.proxy": "none", "endpoint.ca_file": "ca.pem",
    "endpoint.client_cert": "cert.pem", "endpoint.client_key": "key.pem", "endpoint.timeout": 5,
    "instruct": "Rank by relevance.", "fps": 0.5, "image_root": "others", "merge.method": "full", "merge.top_k": 5,
    "limits.documents": 7, "limits.request_tokens": 5_000, "limits.item_tokens": 300, "limits.item_characters": 900,
    "limits.body_bytes": 9_000, "limits.long_documents": "split", "limits.passage_overlap": 3,
    "limits.overhead_tokens": 3, "limits.headroom": 0.1, "tokenizer": "bytes", "rate.rpm": 5, "rate.tpm": 5_000,
    "rate.share": "1/4", "rate.account": "a", "rate.concurrency": 3,
    "retry.attempts": 2, "retry.max_delay": 5, "retry.outage": 5,
    "budget.max_cost": 3, "budget.max_tokens": 5, "budget.max_requests": 5, "budget.per": "day",
    "failures.max_queries": 5, "gate.against": "other", "gate.depth": 5, "gate.persistence": 0.5, "gate.min_rbo": 0.1,
    "gate.min_tau": 0.1, "gate.qrels": "qrels.txt", "gate.min_ndcg": 0.1, "gate.max_ndcg_drop": 0.1,
    "input.sample": 2, "on.complete": "true", "on.failed": ["true"], "on.gate": "http://127.0.0.1:9/hook",
    "input.order": "-priority",
    "output.path": "elsewhere", "output.format": "jsonl", "output.top_n": 5, "output.texts": True,
    "output.part_documents": 5,
    "ledger": "other.sqlite",
    "engine.processes": 3, "engine.ray.address": "local", "engine.ray.workers": 2, "engine.ray.cpus": 2,
    "engine.ray.memory": "1GiB",
    **{f"input.columns.{name}": "column" for name in (
        "query_id", "query", "candidates", "doc_id", "text", "score", "image", "video",
    )},
}  # fmt: skip
"""Another value for each key."""
NEEDED: dict[str, dict[str, Any]] = {
    "endpoint.wire": {"endpoint.url": "http://127.0.0.1:9/rerank"},
    "endpoint.urls": {"endpoint.urls": ["http://127.0.0.1:11/rerank"]},
    "endpoint.client_key": {"endpoint.client_cert": "cert.pem"},
    "fps": {"model": "qwen3-vl-rerank"},
    "gate.min_ndcg": {"gate.qrels": "qrels.txt"},
    "gate.max_ndcg_drop": {"gate.qrels": "qrels.txt"},
    "limits.passage_overlap": {"limits.long_documents": "split"},
}
"""Keys that another key has to be set for."""


def job(**keys: Any) -> Job:
    data: dict[str, Any] = orjson.loads(orjson.dumps(BASE))
    for name, value in keys.items():
        *parents, last = name.split(".")
        place = data
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return Job.model_validate(data)


def test_every_key_is_thought_of() -> None:
    """Who adds a key adds another value here, and a reason where it can't change a ranking."""
    assert set(OTHERS) == set(leaves())
    assert HARMLESS.keys() <= set(leaves()) and all(HARMLESS.values())


@pytest.mark.parametrize("key", sorted(OTHERS))
def test_another_value_is_another_run_unless_it_is_harmless(key: str) -> None:
    """Two settings never meet in one output; another key or a higher cap doesn't make all parts anew."""
    needed = NEEDED.get(key, {})
    before, after = (
        identity(job(**needed), "bytes"),
        identity(job(**{**needed, key: OTHERS[key]}), "bytes"),
    )
    assert (before == after) == (key in HARMLESS and key != "model")


def test_no_secret_is_in_it() -> None:
    """What a key or a password may stand in is told apart by its fingerprint."""
    url = "http://127.0.0.1:9/rerank?key=canary-query"
    known = identity(
        job(**{"endpoint.url": url, **{key: OTHERS[key] for key in ("endpoint.headers", "endpoint.body")}}),
        "bytes",
    )
    assert "canary" not in str(known)
