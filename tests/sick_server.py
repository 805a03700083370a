"""Servers whose true order, bill and faults the test decides, and jobs that ask them."""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from jobs import make_job, rankings, write_jsonl

from batchrank.job.load import load_job

PROBE = "copy a file"
PATHS = {"dashscope": "/compatible-api/v1/reranks"}


def relevance(query: str, text: str) -> float:
    return random.Random(query + "|" + text).gauss()


@dataclass
class Api:
    """``fate(query, docs, n)`` gives None (answer well) or a response; scores are relative to the request."""

    fate: Callable[[str, list[str], int], Any] = lambda q, d, n: None
    relative: bool = True
    latency: float = 0.05
    usage: Callable[[str, list[str]], Any] | None = None
    wire: str = "dashscope"
    asked: list[tuple[str, tuple[str, ...], int]] = field(default_factory=list)
    seen: dict[Any, int] = field(default_factory=dict)
    billed: int = 0
    url: str = ""
    base: str = ""
    flight: int = 0

    def tokens(self, q: str, docs: list[str]) -> int:
        return sum(len(q.encode()) + len(t.encode()) for t in docs)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        q = body["query"]
        docs = body.get("documents") or body.get("texts")
        key = (q, tuple(docs))
        n = self.seen[key] = self.seen.get(key, 0) + 1
        fault: web.Response | None = self.fate(q, docs, n)
        await asyncio.sleep(self.latency)
        status = 200 if fault is None else fault.status
        self.asked.append((q, tuple(docs), status))
        if fault is not None:
            if getattr(fault, "billed", False):
                self.billed += self.tokens(q, docs)
            return fault
        self.billed += self.tokens(q, docs)
        rng = random.Random(repr(key))
        slope, shift = (rng.uniform(0.5, 2), rng.gauss()) if self.relative else (1.0, 0.0)
        results = [
            {"index": i, "relevance_score": 1 / (1 + math.exp(-slope * relevance(q, t) - shift))}
            for i, t in enumerate(docs)
        ]
        answer: dict[str, Any] = {"results": results}
        if self.usage is None:
            answer["usage"] = {"total_tokens": self.tokens(q, docs)}
        else:
            answer |= self.usage(q, docs)
        return web.json_response(answer)

    def of(self, q: str) -> list[Any]:
        return [a for a in self.asked if a[0] == q]


def reply(
    status: int, data: Any = None, *, text: str | None = None, billed: bool = False, headers: Any = None
) -> Any:
    if text is not None:
        r = web.Response(status=status, text=text, content_type="text/html", headers=headers)
    else:
        r = web.json_response(data, status=status, headers=headers)
    r.billed = billed  # type: ignore[attr-defined]
    return r


@asynccontextmanager
async def serving(api: Api) -> AsyncIterator[Api]:
    app = web.Application(client_max_size=2**28)
    app.router.add_post("/{tail:.*}", api.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        api.url = api.base + PATHS["dashscope"]
        yield api
    finally:
        await runner.cleanup()


def job_for(folder: Path, data: Any, api: Api, out: str = "out", **sections: Any) -> Any:
    (folder / "key").write_text("sk-test")
    endpoint = {"url": api.url, "api_key_file": str(folder / "key"), **sections.pop("endpoint", {})}
    path = write_jsonl(folder / "in.jsonl", data)
    model = sections.pop("model", None)
    job = make_job(folder, path, out=out, endpoint=endpoint, **sections)
    if model is None:
        return job
    file = folder / f"{out}.yaml"
    file.write_bytes(orjson.dumps(orjson.loads(file.read_bytes()) | {"model": model}))
    return load_job(file, environ={})


def true_order(row: Any) -> list[str]:
    return [c["id"] for c in sorted(row["candidates"], key=lambda c: -relevance(row["query"], c["text"]))]


def wrong(job: Any, data: Any, k: int, lost: set[str] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]
    """Queries whose top k isn't the true one."""
    got = {r["query_id"]: [e["doc_id"] for e in r["ranking"]] for r in rankings(job)}
    out = {}
    for row in data:
        want = [i for i in true_order(row) if i not in lost][:k]
        have = got.get(row["query_id"], [])[:k]
        if want != have:
            out[row["query_id"]] = (want, have)
    return out
