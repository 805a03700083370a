"""A server that answers each set of documents by a random but fixed rule, as sick ones do, and keeps its bill."""

import asyncio
import hashlib
import math
import os
import random
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import commands
import orjson
import pytest
from aiohttp import web
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from jobs import failed, make_job, outputs, rankings, rows, run, write_jsonl
from virtual_time import VirtualTimeLoop

from batchrank.job.config import Job

FATES = ["ok", "500", "malformed", "refused", "blocked", "rejected"]
PROBE, HARMLESS = "copy a file", frozenset(["Copy a file from one folder to another."])
Test = Callable[[dict[str, int], int, int, int, int, int], None]
_PAGE = "<html><head><title>403 Forbidden</title></head><body>The request was blocked.</body></html>"


@dataclass
class Server:
    """Each set of documents has a fate, drawn from the weights; what was computed is billed, answered or not.

    What holds more documents, or more characters, than the server takes is too large.
    """

    weights: dict[str, int]
    seed: int
    most: int = 500
    characters: int = 10**6
    asked: list[tuple[str, frozenset[str], str]] = field(default_factory=list)
    billed: int = 0
    paid: int = 0  # but for probes

    def fate(self, query: str, documents: frozenset[str]) -> str:
        if documents == HARMLESS and query != PROBE:
            return "ok"  # no query is to blame
        if len(documents) > self.most or sum(map(len, documents)) > self.characters:
            return "too large"
        text = f"{self.seed}|{query}|{sorted(documents)}"
        rng = random.Random(hashlib.sha256(text.encode()).digest())
        return rng.choices(list(self.weights), list(self.weights.values()))[0]

    async def handle(self, request: web.Request) -> web.Response:
        asked = await request.json()
        query, documents = asked["query"], asked["documents"]
        fate = self.fate(query, frozenset(documents))
        self.asked.append((query, frozenset(documents), fate))
        await asyncio.sleep(0.05)
        tokens = sum(len(query) + len(text) for text in documents)
        if fate in ("ok", "500", "malformed"):
            self.billed += tokens
            self.paid += tokens * (query != PROBE)
        if fate == "500":
            return web.json_response({"code": "InternalError", "message": "inference failed"}, status=500)
        if fate == "too large":
            return web.json_response({"message": "Payload Too Large"}, status=413)
        if fate == "refused":
            error = {"code": "DataInspectionFailed", "message": "inappropriate content"}
            return web.json_response(error, status=400)
        if fate == "rejected":
            return web.json_response({"code": "InvalidParameter", "message": "body invalid"}, status=400)
        if fate == "blocked":
            return web.Response(text=_PAGE, status=403, content_type="text/html")
        return web.json_response(
            {"results": self._results(query, documents, fate), "usage": {"total_tokens": tokens}}
        )

    def _results(self, query: str, documents: list[str], fate: str) -> list[dict[str, Any]]:
        """Scores that can't be compared across requests; null for one of them in a malformed answer."""
        rng = random.Random(repr((query, documents)))
        slope, shift = rng.uniform(0.5, 2), rng.gauss()
        found: list[dict[str, Any]] = []
        for index, text in enumerate(documents):
            relevance = random.Random(query + text).gauss()
            found.append({"index": index, "relevance_score": 1 / (1 + math.exp(-slope * relevance - shift))})
        if fate == "malformed":
            found[0]["relevance_score"] = None
        return found


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/compatible-api/v1/reranks", server.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/compatible-api/v1/reranks"
    finally:
        await runner.cleanup()


def job_for(folder: Path, data: list[dict[str, Any]], url: str, **sections: Any) -> Job:
    (folder / "key").write_text("sk-test")
    endpoint = {"url": url, "api_key_file": str(folder / "key")}
    path = write_jsonl(folder / "in.jsonl", data)
    return make_job(folder, path, limits={"documents": 8}, endpoint=endpoint, **sections)


def judge(server: Server, data: list[dict[str, Any]], job: Job) -> None:
    """Everything that an accepted request could hold is ranked; nothing else has a score; all is told."""
    accepted: dict[str, set[str]] = {}
    for query, documents, fate in server.asked:
        if fate == "ok":
            accepted.setdefault(query, set()).update(documents - HARMLESS)
    ranked = {row["query_id"]: row["ranking"] for row in rankings(job)}
    letters = failed(job)
    for row in data:
        texts = {c["id"]: c["text"] for c in row["candidates"]}
        alone = {i for i, text in texts.items() if server.fate(row["query"], frozenset([text])) == "ok"}
        if row["query_id"] not in ranked:
            assert not accepted.get(row["query"]) and not alone
            assert row["query_id"] in {letter["query_id"] for letter in letters}
            continue
        entries = ranked[row["query_id"]]
        scored = {e["doc_id"] for e in entries if e["score"] is not None}
        assert {e["doc_id"] for e in entries} == set(texts)
        assert alone <= scored
        assert {texts[i] for i in scored} <= accepted[row["query"]]
        lost = {
            letter["message"].split("'")[1] for letter in letters if letter["query_id"] == row["query_id"]
        }
        assert lost == set(texts) - scored


async def _run(folder: Path, server: Server, data: list[dict[str, Any]]) -> None:
    async with serving(server) as url:
        job = job_for(folder, data, url)
        started = anyio.current_time()
        report = await run(job)
        if report.exit_code in (1, 75):  # the first few requests, and a harmless one, all failed
            said = "has taken no request so far" if report.exit_code == 1 else "no request has succeeded"
            assert said in str(report.reason)
            assert not any(fate == "ok" for _, _, fate in server.asked)
            return
        assert report.exit_code in (0, 3), report.reason
        assert anyio.current_time() - started < 240
        judge(server, data, job)
        spend = report.data["spend"]
        assert server.billed <= spend["tokens"]
        sent, paid, before = len(server.asked), server.paid, outputs(job)
        again = await run(job)
        # What was too large may be asked again, as that costs nothing and a limit may have been raised; nothing else.
        assert {fate for query, _, fate in server.asked[sent:] if query != PROBE} <= {"too large"}
        assert (again.exit_code, server.paid, outputs(job)) == (report.exit_code, paid, before)


def in_virtual_time(work: Any) -> None:
    loop = VirtualTimeLoop()
    try:
        loop.run_until_complete(work)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def whatever(most_examples: int) -> Callable[[Test], Test]:
    """Servers of all kinds, so many of them, and lists for them."""

    def decorated(test: Test) -> Test:
        others = {fate: st.integers(0, 4) for fate in FATES[1:]}
        worlds = given(
            weights=st.fixed_dictionaries(others).map(lambda drawn: {"ok": 6, **drawn}),
            seed=st.integers(0, 10**6),
            most=st.integers(1, 16),
            characters=st.integers(60, 800),
            queries=st.integers(1, 12),
            documents=st.integers(1, 22),
        )(test)
        first = example(
            weights=dict.fromkeys(FATES, 1), seed=0, most=5, characters=400, queries=4, documents=20
        )
        found: Test = settings(
            max_examples=most_examples,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        )(first(worlds))
        return found

    return decorated


def check_world(
    weights: dict[str, int], seed: int, most: int, characters: int, queries: int, documents: int
) -> None:
    """Ranked: whatever an accepted request could hold. Spend never below the server's bill. A rerun sends nothing."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(weights, seed, most, characters)
        in_virtual_time(_run(Path(folder), server, rows(queries, documents)))


@whatever(4)
def test_whatever_a_server_does_the_run_ends_and_loses_only_what_must_be(
    weights: dict[str, int], seed: int, most: int, characters: int, queries: int, documents: int
) -> None:
    """As ``check_world`` says, for a few servers."""
    check_world(weights, seed, most, characters, queries, documents)


@pytest.mark.slow
@whatever(20)
def test_many_servers_that_do_whatever_they_like(
    weights: dict[str, int], seed: int, most: int, characters: int, queries: int, documents: int
) -> None:
    """The same for many."""
    check_world(weights, seed, most, characters, queries, documents)


async def _process(job: Path, server: Server, kill_after: int | None) -> int | None:
    """Run a job in a process of its own; killed once so many requests have come in, if that is wanted."""
    runner = (
        "import sys, anyio\nfrom batchrank.job.load import load_job\nfrom batchrank.launch import run\n"
        "sys.exit(anyio.run(run, load_job(sys.argv[1])).exit_code)"
    )
    process = commands.Process(runner, str(job), cwd=job.parent, environ=os.environ)
    until = len(server.asked) + (kill_after or 0)
    ended = asyncio.create_task(process.communicate())
    while kill_after and not ended.done() and len(server.asked) < until:
        await asyncio.wait([ended], timeout=0.001)
    if kill_after and not ended.done():
        process.kill()
    await ended
    return process.returncode


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.real_clock
async def test_processes_killed_among_failures_change_nothing(tmp_path: Path) -> None:
    """Three kills at random moments end with the output of a run that was not killed, and the bill is all counted."""
    weights = {"ok": 12, "500": 1, "malformed": 1, "refused": 1, "blocked": 1, "rejected": 1}
    server, rng, data = Server(weights, 5, most=6, characters=600), random.Random(3), rows(14, 15)
    quick: dict[str, Any] = {"retry": {"max_delay": 0.05}, "rate": {"rpm": 600_000, "tpm": 10**12}}
    quick["output"] = {"part_documents": 60}
    async with serving(server) as url:
        whole = job_for(tmp_path, data, url, out="whole", **quick)
        assert await _process(tmp_path / "whole.yaml", server, None) == 3
        before = server.billed
        cut = job_for(tmp_path, data, url, out="cut", **quick)
        for _ in range(3):
            assert await _process(tmp_path / "cut.yaml", server, rng.randint(20, 150)) == -9
        assert await _process(tmp_path / "cut.yaml", server, None) == 3
    assert outputs(cut) == outputs(whole)
    assert [(x["query_id"], x["cause"]) for x in failed(cut)] == [
        (x["query_id"], x["cause"]) for x in failed(whole)
    ]
    judge(server, data, cut)
    spend = orjson.loads((tmp_path / "cut" / "summary.json").read_bytes())["spend"]
    assert server.billed - before <= spend["tokens"]
