"""The emulator over real loopback connections: shapes, limits, messages, billing."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import ClientSession
from emulator_client import DOCUMENTS, FLAT, NATIVE, QUERY, Client, serving

from batchrank.emulator.app import Emulator, run_forever
from batchrank.emulator.relevance import relevance
from batchrank.emulator.settings import Settings, switches
from batchrank.errors import JobError

pytestmark = pytest.mark.anyio


async def test_flat_answer_has_the_documented_shape() -> None:
    """The vendor's example is answered in the vendor's shape: best first, cut to top_n, an id, the tokens."""
    async with serving() as client:
        status, data = await client.flat(top_n=2)
        again = await client.flat(top_n=2)
    assert status == 200
    assert list(data) == ["object", "results", "model", "id", "usage"]
    assert (data["object"], data["model"]) == ("list", "qwen3-rerank")
    assert [set(r) for r in data["results"]] == [{"index", "relevance_score"}] * 2
    assert [r["index"] for r in data["results"]] == [0, 2]
    assert 1 > data["results"][0]["relevance_score"] > data["results"][1]["relevance_score"] > 0
    assert again[1]["results"] == data["results"] and again[1]["id"] != data["id"]


async def test_both_documented_flat_paths_are_served() -> None:
    """The vendor's page names two paths for the flat endpoint."""
    async with serving() as client:
        content = {"model": "qwen3-rerank", "query": "q", "documents": ["d"]}
        assert (await client.post(content, "/compatible-mode/v1/reranks"))[0] == 200


async def test_native_answer_has_the_documented_shape() -> None:
    """The native endpoint nests what it takes and what it gives, and returns documents where the model may."""
    asked = {
        "model": "gte-rerank-v2",
        "input": {"query": QUERY, "documents": DOCUMENTS},
        "parameters": {"return_documents": True, "top_n": 2},
    }
    async with serving() as client:
        status, data, headers = await client.post(asked, NATIVE)
        plain = (await client.post({**asked, "model": "qwen3-rerank"}, NATIVE))[1]
    assert status == 200 and list(data) == ["output", "usage", "request_id"]
    assert [r["index"] for r in data["output"]["results"]] == [0, 2]
    assert [r["document"]["text"] for r in data["output"]["results"]] == [DOCUMENTS[0], DOCUMENTS[2]]
    assert headers["X-Request-Id"] == data["request_id"]
    assert all("document" not in r for r in plain["output"]["results"])


async def test_usage_follows_the_documented_formula() -> None:
    """Query tokens x documents + document tokens; overhead and instruct are billed for each document on demand."""
    query, documents = "abcd", ["x" * 10, "y" * 20]
    async with serving() as client:
        assert (await client.flat(query, documents, instruct="i" * 7))[1]["usage"] == {"total_tokens": 38}
    async with serving(overhead_tokens=60, bill_instruct=True) as client:
        assert (await client.flat(query, documents, instruct="i" * 7))[1]["usage"] == {"total_tokens": 172}
        assert (client.emulator.counts.tokens, client.emulator.counts.documents) == (172, 2)


async def test_long_items_are_cut_silently() -> None:
    """Beyond the item limit a text is neither billed nor read."""
    late = "filler " * 100 + "walrus operator"
    async with serving(item_tokens=70) as client:
        data = (await client.flat("walrus operator", ["filler " * 10, late]))[1]
        by_index = {r["index"]: r["relevance_score"] for r in data["results"]}
    assert data["usage"]["total_tokens"] == 2 * 15 + 70 + 70
    assert abs(by_index[0] - by_index[1]) < 1e-3


async def test_limits_are_refused_in_the_documented_words() -> None:
    """Too many documents, an empty list and an empty text each sink the whole request, billed nothing."""
    batch = "batch size of documents is invalid, it should not be empty or larger than 500.: input.documents"
    empty = "text input should not be empty.: input.documents"
    async with serving() as client:
        assert await client.rejected(documents=[]) == (400, "InvalidParameter", batch)
        assert await client.rejected(documents=["d"] * 501) == (400, "InvalidParameter", batch)
        assert await client.rejected(documents=["d", " "]) == (400, "InvalidParameter", empty)
        assert (await client.rejected(query=""))[2] == "text input should not be empty.: input.query"
        assert (await client.rejected(documents=["d" * 300_001]))[:2] == (400, "InvalidParameter")
        assert (await client.flat(documents=["d"] * 500))[0] == 200
        assert client.emulator.counts.documents == 500


async def test_request_tokens_are_limited_by_the_formula() -> None:
    """120,000 tokens in a request pass, one more is refused."""
    async with serving() as client:
        assert (await client.flat("q" * 4, ["d" * 3996] * 30))[0] == 200
        assert (await client.rejected(query="q" * 4, documents=["d" * 3996] * 29 + ["d" * 3997]))[0] == 400
    async with serving(request_tokens=30_000, documents=8) as client:
        assert (await client.rejected(query="q" * 4, documents=["d" * 3996] * 8))[0] == 400
        assert (await client.rejected(documents=["d"] * 9))[0] == 400


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"model": "qwen3-rerank"}', b"\xff"]
    + [
        json.dumps({"model": "qwen3-rerank", "query": "q", "documents": ["d"], **wrong}).encode()
        for wrong in ({"query": 1}, {"documents": "d"}, {"documents": [1]}, {"top_n": 0}, {"instruct": 1})
    ],
)
async def test_malformed_requests_are_invalid_parameters(body: bytes) -> None:
    """What can't be understood is a 400 with a documented code, never a crash."""
    async with serving() as client:
        status, data, _ = await client.post(body)
    assert (status, data["code"]) == (400, "InvalidParameter")


async def test_keys_are_demanded() -> None:
    """No key is a 401; any key will do, unless some are named."""
    asked = {"model": "qwen3-rerank", "query": "q", "documents": ["d"]}
    async with serving() as client:
        status, data, _ = await client.post(asked, headers={})
        assert (status, data["code"], data["message"]) == (401, "InvalidApiKey", "Invalid API-key provided.")
        assert set(data) == {"code", "message", "request_id"}
    async with serving(keys=("sk-right",)) as client:
        assert (await client.post(asked))[0] == 401
        assert (await client.post(asked, headers={"Authorization": "Bearer sk-right"}))[0] == 200


async def test_unknown_models_are_not_found() -> None:
    """A model without a card is a 404 of the vendor's code."""
    async with serving() as client:
        assert (await client.rejected(model="nonsense"))[:2] == (404, "ModelNotFound")


async def test_large_bodies_are_refused() -> None:
    """A body over the gateway's limit is a 413, and the connection survives or not, as HTTP allows."""
    async with serving(body_bytes=5000) as client:
        assert (await client.rejected(documents=["d" * 6000]))[:2] == (413, "BadRequest.TooLarge")
        assert (await client.flat())[0] == 200


@pytest.mark.parametrize(("shape", "status"), [("nested", 401), ("in-200", 200)])
async def test_errors_take_the_other_two_shapes(shape: str, status: int) -> None:
    """Errors come in an error object, or plain inside a 200."""
    async with serving(error_shape=shape) as client:
        found, data, _ = await client.post({}, headers={})
    assert found == status
    assert (data["error"] if shape == "nested" else data)["code"] == "InvalidApiKey"


async def test_counts_tell_what_was_paid_twice() -> None:
    """The same body billed again is paid twice; another body isn't."""
    async with serving() as client:
        await client.flat()
        await client.flat()
        await client.flat(top_n=1)
        counts = client.emulator.counts
        assert (client.emulator.requests, counts.requests, counts.statuses) == (3, 3, {200: 3})
        assert counts.paid_twice == 1
        assert [r.path for r in client.emulator.received] == [FLAT] * 3
        assert len(counts.arrivals) == 3 and counts.most_in(1.0) == 3


async def test_order_of_absolute_and_relative_scores_is_relevance() -> None:
    """Whatever the scores' scale, one answer's order is the order of relevance."""
    for scores in ("absolute", "relative"):
        async with serving(scores=scores) as client:
            data = (await client.flat())[1]
        true = sorted(range(3), key=lambda i: -relevance(QUERY, DOCUMENTS[i]))
        assert [r["index"] for r in data["results"]] == true


async def test_relative_scores_differ_between_requests_and_agree_on_a_rerun() -> None:
    """A document's relative score depends on the request it is in; the same request is always scored alike."""

    async def scores(kind: str, documents: list[str]) -> dict[str, float]:
        async with serving(scores=kind, seed=3) as client:
            data = (await client.flat(documents=documents))[1]
        return {documents[r["index"]]: r["relevance_score"] for r in data["results"]}

    all_three, two = await scores("relative", DOCUMENTS), await scores("relative", DOCUMENTS[:2])
    assert await scores("relative", DOCUMENTS) == all_three
    assert abs(all_three[DOCUMENTS[0]] - two[DOCUMENTS[0]]) > 1e-3
    fixed, fewer = await scores("absolute", DOCUMENTS), await scores("absolute", DOCUMENTS[:2])
    assert {d: fixed[d] for d in fewer} == fewer


@pytest.mark.real_clock
async def test_the_emulator_works_on_the_real_clock() -> None:
    """The same server answers outside virtual time too, and stops when told."""
    async with serving() as client:
        assert (await client.flat())[0] == 200


async def test_serving_for_ever_ends_when_cancelled() -> None:
    """The server says where it listens, answers, holds its port, and lets go of it when cancelled."""
    listening: asyncio.Future[Emulator] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run_forever(Settings(), "127.0.0.1", 0, ready=listening.set_result))
    emulator = await listening
    port = int(emulator.url.rpartition(":")[2])
    async with ClientSession() as session:
        assert (await Client(emulator, session).flat())[0] == 200
    with pytest.raises(OSError, match="address already in use"):
        await run_forever(Settings(), "127.0.0.1", port)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with Emulator(port=port) as again:
        assert again.url == emulator.url


def test_every_switch_is_described() -> None:
    """Each setting has a text for --help."""
    found = switches()
    assert [switch.name for switch in found] == list(Settings.__dataclass_fields__)
    assert all(switch.text for switch in found)


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"faults": {"429-reqests": 0.1}}, "unknown fault '429-reqests'; did you mean one of: 429-requests"),
        ({"faults": {"503": 1.5}}, "probability of fault '503' is 1.5"),
        ({"script": {1: "score-nan+after-date"}}, "only refusals take a twist"),
        ({"poison": {"x": "503,never"}}, "unknown fault 'never'"),
    ],
)
async def test_wrong_faults_are_named(switches: dict[str, Any], message: str) -> None:
    """A fault that doesn't exist is an error that names it, before anything is served."""
    with pytest.raises(JobError, match=message.replace("+", r"\+")):
        Settings(**switches)
