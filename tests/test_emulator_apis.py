"""The emulator as the other rerank servers: our codecs' requests, their answers and their refusals."""

from typing import Any

import pytest
from emulator_client import DOCUMENTS, QUERY, Client, serving

from batchrank.data import Rejection, Request
from batchrank.emulator.endpoints import path
from batchrank.emulator.relevance import relevance
from batchrank.models import cards
from batchrank.send.retry import Action, classify
from batchrank.wire import CODECS
from batchrank.wire.answers import error

pytestmark = pytest.mark.anyio

WIRES = sorted(CODECS)
OPEN = {"vllm", "siliconflow", "tei", "nim"}


def model_of(wire: str) -> str:
    by_wire: dict[str, str] = {card.wire: name for name, card in cards().items()}
    return by_wire.get(wire, "vllm")


async def ask(client: Client, wire: str, documents: list[str], key: str | None = "sk-test") -> Any:
    body = CODECS[wire].body(Request(model_of(wire), QUERY, documents))
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return await client.post(body, path(wire), headers)


def refusal(status: int, data: Any) -> Rejection:
    known = error(data)
    assert known is not None, data
    return Rejection(status, known[0], known[1])


@pytest.mark.parametrize("wire", WIRES)
async def test_every_codec_and_its_server_understand_each_other(wire: str) -> None:
    """A request by any codec is answered so that the codec finds every score, in the order of relevance."""
    async with serving() as client:
        status, data, _ = await ask(client, wire, DOCUMENTS)
    assert status == 200 and error(data) is None
    values = CODECS[wire].answer(data, len(DOCUMENTS)).values
    true = sorted(range(3), key=lambda i: -relevance(QUERY, DOCUMENTS[i]))
    assert sorted(range(3), key=lambda i: -values[i]) == true
    assert wire == "nim" or 0 <= values.min() <= values.max() <= 1


@pytest.mark.parametrize("wire", WIRES)
async def test_a_wrong_key_stops_the_run_everywhere(wire: str) -> None:
    """Whatever its shape, the refusal of a key is read as one that no other request would escape."""
    async with serving(keys=("sk-right",)) as client:
        status, data, _ = await ask(client, wire, DOCUMENTS)
        assert status == 401 and classify(refusal(status, data), wire) is Action.ACCESS
        assert (await ask(client, wire, DOCUMENTS, key="sk-right"))[0] == 200


@pytest.mark.parametrize("wire", WIRES)
async def test_servers_of_one_s_own_ask_for_no_key(wire: str) -> None:
    """Paid APIs refuse a request without a key."""
    async with serving() as client:
        assert (await ask(client, wire, DOCUMENTS, key=None))[0] == (200 if wire in OPEN else 401)


@pytest.mark.parametrize("wire", WIRES)
async def test_too_many_documents_are_told_in_words_that_halve_the_request(wire: str) -> None:
    """Every API's own refusal of too many documents is understood as such."""
    async with serving(documents=4) as client:
        assert (await ask(client, wire, ["d"] * 4))[0] == 200
        status, data, _ = await ask(client, wire, ["d"] * 5)
    assert status in (400, 413, 422) and classify(refusal(status, data), wire) is Action.SPLIT


@pytest.mark.parametrize("wire", sorted(set(WIRES) - {"tei"}))
async def test_too_many_tokens_are_told_in_words_that_halve_the_request(wire: str) -> None:
    """And so is its refusal of too many tokens."""
    async with serving(request_tokens=200) as client:
        status, data, _ = await ask(client, wire, ["d" * 100] * 3)
    assert classify(refusal(status, data), wire) is Action.SPLIT


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("fault", "action"),
    [("429-requests", Action.SLOW_REQUESTS), ("503", Action.RETRY), ("500+nested", Action.RETRY)],
)
async def test_faults_are_understood_in_every_shape(wire: str, fault: str, action: Action) -> None:
    """A fault is refused in the API's shape, unless a twist says otherwise."""
    async with serving(script={1: fault}) as client:
        status, data, _ = await ask(client, wire, DOCUMENTS)
    assert classify(refusal(status, data), wire) is action


async def test_default_limits_are_the_cards() -> None:
    """TEI takes 32 texts and says what the real one says; NIM takes 512."""
    async with serving() as client:
        status, data, _ = await ask(client, "tei", ["d"] * 33)
        assert (status, data) == (
            413,
            {"error": "batch size 33 > maximum allowed batch size 32", "error_type": "Validation"},
        )
        assert (await ask(client, "nim", ["d"] * 513))[0] == 422
        assert (await ask(client, "nim", ["d"] * 512))[0] == 200


@pytest.mark.parametrize(
    ("api", "route", "body", "keys"),
    [
        ("cohere", "/v1/rerank", {"documents": DOCUMENTS}, ["id", "results", "meta"]),
        ("cohere", "/rerank", {"documents": DOCUMENTS}, ["id", "model", "results", "usage"]),
        ("jina", "/v1/rerank", {"documents": DOCUMENTS}, ["model", "object", "results", "usage"]),
        ("vllm", "/v1/rerank", {"documents": DOCUMENTS}, ["id", "model", "results", "usage"]),
        ("voyage", "/v1/rerank", {"documents": DOCUMENTS}, ["object", "data", "model", "usage"]),
        ("voyage", "/v2/rerank", {"documents": DOCUMENTS}, ["id", "results", "meta"]),
    ],
)
async def test_a_switch_tells_whose_a_shared_path_is(
    api: str, route: str, body: dict[str, Any], keys: list[str]
) -> None:
    """Several APIs have the same path; the switch decides, and leaves all other paths alone."""
    async with serving(api=api) as client:
        status, data, _ = await client.post({"model": "qwen3-rerank", "query": QUERY, **body}, route)
    assert status == 200 and list(data) == keys


async def test_wishes_of_each_api_are_granted() -> None:
    """Voyage's top_k, TEI's raw scores and texts, Jina's documents: each by its own name."""
    async with serving(api="tei") as client:
        asked = {"model": "rerank-2.5", "query": QUERY, "documents": DOCUMENTS}
        data = (await client.post({**asked, "top_k": 1, "return_documents": True}, path("voyage")))[1]
        assert [r["document"] for r in data["data"]] == [DOCUMENTS[0]]
        tei = {"query": QUERY, "texts": DOCUMENTS, "raw_scores": True, "return_text": True}
        data = (await client.post(tei, "/rerank"))[1]
        assert [set(r) for r in data] == [{"index", "score", "text"}] * 3
        assert data[0]["score"] == pytest.approx(relevance(QUERY, DOCUMENTS[0]))
        jina = {**asked, "model": "jina-reranker-v3"}
        assert (await client.post(jina, path("jina")))[1]["results"][0]["document"] == {"text": DOCUMENTS[0]}


@pytest.mark.parametrize("fault", ["score-null", "index-missing", "results-null", "results-strings"])
@pytest.mark.parametrize("wire", ["voyage", "tei", "nim"])
async def test_spoilt_answers_are_spoilt_in_every_shape(wire: str, fault: str) -> None:
    """A fault in the results survives the API's own names for them."""
    async with serving(script={1: fault}) as client:
        status, data, _ = await ask(client, wire, DOCUMENTS)
    assert status == 200
    with pytest.raises(Exception, match=r"result|index|score"):
        CODECS[wire].answer(data, 3)
