"""A job on two nights through the emulator, end to end: what reuse of earlier answers asks, costs and proves.

A part of ``benchmarks/reuse.py``. Scores are relative to their request, as the real API's.
"""

import asyncio
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np
import orjson

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from jobs import make_job, rankings, rows, run, text, write_jsonl

from batchrank.emulator.app import Emulator
from batchrank.emulator.relevance import relevances
from batchrank.emulator.settings import Settings

NEW = 0.02
"""The share of each list that is new on the second night."""


async def two_runs(folder: Path, queries: int, n: int, limit: int, k: int) -> list[str]:
    """A job on two nights; documents and tokens as the emulator counted them."""
    rng, lines, data, path = np.random.default_rng(0), [], rows(queries, n), folder / "in.jsonl"
    (folder / "key").write_text("sk-benchmark")
    async with Emulator(
        Settings(scores="relative", tokenizer="bytes", rpm=math.inf, tpm=math.inf)
    ) as emulator:
        counts, limits, quota = emulator.counts, {"documents": limit}, {"rpm": 10**6, "tpm": 10**9}
        endpoint = {"url": f"{emulator.url}/compatible-api/v1/reranks", "api_key_file": str(folder / "key")}
        for night in (1, 2):
            write_jsonl(path, data if night == 1 else (tonight(row, rng) for row in data))
            job = make_job(folder, path, endpoint=endpoint, limits=limits, merge={"top_k": k}, rate=quota)
            documents, tokens, requests = counts.documents, counts.tokens, emulator.requests
            report = (await run(job)).data
            assert report["exit_code"] == 0, report["reason"]
            totals, asked = report["totals"], (counts.documents - documents) / queries / n
            true = exact(path, rankings(job), k)
            lines.append(f"{limit} | {k} | {night} | {asked:.3f} | {emulator.requests - requests:,} | ")
            lines[-1] += (
                f"{counts.tokens - tokens:,} | {report['spend']['saved_tokens']:,} | {totals['reused']:,} | "
            )
            lines[-1] += f"{true} of {queries} | {totals['certified']} of {queries}"
    return lines


def tonight(row: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A query's list with a share of new documents, in another order, under other ids."""
    old, fresh = row["candidates"], 10**6
    texts = [one["text"] for one in old]
    for i in rng.choice(len(old), round(NEW * len(old)), replace=False).tolist():
        texts[i] = text(fresh + i)
    order = enumerate(rng.permutation(len(old)).tolist())
    return {**row, "candidates": [{"id": f"n{i}", "text": texts[i], "score": -float(at)} for at, i in order]}


def exact(path: Path, found: Sequence[dict[str, Any]], k: int) -> int:
    """How many rankings have the true top k, by the emulator's own relevance."""
    right = 0
    for line, row in zip(path.read_bytes().splitlines(), found, strict=True):
        asked = orjson.loads(line)
        listed = asked["candidates"]
        best = np.argsort(-relevances(asked["query"], [one["text"] for one in listed]))[:k].tolist()
        right += [one["doc_id"] for one in row["ranking"][:k]] == [listed[i]["id"] for i in best]
    return right


def through_emulator(queries: int, n: int) -> tuple[str, str, list[str]]:
    """A table: title, head and rows, whose cells are joined by `` | ``."""
    lines = []
    for limit, k in ((500, 10), (500, 100), (100, 10)):
        with common.folder() as folder:
            lines += asyncio.run(two_runs(folder, queries, n, limit, k))
    head = (
        "documents a request | k | night | asked (x n) | requests | tokens billed | tokens saved | reused | "
    )
    title = f"Two runs through the emulator, {queries} queries of {n} documents, {NEW:.0%} new"
    return title, head + "top k exact | certified", lines
