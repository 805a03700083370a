"""JSON files that are not JSON lines."""

import json
from pathlib import Path
from typing import Any

import pytest
from field_data import stream_of
from hypothesis import given
from hypothesis import strategies as st

from batchrank.data import Query
from batchrank.errors import InputError
from batchrank.job.sections import Input
from batchrank.outcomes import Failure
from batchrank.read import jsonstream
from batchrank.read.jsonstream import Shape, shape_of, values
from batchrank.read.reader import read

RECORDS = [
    {
        "query_id": f"q{i}",
        "query": f"query {i} [x] {{y}}",
        "candidates": [{"id": "a", "text": "one\ntwo"}, {"id": "b", "text": 'th"ree'}],
    }
    for i in range(60)
]


def got(path: Path, **keys: Any) -> list[Query | Failure]:
    return list(read(Input.model_validate({"path": str(path), **keys})))


@pytest.mark.parametrize("indent", [None, 0, 4, "\t"])
def test_an_array_of_records_is_read(tmp_path: Path, indent: Any) -> None:
    """Pretty-printed or not, with the line on which each record begins."""
    path = tmp_path / "x.json"
    path.write_text(json.dumps(RECORDS, indent=indent) + "\n")
    found = got(path)
    assert [q.id for q in found if isinstance(q, Query)] == [r["query_id"] for r in RECORDS]
    lines = path.read_text().splitlines()
    for query in found[1:]:
        assert indent is None or lines[query.place.number - 1].strip() == "{"


def test_printed_records_are_read(tmp_path: Path) -> None:
    """What ``jq .`` makes of JSON lines: each record over several lines."""
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps(r, indent=2) for r in RECORDS))
    assert [q.id for q in got(path) if isinstance(q, Query)] == [r["query_id"] for r in RECORDS]


def test_a_record_that_cannot_be_read_leaves_the_others(tmp_path: Path) -> None:
    """NaN or half a surrogate pair is that record's fault; a cut array is told, and what stands before is read."""
    path = tmp_path / "x.json"
    texts = [json.dumps(record, indent=1) for record in RECORDS[:4]]
    texts[1] = texts[1].replace('"q1"', "NaN")
    texts[2] = texts[2].replace("query 2", "\\ud800")
    path.write_text("[" + ",\n".join(texts) + "]")
    found = got(path)
    assert [f.cause for f in found if isinstance(f, Failure)] == ["broken-json", "invalid-unicode"]
    assert [q.id for q in found if isinstance(q, Query)] == ["q0", "q3"]
    path.write_text(json.dumps(RECORDS)[:-40])
    *queries, failure = got(path)
    assert isinstance(failure, Failure)
    assert failure.cause == "truncated-file"
    assert len(queries) == 59


def test_results_name_the_key_to_set(tmp_path: Path) -> None:
    """Results of BEIR or ranx hold no texts: the message says which key does."""
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"q1": {"d1": 1.5}, "q2": {"d2": 0.5}}))
    with pytest.raises(InputError, match=r"these are results, .* set input\.corpus"):
        got(path)


def test_columns_of_a_data_frame_say_what_to_write(tmp_path: Path) -> None:
    """What ``DataFrame.to_json`` writes by default is neither records nor results."""
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"query_id": {"0": 1, "1": 1}, "text": {"0": "a", "1": "b"}}))
    with pytest.raises(InputError, match=r"one object of columns, .*orient='records'"):
        got(path)


def test_shapes_are_told_by_the_start() -> None:
    """A record whose query is an object with a numeric id is no results file."""
    assert shape_of(b'{"query": {"qid": 7, "text": "x"}, "candidates": []}\n') is Shape.LINES
    assert shape_of(b'\xef\xbb\xbf{\n  "q1": {\n    "d1": -1.5') is Shape.RESULTS
    assert shape_of(b'{"1": {"d\\"1": 12, "d2": 3}}') is Shape.RESULTS
    assert shape_of(b"  \n [ {") is Shape.ARRAY
    assert shape_of(b'{\n  "query_id": "q1",\n') is Shape.VALUES
    assert shape_of(b"") is Shape.LINES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(JSON, max_size=8), st.integers(1, 40), st.sampled_from([None, 1]))
def test_any_array_is_read_as_json_reads_it(data: list[Any], size: int, indent: int | None) -> None:
    """However little is read at a time, the values are those of the standard library."""
    stream = stream_of(json.dumps(data, indent=indent).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonstream, "_BUFFER", size)
        patch.setattr(jsonstream, "_NEAR", size + 16)
        found = [json.loads(str(text)) for _, text in values(stream, Shape.ARRAY)]
    assert found == data
