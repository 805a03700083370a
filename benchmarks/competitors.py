"""The same work by each peer, in its own documented way; ``peers.py`` measures them.

Each function gets what loads the rows (query and candidates), the server's URL and, where there is one, the quota in
requests a second; it prepares the peer and returns what does the work. batchrank reads its input as part of the work.
"""

import asyncio
import json
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

FLIGHT = 16

Row = dict[str, Any]
Load = Callable[[], list[Row]]


def bare(load: Load, url: str, rps: float | None) -> Callable[[], Awaitable[Any]]:
    """An aiohttp loop with nothing around it; it has no notion of a quota."""
    import aiohttp
    import orjson

    rows = load()

    async def work() -> None:
        items = iter(rows)
        async with aiohttp.ClientSession() as session:

            async def worker() -> None:
                for row in items:
                    body = orjson.dumps(_body(row))
                    async with session.post(
                        url, data=body, headers={"Content-Type": "application/json"}
                    ) as answer:
                        orjson.loads(await answer.read())

            await asyncio.gather(*(worker() for _ in range(FLIGHT)))

    return work


def batchrank(load: Load, url: str, rps: float | None) -> Callable[[], Awaitable[Any]]:
    """The whole pipeline, from Parquet to Parquet."""
    from batchrank import load_job, run

    path = Path(os.environ["BENCH_JOB"])
    overrides = [f"rate.rpm={rps * 60}"] if rps else [f"rate.concurrency={FLIGHT}"]
    job = load_job(path, overrides=overrides)

    async def work() -> None:
        report = await run(job)
        assert report.exit_code == 0, report.reason

    return work


def pyarallel(load: Load, url: str, rps: float | None) -> Callable[[], Awaitable[Any]]:
    """The README's async example: httpx, a Limiter, Retry.for_http, a checkpoint."""
    import httpx
    from pyarallel import (  # type: ignore[import-not-found,unused-ignore]
        Limiter,
        RateLimit,
        Retry,
        async_parallel_map,
    )

    rows = load()

    async def work() -> None:
        limiter = Limiter(RateLimit(rps, "second")) if rps else None
        async with httpx.AsyncClient(timeout=60) as client:

            async def fetch(row: Row) -> Any:
                response = await client.post(url, json=_body(row))
                response.raise_for_status()
                return response.json()

            result = await async_parallel_map(
                fetch, rows, concurrency=FLIGHT, rate_limit=limiter,
                retry=Retry.for_http(on=(httpx.HTTPStatusError,)), max_errors=20,
                checkpoint=str(Path(tempfile.mkdtemp()) / "fetch.ckpt"), checkpoint_version="1",
            )  # fmt: skip
            assert result.ok

    return work


def async_batch_llm(load: Load, url: str, rps: float | None) -> Callable[[], Awaitable[Any]]:
    """The README's CallableStrategy around httpx, streaming."""
    import httpx
    from async_batch_llm import (  # type: ignore[import-not-found,unused-ignore]
        ArtifactIdentity,
        CallableStrategy,
        CallOutcome,
        ProcessorConfig,
        process_stream,
    )

    rows = load()

    async def work() -> None:
        async with httpx.AsyncClient(timeout=60) as client:

            async def invoke(prompt: str, *, attempt: Any, timeout: Any, state: Any) -> Any:  # noqa: ASYNC109 their way
                response = await client.post(
                    url, content=prompt, headers={"Content-Type": "application/json"}
                )
                response.raise_for_status()
                answer = response.json()
                tokens = answer["usage"]["total_tokens"]
                usage = {"input_tokens": tokens, "output_tokens": 0, "total_tokens": tokens}
                return CallOutcome(answer["results"], token_usage=usage)

            identity = ArtifactIdentity(provider="server", model="rerank")
            extra = {"max_requests_per_minute": rps * 60} if rps else {}
            config = ProcessorConfig(
                concurrency=FLIGHT, max_queue_size=128, max_result_queue_size=64, **extra
            )
            prompts = ((row["query_id"], json.dumps(_body(row))) for row in rows)
            done = 0
            async for result in process_stream(
                CallableStrategy(invoke, identity=identity), prompts, config=config
            ):
                done += bool(result.success)
            assert done == len(rows), done

    return work


def litellm(load: Load, url: str, rps: float | None) -> Callable[[], Awaitable[Any]]:
    """Its Router with arerank; a quota is the deployment's rpm."""
    from litellm import Router  # type: ignore[import-not-found,unused-ignore]

    rows = load()
    parameters: Row = {"model": "jina_ai/rerank", "api_base": url, "api_key": "none"}
    if rps:
        parameters["rpm"] = int(rps * 60)
    router = Router(model_list=[{"model_name": "rerank", "litellm_params": parameters}], num_retries=5)
    lock = asyncio.Semaphore(FLIGHT)

    async def one(row: Row) -> None:
        async with lock:
            documents = [c["text"] for c in row["candidates"]]
            await router.arerank(model="rerank", query=row["query"], documents=documents)

    async def work() -> None:
        await asyncio.gather(*(one(row) for row in rows))

    return work


def rerankers(load: Load, url: str, rps: float | None) -> Callable[[], Awaitable[Any]]:
    """Its APIRanker in a pool of threads, as it is synchronous; it has no notion of a quota."""
    from concurrent.futures import ThreadPoolExecutor

    from rerankers.models.api_rankers import APIRanker  # type: ignore[import-not-found,unused-ignore]

    rows = load()
    ranker = APIRanker("rerank", "none", "cohere", verbose=0, url=url)

    def one(row: Row) -> Any:
        return ranker.rank(row["query"], [c["text"] for c in row["candidates"]])

    async def work() -> None:
        def pool() -> None:
            with ThreadPoolExecutor(FLIGHT) as threads:
                list(threads.map(one, rows))

        await asyncio.to_thread(pool)

    return work


def dashscope(load: Load, url: str, rps: float | None) -> Callable[[], Awaitable[Any]]:
    """The vendor's SDK, its asynchronous class where it has one, gathered; it has no notion of a quota."""
    import dashscope as sdk

    rows = load()
    sdk.base_http_api_url = url.split("/compatible-api")[0] + "/api/v1"
    sdk.api_key = "none"
    call = getattr(sdk, "AioTextReRank", None)
    lock = asyncio.Semaphore(FLIGHT)

    async def one(row: Row) -> None:
        async with lock:
            arguments: Row = {
                "model": "gte-rerank-v2",
                "query": row["query"],
                "documents": [c["text"] for c in row["candidates"]],
            }
            if call is not None:
                answer = await call.call(**arguments)
            else:
                answer = await asyncio.to_thread(sdk.TextReRank.call, **arguments)
            if answer.status_code != 200:
                raise RuntimeError(answer)

    async def work() -> None:
        await asyncio.gather(*(one(row) for row in rows))

    return work


def ray(load: Load, url: str, rps: float | None) -> Callable[[], Awaitable[Any]]:
    """ray.data.llm's HTTP request processor."""
    import ray as ray_  # type: ignore[import-not-found,unused-ignore]
    from ray.data.llm import (  # type: ignore[import-not-found,unused-ignore]
        HttpRequestProcessorConfig,
        build_processor,
    )

    rows = load()
    ray_.init(num_cpus=2, logging_level=logging.ERROR, log_to_driver=False)
    config = HttpRequestProcessorConfig(
        url=url, headers={"Content-Type": "application/json"}, qps=int(rps) if rps else None, batch_size=64,
        concurrency=1,
    )  # fmt: skip
    processor = build_processor(
        config,
        preprocess=lambda row: {"payload": _body(row)},
        postprocess=lambda row: {"answer": row["http_response"]},
    )

    async def work() -> None:
        assert len(processor(ray_.data.from_items(rows)).take_all()) == len(rows)

    return work


def _body(row: Row) -> Row:
    documents = [c["text"] for c in row["candidates"]]
    return {"model": "qwen3-rerank", "query": row["query"], "documents": documents}


PEERS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "bare aiohttp loop": (bare, ()),
    "batchrank": (batchrank, ()),
    "pyarallel": (pyarallel, ("pyarallel", "httpx")),
    "async-batch-llm": (async_batch_llm, ("async-batch-llm", "httpx")),
    "litellm": (litellm, ("litellm",)),
    "rerankers": (rerankers, ("rerankers[api]",)),
    "dashscope SDK": (dashscope, ("dashscope",)),
    "Ray": (ray, ("ray[data]", "aiohttp", "pydantic")),
}
"""Name -> what does the work, and what it needs installed; nothing means: this environment."""
NEWER = ("pyarallel",)
