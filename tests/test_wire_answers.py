"""Answers as gateways wrap them, and errors in every shape: what is read, and what is never lost."""

import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.data import Query, is_blank
from batchrank.errors import MalformedAnswerError
from batchrank.wire import CODECS
from batchrank.wire.answers import error, visible

WIRES = sorted(CODECS)
SCORES = [0.25, -1.5, 0.75]
LISTS = ["results", "data", "rankings"]
KEYS = ["relevance_score", "score", "logit"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
DECORATION = st.fixed_dictionaries(
    {},
    optional={
        "error": st.sampled_from(["", None, {}, {"code": 0}, {"code": 0, "message": "ok"}, False]),
        "code": st.sampled_from([0, 200, "", "0", "200", "OK", "success", None]),
        "message": st.sampled_from(["", "ok", "success", None]),
        "success": st.just(True),
        "status": st.sampled_from(["success", "ok", 200]),
        "usage": JSON,
        "meta": JSON,
        "id": JSON,
        "request_id": JSON,
        "model": JSON,
        "object": st.just("list"),
    },
)


def results(key: str = "relevance_score", scores: list[float] = SCORES) -> list[dict[str, Any]]:
    return [
        {"index": i, key: score, "document": {"text": "x"}} for i, score in reversed(list(enumerate(scores)))
    ]


def wrapped(name: str, listed: list[dict[str, Any]]) -> list[Any]:
    return [
        {name: listed},
        {"output": {name: listed}},
        {"code": 0, "data": {name: listed}},
        {"result": {name: listed}},
    ]


@given(
    st.sampled_from(WIRES),
    st.sampled_from(LISTS),
    st.sampled_from(KEYS),
    st.integers(0, 3),
    DECORATION,
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
)
def test_decoration_never_changes_the_scores(
    wire: str, name: str, key: str, place: int, decoration: dict[str, Any], scores: list[float]
) -> None:
    """Whatever stands around the one list of results, and whatever it is called, the same scores are read."""
    data = {**decoration, **wrapped(name, results(key, scores))[place]}
    assert np.array_equal(CODECS[wire].answer(data, len(scores)).values, np.array(scores))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("wire", WIRES)
def test_a_bare_list_is_an_answer_on_every_wire(wire: str, key: str) -> None:
    """TEI answers so, and gateways before it."""
    answer = CODECS[wire].answer(results(key), 3)
    assert (answer.values.tolist(), answer.tokens, answer.request_id) == (SCORES, None, "")


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "data",
    [
        {"items": [0.1, 0.2, 0.3], "scores": [0.1, 0.2, 0.3]},  # whose are they?
        {"output": {"results": [results()[0]] * 3}},
        {"code": 0, "output": results()[:2]},
        {"outcome": results()},
        [{**result, "relevance_score": None} for result in results()],
        [{"index": 0, "score": 1.0}, {"index": 1, "logit": 1.0}, {"index": 2, "score": 1.0}],
        [{"index": i, "a_score": 1.0} for i in range(3)],
        "text",
    ],
)
def test_scores_that_may_be_another_document_s_are_malformed(wire: str, data: Any) -> None:
    """Leniency ends where it is unclear which document a score belongs to."""
    with pytest.raises(MalformedAnswerError):
        CODECS[wire].answer(data, 3)


def test_two_lists_of_results_are_none() -> None:
    """Where a format's own list is missing, there must be only one other."""
    with pytest.raises(MalformedAnswerError):
        CODECS["dashscope"].answer({"data": results(), "rankings": results("logit")}, 3)
    assert CODECS["voyage"].answer({"data": results(), "results": results()[:1]}, 3).values.tolist() == SCORES


@pytest.mark.parametrize("wire", sorted(set(WIRES)))
@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"usage": {"total_tokens": 7}}, 7),
        ({"usage": {"total_tokens": 7.0}}, 7),
        ({"usage": {"total_tokens": "7"}}, 7),
        ({"usage": {"prompt_tokens": 7}}, 7),
        ({"usage": {"input_tokens": 7, "output_tokens": 0}}, 7),
        ({"usage": {"total_tokens": 0}, "meta": {"tokens": {"input_tokens": 28}}}, 28),
        ({"meta": {"tokens": {"input_tokens": 28, "output_tokens": 2}}}, 30),
        ({"meta": {"tokens": {"output_tokens": 5}}}, 5),
        ({"meta": {"billed_units": {"total_tokens": 9}, "tokens": {"input_tokens": 28}}}, 9),
        ({"meta": {"billed_units": {"input_tokens": 9.0}}}, 9),
        ({"output": {"usage": {"total_tokens": 11}}}, 11),
        ({}, None),
        ({"usage": None, "meta": None}, None),
        ({"usage": {"total_tokens": 0}}, None),
        ({"usage": {"total_tokens": -7}}, None),
        ({"usage": {"total_tokens": 7.5}}, None),
        ({"usage": {"total_tokens": float("nan")}}, None),
        ({"usage": {"total_tokens": float("inf")}}, None),
        ({"usage": {"total_tokens": True}}, None),
        ({"usage": {"total_tokens": "seven"}}, None),
        ({"usage": {"total_tokens": "９"}}, None),
        ({"usage": {"total_tokens": 10**15}}, None),
        ({"usage": {"total_tokens": "9" * 5000}}, None),
        ({"usage": [7], "meta": {"tokens": 3}}, None),
    ],
)
def test_usage_is_read_wherever_it_stands(wire: str, fields: dict[str, Any], tokens: int | None) -> None:
    """Whole numbers also as floats and digits; zero, negative, huge and nonsense ones count as not told."""
    data = {"results": results(), **fields}
    assert CODECS[wire].answer(data, 3).tokens == tokens


@pytest.mark.parametrize(
    ("meta", "searches"),
    [
        ({"billed_units": {"search_units": 2}}, 2),
        ({"billed_units": {"search_units": 2.0}}, 2),
        ({}, None),
        (None, None),
    ],
)
def test_searches_are_what_cohere_bills(meta: Any, searches: int | None) -> None:
    """Its answers tell searches and no tokens."""
    answer = CODECS["cohere"].answer({"results": results(), "meta": meta}, 3)
    assert (answer.tokens, answer.searches) == (None, searches)


@pytest.mark.parametrize(
    ("data", "known"),
    [
        ({"error_code": 110, "error_msg": "Access token invalid"}, ("110", "Access token invalid", "")),
        ({"success": False, "message": "no such model"}, ("", "no such model", "")),
        ({"success": False}, ("", "", "")),
        ({"status": "error", "msg": "key expired", "data": None}, ("", "key expired", "")),
        ({"status": 404, "error": "Not Found", "path": "/x"}, ("404", "Not Found", "")),
        ({"statusCode": 403, "message": "Out of call volume quota."}, ("403", "Out of call volume quota.", "")),
        ({"statusCode": 400, "error": "Bad Request", "message": ["a", "b"]}, ("400", "Bad Request: a; b", "")),
        ({"code": 20012, "message": "Model does not exist.", "data": None}, ("20012", "Model does not exist.", "")),
        ({"code": 1, "msg": "bad", "data": []}, ("1", "bad", "")),
        ({"error": "insufficient_quota", "message": "no money"}, ("insufficient_quota", "no money", "")),
        ({"error": "Unexpected endpoint. (POST /v1/rerank)"}, ("", "Unexpected endpoint. (POST /v1/rerank)", "")),
        ({"error": True, "message": "no"}, ("", "no", "")),
        ({"error": {"message": "no", "type": "x", "code": None}}, ("x", "no", "")),
        ({"errors": ["a", {"message": "b"}]}, ("", "a; b", "")),
        (
            {"detail": [{"loc": ["body", "documents"], "msg": "Field required", "input": {"query": "SECRET"}}]},
            ("", "body.documents: Field required", ""),
        ),
        ({"detail": {"error": "busy"}}, ("", "busy", "")),
        ({"title": "Bad Request", "detail": "texts is missing", "status": 400}, ("400", "texts is missing", "")),
        ({"msg": "what", "requestId": "r"}, ("", "what", "r")),
        ({"code": "success", "message": "done"}, None),
        ({"code": 0, "msg": "ok"}, None),
        ({"error": "", "results": None}, None),
        ({"error": {"code": 0, "message": "ok"}, "results": None}, None),
        ({"message": "ok", "results": []}, None),
    ],
)  # fmt: skip
def test_errors_under_every_name(data: Any, known: tuple[str, str, str] | None) -> None:
    """Whatever a server calls the code and the text, both are told; what it was sent is not repeated."""
    assert error(data) == known


@given(
    JSON | st.dictionaries(st.sampled_from(["error", "detail", "code", "errors", "message", "status"]), JSON)
)
def test_no_body_breaks_the_reading_of_errors(data: Any) -> None:
    """Any JSON at all is an error or isn't; texts are bounded."""
    known = error(data)
    assert known is None or all(isinstance(text, str) and len(text) <= 1100 for text in known)


def test_errors_nested_without_end_are_read() -> None:
    """As deep as the decoder allows, and in no time."""
    deep: Any = "bottom"
    for _ in range(1000):
        deep = {"error": deep, "detail": [deep]}
    assert error(deep) is None
    assert error({"code": "Deep", "message": deep}) == ("Deep", "", "")


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        (
            b"<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title><style>h1 {color: red}"
            b"</style><script>var a = '<b>';</script></head><!-- x --><h1>Sorry, you have been blocked</h1></html>",
            "Attention Required! | Cloudflare Sorry, you have been blocked",
        ),
        (b"<center><h1>413 Request Entity Too Large</h1></center>\r\n<hr>nginx", "413 Request Entity Too Large nginx"),
        (b"upstream &amp; down, 3 < 4", "upstream & down, 3 < 4"),
        (b"\x1b[31mred\x00\xff", " [31mred \N{REPLACEMENT CHARACTER}"),
        (b"<a" * 30_000, "<a" * 100),
        (b"", ""),
    ],
)  # fmt: skip
def test_a_page_is_told_by_its_visible_text(page: bytes, shown: str) -> None:
    """Tags, scripts and control characters are left out: a firewall's page can be recognised."""
    assert visible(page) == shown


INVISIBLE = [
    "",
    " ",
    "\n\t",
    "\u200b",
    "\u200c\u200d",
    "\ufeff",
    "\u2060",
    "\u00ad",
    "\x00",
    "\x00\x01\x7f",
    "\u200b \x00\ufeff",
]


@pytest.mark.parametrize("text", INVISIBLE)
def test_a_text_of_which_nothing_can_be_seen_is_never_sent(text: str) -> None:
    """Zero-width characters, a byte order mark, NUL: APIs refuse the whole request for one of them."""
    assert is_blank(text)
    assert Query("q", "t", ["a", "b", "c"], ["x", text, f"{text}y{text}"]).sendable.tolist() == [0, 2]


@given(st.text(max_size=6))
def test_blank_is_what_is_white_space_control_or_format(text: str) -> None:
    """By Unicode's own categories; but signs that are drawn, as the Arabic number sign, are to be seen."""
    drawn = {
        *map(chr, range(0x600, 0x606)),
        "\u06dd",
        "\u070f",
        "\u0890",
        "\u0891",
        "\u08e2",
        "\U000110bd",
        "\U000110cd",
    }
    unseen = all(
        c not in drawn and (c.isspace() or unicodedata.category(c) in ("Cc", "Cf", "Zs")) for c in text
    )
    assert is_blank(text) == unseen
    assert Query("q", "t", ["a", "b"], ["x", text]).sendable.tolist() == ([0] if unseen else [0, 1])
