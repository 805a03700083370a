"""One attempt against small servers that answer exactly as public reports say: what comes back, what it calls for."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from against import world
from aiohttp import web

from batchrank.data import Answer, Rejection
from batchrank.send.retry import Action, classify, possibly_billed
from batchrank.send.transport import Http
from batchrank.tokens import counter
from batchrank.wire import CODECS

pytestmark = pytest.mark.anyio

RESULTS = [{"index": 1, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0.25}]
BLOCKED = (
    "<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head>"
    "<body><h1>Sorry, you have been blocked</h1></body></html>"
)
HTML = "text/html"
QPS = "Open api qps request limit reached"
FINDING = {"loc": ["body", "documents"], "msg": "List should have at most 9 items"}
BUDGET = "Budget has been exceeded! Max budget: 15.0"
QUOTA = "Out of call volume quota. Quota will be replenished in 02:15:31."
LLAMA = "input is too large to process. increase the physical batch size"
BATCH = "batch size 33 > maximum allowed batch size 32"
WORDS = "the relevance of a document to a query is what rerankers are asked about "


@asynccontextmanager
async def server(handler: Any) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/rerank", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/rerank"
    finally:
        await runner.cleanup()


async def outcome(wire: str, status: int, body: Any, content_type: str, documents: int) -> Answer | Rejection:
    async def answer(request: web.Request) -> web.Response:
        data = body.encode() if isinstance(body, str) else orjson.dumps(body)
        return web.Response(status=status, body=data, content_type=content_type)

    async with server(answer) as url, Http(url, CODECS[wire]) as http:
        return await http.post(b"{}", documents)


@pytest.mark.parametrize(
    ("wire", "status", "body"),
    [
        ("cohere", 200, {"error": "", "results": RESULTS}),
        ("cohere", 200, {"error": None, "results": RESULTS}),
        ("jina", 200, {"error": {"code": 0}, "results": RESULTS}),
        ("jina", 200, {"code": 0, "message": "ok", "results": RESULTS}),
        ("siliconflow", 200, {"code": "success", "data": RESULTS}),
        ("vllm", 200, {"code": "200", "results": RESULTS}),
        ("dashscope", 200, {"code": "OK", "output": {"results": RESULTS}}),
        ("dashscope-native", 200, {"results": RESULTS}),
        ("cohere", 201, {"results": RESULTS}),
        ("cohere", 202, {"results": RESULTS}),
        ("voyage", 200, {"results": RESULTS}),
        ("jina", 200, RESULTS),
        ("tei", 200, {"results": RESULTS}),
        ("nim", 200, {"rankings": RESULTS}),
        ("cohere", 200, {"success": False, "message": "degraded", "results": RESULTS}),
    ],
)
async def test_good_answers_in_odd_wrappings_are_used(wire: str, status: int, body: Any) -> None:
    """Paid for and complete: scores of every document win over whatever stands around them."""
    found = await outcome(wire, status, body, "application/json", 2)
    assert isinstance(found, Answer) and found.values.tolist() == [0.25, 0.5]


@pytest.mark.parametrize(
    ("wire", "status", "body", "code", "text", "action"),
    [
        # LM Studio, a wrong path
        (
            "cohere",
            200,
            {"error": "Unexpected endpoint or method. (POST /rerank)"},
            "",
            "Unexpected endpoint",
            Action.REJECT,
        ),
        (
            "cohere",
            200,
            {"error_code": 18, "error_msg": "Open api qps request limit reached"},
            "18",
            "qps",
            Action.SLOW_REQUESTS,
        ),
        ("jina", 200, {"success": False, "message": "no such model"}, "", "no such model", Action.REJECT),
        ("jina", 200, {"detail": "Not authenticated"}, "", "Not authenticated", Action.REJECT),
        (
            "vllm",
            422,
            {"detail": [FINDING]},
            "",
            "documents: List",
            Action.SPLIT,
        ),
        ("cohere", 200, {"errors": ["a", "b"]}, "", "a; b", Action.REJECT),
        ("cohere", 200, {"status": "error", "msg": "overloaded"}, "", "overloaded", Action.REJECT),
        ("jina", 429, {"error": {"code": "1113", "message": "余额不足"}}, "1113", "余额不足", Action.STOP),
        (
            "cohere",
            400,
            {
                "error": {
                    "message": "Budget has been exceeded! Max budget: 15.0",
                    "type": "budget_exceeded",
                    "code": "400",
                }
            },
            "400",
            "Budget",
            Action.STOP,
        ),
        (
            "cohere",
            403,
            {
                "statusCode": 403,
                "message": "Out of call volume quota. Quota will be replenished in 02:15:31.",
            },
            "403",
            "02:15:31",
            Action.WAIT,
        ),
        (
            "cohere",
            500,
            {
                "error": {
                    "code": 500,
                    "message": "input is too large to process. increase the physical batch size",
                    "type": "server_error",
                }
            },
            "500",
            "too large",
            Action.SPLIT,
        ),
        (
            "tei",
            413,
            {"error": BATCH, "error_type": "Validation"},
            "Validation",
            "33",
            Action.SPLIT,
        ),
        ("tei", 400, {"unheard": "of"}, "", "unheard", Action.REJECT),
    ],
)
async def test_an_error_is_told_in_the_server_s_words(
    wire: str, status: int, body: Any, code: str, text: str, action: Action
) -> None:
    """In any shape and under any status of success: its own text, never "malformed" without it."""
    found = await outcome(wire, status, body, "application/json", 2)
    assert isinstance(found, Rejection) and found.code == code and text in found.message
    assert classify(found, wire) is action


@pytest.mark.parametrize(
    ("status", "page", "text", "action"),
    [
        (403, BLOCKED, "Attention Required! | Cloudflare Sorry, you have been blocked", Action.ACCESS),
        (405, "<p>您的请求可能存在威胁，已被拦截</p>", "已被拦截", Action.ACCESS),
        (
            413,
            "<center><h1>413 Request Entity Too Large</h1></center>nginx",
            "413 Request Entity Too Large nginx",
            Action.SPLIT,
        ),
        (503, "<h1>503 Too many requests</h1>", "Too many requests", Action.SLOW_REQUESTS),
        (524, "<title>524: A timeout occurred</title>", "A timeout occurred", Action.RETRY),
        (404, "", "Not Found", Action.ACCESS),
    ],
)
async def test_a_page_for_people_is_told_without_its_tags(
    status: int, page: str, text: str, action: Action
) -> None:
    """Whose page it is, a firewall's or a gateway's, can be read in the message."""
    found = await outcome("cohere", status, page, HTML, 2)
    assert isinstance(found, Rejection) and text in found.message and "<" not in found.message
    assert classify(found, "cohere") is action


@pytest.mark.parametrize(
    ("status", "body", "content_type", "text"),
    [
        (200, "<html><h1>Welcome</h1></html>", HTML, "not JSON .*'Welcome'"),
        (
            200,
            {"results": RESULTS[:1], "message": "timed out midway"},
            "application/json",
            "1 results.*timed out midway",
        ),
        (
            200,
            {"results": [*RESULTS[:1], {"index": 0, "relevance_score": None}]},
            "application/json",
            "isn't a number",
        ),
        (204, "", HTML, "no answer|not JSON"),
        (206, {"results": RESULTS}, "application/json", "no answer"),
    ],
)
async def test_an_answer_of_no_use_is_malformed(status: int, body: Any, content_type: str, text: str) -> None:
    """It may have been billed, and is asked for again; what it says is told."""
    found = await outcome("cohere", status, body, content_type, 2)
    assert isinstance(found, Rejection) and found.code == "malformed"
    assert re.search(text, found.message), found
    assert classify(found, "cohere") is Action.RETRY and possibly_billed(found)


@pytest.mark.parametrize(
    ("length", "per", "notice"),
    [
        (100, "characters", "counts something else"),
        (100, "overhead", "limits.overhead_tokens: 60"),
        (4, "overhead", "limits.overhead_tokens: 60"),
    ],
)
async def test_a_usage_of_characters_is_not_taken_for_tokens(
    tmp_path: Path, length: int, per: str, notice: str
) -> None:
    """Infinity tells characters as tokens: no overhead would explain them. A prompt's template is another matter."""
    count = counter("qwen").count

    async def answer(request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        texts = [asked["query"], *asked["documents"]]
        sizes = list(map(len, texts)) if per == "characters" else count(texts).tolist()
        more = 0 if per == "characters" else 60
        total = sum(sizes[1:]) + (sizes[0] + more) * len(sizes[1:])
        results = [{"index": i, "relevance_score": 1 / (i + 1)} for i in range(len(sizes) - 1)]
        return web.json_response({"results": results, "usage": {"total_tokens": total}})

    text = " ".join((WORDS * 9).split()[:length])
    data = [
        {"query_id": f"q{q}", "query": "reranking", "candidates": [f"{d} {text}" for d in range(8)]}
        for q in range(3)
    ]
    async with server(answer) as url, world(tmp_path, data=data, sections={"tokenizer": "qwen"}) as w:
        report = await w.run(w.job(endpoint={"url": url}))
    assert report.exit_code == 0
    assert any(notice in told for told in report.data["notices"]), report.data["notices"]
