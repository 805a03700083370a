"""The vendors' own clients against the emulator, each in a process's ordinary way: real sockets, the real clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from batchrank.emulator.app import Emulator
from batchrank.emulator.endpoints import path
from batchrank.emulator.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore")  # the clients' own, none of which is ours to mend

QUERY = "What is a rerank model?"
DOCUMENTS = [
    "Rerank models are widely used in search engines and recommendation systems. "
    "They sort candidate documents based on text relevance.",
    "Quantum computing is a cutting-edge field of computer science.",
    "The development of pre-trained language models has brought new advancements to rerank models.",
]
IMAGE = "https://img.alicdn.com/imgextra/i3/O1CN01rdstgY1uiZWt8gqSL_!!6000000006071-0-tps-1970-356.jpg"
VIDEO = "https://help-static-aliyun-doc.aliyuncs.com/file-manage-files/zh-CN/20250107/lbcemt/new+video.mp4"
MIXED = [{"text": DOCUMENTS[0]}, {"image": IMAGE}, {"video": VIDEO}]
KEY = "sk-right"


@contextmanager
def emulator(**switches: Any) -> Iterator[str]:
    """The address of an emulator in a thread of its own, as a client that blocks needs it."""
    served = Emulator(Settings(tokenizer="bytes", keys=(KEY,), **switches))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(served):
        yield served.url


@pytest.fixture
def dashscope(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The vendor's SDK, set up as its documents say for another endpoint."""
    module = pytest.importorskip("dashscope")
    with emulator() as url:
        monkeypatch.setattr(module, "base_http_api_url", f"{url}/api/v1")
        yield module
        module.close_shared_sync_session()


MODELS = [
    ("qwen3-rerank", QUERY, DOCUMENTS, {"instruct": "Retrieve semantically similar text."}),
    ("gte-rerank-v2", QUERY, DOCUMENTS, {"return_documents": True}),
    ("qwen3-vl-rerank", {"image": IMAGE}, MIXED, {"return_documents": True, "fps": 1.0}),
]
BY_NAME = [model[0] for model in MODELS]


def check(answer: Any, model: str, documents: list[Any]) -> None:
    assert (answer.status_code, answer.code, answer.message) == (HTTPStatus.OK, "", "")
    assert answer.request_id and answer.usage["total_tokens"] > 0
    results = answer.output["results"]
    scores = [result["relevance_score"] for result in results]
    assert len(results) == 2 and scores == sorted(scores, reverse=True)
    if model != "qwen3-rerank":
        shown = [d if isinstance(d, dict) else {"text": d} for d in documents]
        assert [r["document"] for r in results] == [shown[r["index"]] for r in results]


@pytest.mark.parametrize(("model", "query", "documents", "more"), MODELS, ids=BY_NAME)
def test_dashscope_sync(dashscope: Any, model: str, query: Any, documents: list[Any], more: Any) -> None:
    """``TextReRank.call`` works for each of the vendor's models, as in the vendor's example."""
    answer = dashscope.TextReRank.call(
        model=model, query=query, documents=documents, top_n=2, api_key=KEY, **more
    )
    check(answer, model, documents)


@pytest.mark.anyio
@pytest.mark.real_clock
@pytest.mark.parametrize(("model", "query", "documents", "more"), MODELS, ids=BY_NAME)
async def test_dashscope_async(
    dashscope: Any, model: str, query: Any, documents: list[Any], more: Any
) -> None:
    """And so does ``AioTextReRank.call``."""
    from dashscope.rerank.text_rerank import AioTextReRank

    answer = await AioTextReRank.call(
        model=model, query=query, documents=documents, top_n=2, api_key=KEY, **more
    )
    await dashscope.close_shared_aio_session()
    check(answer, model, documents)


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"api_key": "sk-wrong"}, 401, "InvalidApiKey"),
        ({"model": "nonsense"}, 404, "ModelNotFound"),
        ({"documents": ["d"] * 501}, 400, "InvalidParameter"),
        ({"documents": ["d", ""]}, 400, "InvalidParameter"),
    ],
)
def test_dashscope_errors(dashscope: Any, asked: dict[str, Any], status: int, code: str) -> None:
    """Refusals reach the SDK's user with their code, message and request id."""
    asked = {"model": "gte-rerank-v2", "query": QUERY, "documents": DOCUMENTS, "api_key": KEY, **asked}
    answer = dashscope.TextReRank.call(**asked)
    assert (answer.status_code, answer.code) == (status, code)
    assert answer.message and answer.request_id


def test_cohere_sync_and_its_errors() -> None:
    """``ClientV2.rerank`` ranks, counts searches, and raises its own errors."""
    cohere = pytest.importorskip("cohere")
    from cohere.errors import BadRequestError, UnauthorizedError

    with emulator() as url:
        base = url + path("cohere").removesuffix("/v2/rerank")
        asked = {"model": "rerank-v3.5", "query": QUERY}
        with cohere.ClientV2(api_key=KEY, base_url=base) as client:
            answer = client.rerank(**asked, documents=DOCUMENTS, top_n=2)
            assert [result.index for result in answer.results] == [0, 2]
            assert answer.id and answer.meta.billed_units.search_units == 1
            with pytest.raises(BadRequestError, match="at most 1000"):
                client.rerank(**asked, documents=["d"] * 1001)
        with (
            cohere.ClientV2(api_key="wrong", base_url=base) as client,
            pytest.raises(UnauthorizedError, match="invalid api token"),
        ):
            client.rerank(**asked, documents=DOCUMENTS)


@pytest.mark.anyio
@pytest.mark.real_clock
async def test_cohere_async() -> None:
    """The asynchronous client on the root path, where Cohere's own API has it."""
    cohere = pytest.importorskip("cohere")
    with emulator() as url:
        async with cohere.AsyncClientV2(api_key=KEY, base_url=url) as client:
            answer = await client.rerank(model="rerank-v4.0-pro", query=QUERY, documents=DOCUMENTS)
    assert [result.index for result in answer.results] == [0, 2, 1]
