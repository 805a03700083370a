"""Every format, both ways: the documents' own examples, and what all formats have in common."""

from dataclasses import dataclass
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrank.data import Request
from batchrank.errors import JobError, MalformedAnswerError
from batchrank.wire import CODECS, DOCUMENT_BYTES, WRAPPER_BYTES

QUERY = "What is a rerank model?"
DOCUMENTS = [
    "Rerank models are widely used in search engines and recommendation systems. They sort candidate documents based "
    "on text relevance.",
    "Quantum computing is a cutting-edge field of computer science.",
    "The development of pre-trained language models has brought new advancements to rerank models.",
]
IMAGE = "https://img.alicdn.com/imgextra/i3/O1CN01rdstgY1uiZWt8gqSL_!!6000000006071-0-tps-1970-356.jpg"
VIDEO = "https://help-static-aliyun-doc.aliyuncs.com/file-manage-files/zh-CN/20250107/lbcemt/new+video.mp4"
TEXT = Request("some-model", QUERY, DOCUMENTS)
SCORES = [0.9334521178273196, 0.1, 0.34100082626411193]
RESULTS: list[dict[str, Any]] = [{"index": i, "relevance_score": SCORES[i]} for i in (0, 2, 1)]


@dataclass(frozen=True)
class Medium:
    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Mixed(Request):
    fps: float | None = None


def mixed(query: Any, documents: list[Any], fps: float | None = None) -> Mixed:
    return Mixed("qwen3-vl-rerank", cast(str, query), cast("list[str]", documents), None, fps)


def sent(wire: str, request: Request) -> Any:
    return orjson.loads(CODECS[wire].body(request))


def test_native_text_request_is_the_documented_one() -> None:
    """The vendor's example for gte-rerank-v2: plain strings; top_n and return_documents are never sent."""
    assert sent("dashscope-native", Request("gte-rerank-v2", QUERY, DOCUMENTS)) == {
        "model": "gte-rerank-v2",
        "input": {"query": QUERY, "documents": DOCUMENTS},
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [(QUERY, {"text": QUERY}), (Medium("image", IMAGE), {"image": IMAGE})],
    ids=["text query", "image query"],
)
def test_native_mixed_requests_are_the_documented_ones(query: Any, expected: dict[str, str]) -> None:
    """The vendor's two examples for qwen3-vl-rerank: everything is a one-key object, fps a parameter."""
    documents = [DOCUMENTS[0], Medium("image", IMAGE), Medium("video", VIDEO)]
    assert sent("dashscope-native", mixed(query, documents, fps=1.0)) == {
        "model": "qwen3-vl-rerank",
        "input": {
            "query": expected,
            "documents": [{"text": DOCUMENTS[0]}, {"image": IMAGE}, {"video": VIDEO}],
        },
        "parameters": {"fps": 1.0},
    }


def test_native_answer_is_the_documented_one() -> None:
    """The vendor's example answer with its documents, completed by the one its top_n left out."""
    answer = CODECS["dashscope-native"].answer(
        {
            "output": {"results": [{"document": {"text": DOCUMENTS[r["index"]]}, **r} for r in RESULTS]},
            "usage": {"total_tokens": 79},
            "request_id": "85ba5752-1900-47d2-8896-23f99b13f6e1",
        },
        3,
    )
    assert answer.values.tolist() == SCORES
    assert (answer.tokens, answer.request_id) == (79, "85ba5752-1900-47d2-8896-23f99b13f6e1")


def test_qwen3_rerank_goes_over_the_native_format_too() -> None:
    """The body follows the endpoint: instruct is a parameter there, and beside the model on the flat one."""
    request = Request("qwen3-rerank", QUERY, DOCUMENTS, "Retrieve semantically similar text.")
    assert sent("dashscope-native", request)["parameters"] == {"instruct": request.instruct}
    assert sent("dashscope", request)["instruct"] == request.instruct


PLAIN = {"model": "some-model", "query": QUERY, "documents": DOCUMENTS}


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        ("dashscope", PLAIN),
        ("cohere", PLAIN),
        ("jina", {**PLAIN, "return_documents": False}),
        ("vllm", {**PLAIN, "truncate_prompt_tokens": -1}),
        ("voyage", {**PLAIN, "truncation": True}),
        ("tei", {"query": QUERY, "texts": DOCUMENTS, "raw_scores": False, "truncate": True}),
        (
            "nim",
            {
                "model": "some-model",
                "query": {"text": QUERY},
                "passages": [{"text": document} for document in DOCUMENTS],
                "truncate": "END",
            },
        ),
    ],
)
def test_other_servers_requests(wire: str, body: dict[str, Any]) -> None:
    """Each server gets the fields its documents name, and is told to cut what is too long."""
    assert sent(wire, TEXT) == body


def test_siliconflow_calls_it_instruction() -> None:
    """The one server of Cohere's kind that takes an instruction has its own name for it."""
    request = Request("some-model", QUERY, DOCUMENTS, "Find answers.")
    assert sent("siliconflow", request)["instruction"] == "Find answers."


@pytest.mark.parametrize("wire", ["cohere", "jina", "vllm", "voyage", "tei", "nim"])
def test_an_instruction_is_never_dropped(wire: str) -> None:
    """A format without a field for it refuses."""
    with pytest.raises(JobError, match="instruct"):
        CODECS[wire].body(Request("m", "q", ["d"], "Find answers."))


@pytest.mark.parametrize("wire", sorted(CODECS.keys() - {"dashscope-native"}))
def test_images_go_over_the_native_format_only(wire: str) -> None:
    """Formats that carry text refuse anything else."""
    with pytest.raises(JobError, match="dashscope-native"):
        CODECS[wire].body(mixed("q", ["d", Medium("image", IMAGE)]))


@pytest.mark.parametrize(
    ("server", "wire", "data", "tokens", "request_id"),
    [
        (
            "cohere",
            "cohere",
            {
                "id": "07734bd2",
                "results": RESULTS,
                "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
            },
            None,
            "07734bd2",
        ),
        ("jina", "jina", {"model": "m", "usage": {"total_tokens": 815}, "results": RESULTS}, 815, ""),
        (
            "vllm",
            "vllm",
            {
                "id": "rerank-fae5",
                "model": "BAAI/bge-reranker-base",
                "usage": {"total_tokens": 56},
                "results": [{**r, "document": {"text": "..."}} for r in RESULTS],
            },
            56,
            "rerank-fae5",
        ),
        (
            "infinity",
            "cohere",
            {
                "object": "rerank",
                "results": [{**r, "document": None} for r in RESULTS],
                "model": "m",
                "usage": {"prompt_tokens": 9, "total_tokens": 9},
                "id": "infinity-1",
                "created": 1,
            },
            9,
            "infinity-1",
        ),
        (
            "siliconflow",
            "siliconflow",
            {
                "id": "s",
                "results": RESULTS,
                "meta": {"tokens": {"input_tokens": 28, "output_tokens": 0}, "billed_units": None},
            },
            28,
            "s",
        ),
        ("xinference", "cohere", {"id": "x", "results": RESULTS, "meta": {"tokens": None}}, None, "x"),
        (
            "voyage",
            "voyage",
            {"object": "list", "data": RESULTS, "model": "rerank-2.5", "usage": {"total_tokens": 26}},
            26,
            "",
        ),
        ("tei", "tei", [{"index": r["index"], "score": r["relevance_score"]} for r in RESULTS], None, ""),
        (
            "nim",
            "nim",
            {"rankings": [{"index": r["index"], "logit": r["relevance_score"]} for r in RESULTS]},
            None,
            "",
        ),
    ],
)
def test_other_servers_answers(
    server: str, wire: str, data: Any, tokens: int | None, request_id: str
) -> None:
    """Each server's answer gives the same scores; tokens and id where it tells them."""
    answer = CODECS[wire].answer(data, 3)
    assert answer.values.tolist() == SCORES
    assert (answer.tokens, answer.request_id) == (tokens, request_id)


def test_logits_are_scores() -> None:
    """NIM's scores are unbounded and negative ones are as good as any."""
    data = {"rankings": [{"index": 1, "logit": -1.2421875}, {"index": 0, "logit": -12.5}]}
    assert CODECS["nim"].answer(data, 2).values.tolist() == [-12.5, -1.2421875]


@pytest.mark.parametrize("wire", sorted(CODECS))
@pytest.mark.parametrize(
    "data", [None, [], {}, 1, "x", {"output": []}, {"results": {}}, {"rankings": None}, {"data": "x"}]
)
def test_nonsense_is_malformed(wire: str, data: Any) -> None:
    """Whatever an endpoint answers, a codec finds scores in it or says that it is malformed."""
    with pytest.raises(MalformedAnswerError):
        CODECS[wire].answer(data, 2)


def _json(value: str) -> int:
    try:
        return len(orjson.dumps(value))
    except orjson.JSONEncodeError:
        return 6 * len(value.encode("utf-8", "surrogatepass")) + 2


@pytest.mark.parametrize("wire", sorted(CODECS))
@settings(max_examples=40)
@given(data=st.data())
def test_bodies_are_no_larger_than_sharding_assumes(wire: str, data: st.DataObject) -> None:
    """Around each document's JSON there are few bytes, and few around everything: no body outgrows its limit."""
    any_text = st.text(st.characters(codec=None), max_size=30)
    query, texts = data.draw(any_text), data.draw(st.lists(any_text, max_size=20))
    wrapped = wire == "dashscope-native" and data.draw(st.booleans())
    request = mixed(
        query, [Medium("image", text) for text in texts] if wrapped else texts, 0.5 if wrapped else None
    )
    body = CODECS[wire].body(request)
    inner = sum(_json(text) + DOCUMENT_BYTES for text in texts) + _json(query)
    assert len(body) <= inner + WRAPPER_BYTES
    assert orjson.loads(body) and CODECS[wire].body(request) == body
