"""Lists beyond one request, through the whole pipeline: the emulator's own order is the truth."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from jobs import make_job, rankings, run, write_jsonl

from batchrank.demo import corpus
from batchrank.emulator.app import Emulator
from batchrank.emulator.relevance import relevance
from batchrank.emulator.settings import Settings
from batchrank.job.config import Job

pytestmark = pytest.mark.anyio
QUERY = "remove every file in a directory and its subdirectories"
TOP = 100


def candidates(count: int) -> list[dict[str, str]]:
    """Real docstrings, as often as it takes, each made unique so that no two are equally relevant."""
    documents = corpus()
    return [
        {"id": f"d{i}", "text": f"{str(documents[i % len(documents)].text)[:300]} {i // len(documents)} {i}"}
        for i in range(count)
    ]


def true_order(documents: list[dict[str, str]], query: str = QUERY) -> list[str]:
    return [d["id"] for d in sorted(documents, key=lambda d: -relevance(query, d["text"]))]


def job(folder: Path, data: list[dict[str, Any]], url: str = "emulator", method: str = "hub") -> Job:
    (folder / "key").write_text("any")
    endpoint = {"url": url} if url == "emulator" else {"url": url, "api_key_file": str(folder / "key")}
    return make_job(
        folder,
        write_jsonl(folder / "in.jsonl", data),
        out=method,
        endpoint=endpoint,
        limits={"documents": 500},
        merge={"method": method, "top_k": TOP},
        tokenizer="qwen",
    )


@pytest.mark.parametrize("count", [600, 2_000, 10_000])
async def test_hub_gives_the_apis_own_top_and_raw_does_not(tmp_path: Path, count: int) -> None:
    """Scores are relative to each request; the hub's top 100 is the emulator's own, and certified."""
    documents = candidates(count)
    data = [{"query_id": "q", "query": QUERY, "candidates": documents}]
    truth = true_order(documents)[:TOP]
    hub, raw = job(tmp_path, data), job(tmp_path, data, method="raw")
    await run(hub)
    row = rankings(hub)[0]
    assert [e["doc_id"] for e in row["ranking"][:TOP]] == truth
    assert row["merge"]["certified"] >= TOP
    assert row["merge"]["verdict"] == "relative"
    await run(raw)
    assert [e["doc_id"] for e in rankings(raw)[0]["ranking"][:TOP]] != truth


async def test_absolute_scores_skip_the_hub(tmp_path: Path) -> None:
    """The cost is one pass plus the first query's probe; every ranking is the API's own, to the end."""
    documents = candidates(1_200)
    data = [{"query_id": f"q{i}", "query": f"{QUERY} {i}", "candidates": documents} for i in range(4)]
    async with Emulator(Settings(scores="absolute")) as emulator:
        done = job(tmp_path, data, f"{emulator.url}/compatible-api/v1/reranks")
        report = await run(done)
        assert emulator.counts.documents == 4 * 1_200 + 12
    totals = report.data["totals"]
    assert totals["verdicts"] == {"absolute": 4}
    assert totals["sent"] - totals["one_pass"] == 12
    for row in rankings(done):
        assert [e["doc_id"] for e in row["ranking"]] == true_order(
            documents, f"{QUERY} {row['query_id'][1:]}"
        )


async def test_a_model_that_turns_relative_is_caught(tmp_path: Path) -> None:
    """raw on relative scores is said to be wrong, loudly, in the summary."""
    data = [{"query_id": "q", "query": QUERY, "candidates": candidates(600)}]
    report = await run(job(tmp_path, data, method="raw"))
    assert any("WRONG" in notice for notice in report.data["notices"])


async def test_a_card_that_declares_its_scores_pays_for_no_probe(tmp_path: Path) -> None:
    """absolute: raw at once; relative: a hub at once."""
    documents = candidates(600)
    data = [{"query_id": "q", "query": QUERY, "candidates": documents}]
    async with Emulator(Settings(scores="absolute")) as emulator:
        done = job(tmp_path, data, f"{emulator.url}/compatible-api/v1/reranks")
        declared = Job.model_validate(
            done.model_dump() | {"model": {"base": "qwen3-rerank", "scores": "absolute"}}
        )
        await run(declared)
        assert emulator.counts.documents == 600
    assert [e["doc_id"] for e in rankings(declared)[0]["ranking"]] == true_order(documents)


async def test_unfinished_queries_stay_few(tmp_path: Path) -> None:
    """Second rounds overtake newer queries' first rounds: queries are finished nearly in the order they came."""
    documents = candidates(600)
    data = [{"query_id": f"q{i}", "query": f"{QUERY} {i}", "candidates": documents} for i in range(12)]
    async with Emulator(Settings(scores="relative", latency=0.2, rpm=600), keep=True) as emulator:
        done = job(tmp_path, data, f"{emulator.url}/compatible-api/v1/reranks")
        limited = Job.model_validate(done.model_dump() | {"rate": {"rpm": 600}})
        await run(limited)
        order = [int(orjson.loads(request.body)["query"].split()[-1]) for request in emulator.received]
    first = {number: order.index(number) for number in range(12)}
    last = {number: len(order) - 1 - order[::-1].index(number) for number in range(12)}
    overlapping = max(sum(first[b] <= last[a] <= last[b] for b in range(12)) for a in range(12))
    assert overlapping <= 5
