"""Codecs: the documents' own examples, and answers that must not be believed."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.data import Request
from batchrank.errors import MalformedAnswerError
from batchrank.wire import CODECS
from batchrank.wire.answers import error, values

DOCUMENTS = [
    "Rerank models are widely used in search engines and recommendation systems. They sort candidate documents based "
    "on text relevance.",
    "Quantum computing is a cutting-edge field of computer science.",
    "The development of pre-trained language models has brought new advancements to rerank models.",
]
INSTRUCT = "Given a web search query, retrieve relevant passages that answer the query."


def test_flat_request_is_the_documented_one() -> None:
    """The vendor's example for qwen3-rerank, but for top_n, which is never sent."""
    request = Request("qwen3-rerank", "What is a rerank model?", DOCUMENTS, INSTRUCT)
    assert orjson.loads(CODECS["dashscope"].body(request)) == {
        "model": "qwen3-rerank",
        "documents": DOCUMENTS,
        "query": "What is a rerank model?",
        "instruct": INSTRUCT,
    }


def test_flat_answer_is_the_documented_one() -> None:
    """The vendor's example answer, completed by the document its top_n left out."""
    answer = CODECS["dashscope"].answer(
        {
            "object": "list",
            "results": [
                {"index": 0, "relevance_score": 0.9334521178273196},
                {"index": 2, "relevance_score": 0.34100082626411193},
                {"index": 1, "relevance_score": 0.1},
            ],
            "model": "qwen3-rerank",
            "id": "85ba5752-1900-47d2-8896-23f99b13f6e1",
            "usage": {"total_tokens": 79},
        },
        3,
    )
    assert answer.values.tolist() == [0.9334521178273196, 0.1, 0.34100082626411193]
    assert (answer.tokens, answer.request_id) == (79, "85ba5752-1900-47d2-8896-23f99b13f6e1")


@pytest.mark.parametrize(
    ("results", "why"),
    [
        (None, "null, not a list"),
        ({"index": 0}, "an object, not a list"),
        ([{"index": 0, "relevance_score": 0.5}], "1 results for 2 documents"),
        ([{"index": 0, "relevance_score": 0.5}] * 2, "comes twice"),
        ([{"index": 0, "relevance_score": 0.5}, {"index": 2, "relevance_score": 0.5}], "outside 0..1"),
        ([{"index": 0, "relevance_score": 0.5}, {"index": -1, "relevance_score": 0.5}], "outside 0..1"),
        ([{"index": 0, "relevance_score": 0.5}, {"index": True, "relevance_score": 0.5}], "isn't an integer"),
        ([{"index": 0, "relevance_score": 0.5}, {"index": 1.0, "relevance_score": 0.5}], "isn't an integer"),
        ([{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": None}], "isn't a number"),
        ([{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": "0.5"}], "isn't a number"),
        ([{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": True}], "isn't a number"),
        (
            [{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": float("nan")}],
            "isn't finite",
        ),
        ([{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": 10**400}], "too large"),
        ([{"index": 0, "relevance_score": 0.5}, {"index": 1}], "without"),
        ([{"index": 0, "relevance_score": 0.5}, [1, 0.5]], "without"),
    ],
)
def test_an_answer_must_score_each_document_once(results: Any, why: str) -> None:
    """An answer is valid only if each index comes once and each score is finite."""
    with pytest.raises(MalformedAnswerError, match=why):
        values(results, 2)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40), st.randoms())
def test_results_in_any_order_are_the_same_scores(scores: list[float], rng: Any) -> None:
    """The API sorts by score; the codec puts scores back in request order, to the last bit."""
    results = [{"index": i, "relevance_score": score} for i, score in enumerate(scores)]
    rng.shuffle(results)
    assert np.array_equal(values(results, len(scores)), np.array(scores))


@pytest.mark.parametrize(
    "usage", [None, {}, {"total_tokens": -1}, {"total_tokens": "many"}, {"total_tokens": True}, 7]
)
def test_nonsense_usage_is_no_usage(usage: Any) -> None:
    """A missing or impossible usage doesn't spoil a valid answer."""
    data = {"results": [{"index": 0, "relevance_score": 1}], "usage": usage}
    assert CODECS["dashscope"].answer(data, 1).tokens is None


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (
            {"code": "InvalidApiKey", "message": "Invalid API-key provided.", "request_id": "fb53"},
            ("InvalidApiKey", "Invalid API-key provided.", "fb53"),
        ),
        ({"error": {"code": "x", "message": "y"}}, ("x", "y", "")),
        ({"error": {"type": "x", "message": "y"}, "id": "z"}, ("x", "y", "z")),
        ({"error": "overloaded", "error_type": "Overloaded"}, ("Overloaded", "overloaded", "")),
        ({"detail": "no"}, ("", "no", "")),
        ({"status_code": 200, "code": "", "message": "", "output": {}}, None),
        ({"results": []}, None),
        ({"code": 200, "results": []}, None),
        ({"code": "0", "message": "ok", "results": []}, None),
        ([], None),
        (None, None),
    ],
)
def test_errors_of_all_shapes(data: Any, known: tuple[str, str, str] | None) -> None:
    """All three shapes are parsed, and a successful answer isn't mistaken for one."""
    assert error(data) == known
