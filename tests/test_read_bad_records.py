"""Every kind of bad record: what is said about it, and that the rest is read."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrank.data import Query
from batchrank.errors import InputError, Place
from batchrank.job.sections import Columns, Input
from batchrank.outcomes import Failure
from batchrank.read import jsonl as lines
from batchrank.read.reader import read

GOOD = {"query_id": "good", "query": "x", "candidates": [{"docid": "a", "text": "one"}]}
LAST = {**GOOD, "query_id": "last"}


def got(path: Path, **keys: Any) -> list[Query | Failure]:
    return list(read(Input(path=(str(path),), **keys)))


def only_failure(found: list[Query | Failure]) -> Failure:
    """The one failure between two good queries."""
    assert [item.id for item in found if isinstance(item, Query)] == ["good", "last"]
    (failure,) = (item for item in found if isinstance(item, Failure))
    return failure


def bad(**changes: Any) -> dict[str, Any]:
    record = {**GOOD, "query_id": "bad", **changes}
    return {key: value for key, value in record.items() if value is not ...}


LINES: list[tuple[bytes, str | None, str, str]] = [
    (b'{"query_id": "bad", ', None, "broken-json", "the line ends within its record at character 20"),
    (b'{"query_id" "bad"}', None, "broken-json", "the line is not JSON at character 13"),
    (
        b'{"query_id": "bad", "score": NaN}',
        None,
        "broken-json",
        "NaN at character 30.*no such number: write null",
    ),
    (b'{"query_id": 1e999}', None, "broken-json", "number is infinity"),
    (b'[{"query_id": "bad"},', None, "broken-json", r"a JSON array where one object a line is expected"),
    (b"[" * 2000, None, "broken-json", "a JSON array"),
    (b'{"query_id": "b\xff"}', None, "invalid-utf8", "byte 16 of the line is 0xff"),
    (b'{"query_id": "\\ud800"}', None, "invalid-unicode", "half a surrogate pair at character 15"),
    (b"7", None, "wrong-type", "the line holds a number, not an object"),
]
RECORDS: list[tuple[dict[str, Any], str | None, str, str]] = [
    (bad(query_id=None), None, "no-query-id", "the query id is null or empty"),
    (bad(query_id=""), None, "no-query-id", "the query id is null or empty"),
    (bad(query_id=1.5), None, "wrong-type", "the query id is a number with a fraction"),
    (bad(query_id=True), None, "wrong-type", "the query id is true or false"),
    (bad(query_id=...), None, "no-query-id", "none of query_id, qid, .* set input.columns.query_id"),
    (bad(query=None), "bad", "null-query", "the query is null; write its text"),
    (bad(query=" \n"), "bad", "empty-query", "the query is empty; write its text"),
    (bad(query=3), "bad", "wrong-type", "the query is a number, not a string"),
    (bad(candidates=[]), "bad", "no-candidates", "the query has no candidates"),
    (bad(candidates=None), "bad", "no-candidates", "the query has no candidates"),
    (bad(candidates=...), None, "no-candidates", "set input.columns.candidates .* or input.columns.text"),
    (bad(candidates="a"), "bad", "wrong-type", "the candidates are a string; write a list"),
    (bad(candidates=["a", 5]), "bad", "wrong-type", "candidate 2 of the list: it is a number"),
    (
        bad(candidates=[{"text": "a"}, {"text": 5}]),
        "bad",
        "wrong-type",
        "candidate 2 of the list: .*text is a number",
    ),
    (
        bad(candidates=[{"text": "a", "id": []}]),
        "bad",
        "wrong-type",
        "candidate 1 of the list: .*id is a list",
    ),
    (
        bad(candidates=[{"text": "a", "score": "1"}]),
        "bad",
        "wrong-type",
        "the score is a string; write a number",
    ),
    (
        bad(candidates=[{"id": 1, "txt": "a"}]),
        "bad",
        "no-text",
        "no document text: none of text, .*set input.columns.text",
    ),
    (bad(candidates=["", None, " "]), "bad", "all-documents-blank", "all 3 documents of the query are empty"),
    (
        bad(candidates=["\u200b", "\ufeff\x00"]),
        "bad",
        "all-documents-blank",
        "all 2 documents of the query are empty",
    ),
    (bad(docs=["a"]), None, "ambiguous-columns", "candidates and docs .* set input.columns.candidates"),
    (
        bad(candidates=[{"id": "a", "text": "1"}, {"id": "b", "text": "2"}, {"id": "a", "text": "3"}]),
        "bad",
        "duplicate-document",
        "document id 'a' comes twice among the query's candidates, as number 1 and number 3",
    ),
]


@pytest.mark.parametrize(
    ("line", "query_id", "cause", "message"), LINES + [(orjson.dumps(r), i, c, m) for r, i, c, m in RECORDS]
)
def test_a_bad_line_is_named_and_the_rest_is_read(
    tmp_path: Path, line: bytes, query_id: str | None, cause: str, message: str
) -> None:
    """Each kind of bad line has its cause, place, query and advice; its neighbours are queries."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join([orjson.dumps(GOOD), line, orjson.dumps(LAST)]))
    failure = only_failure(got(path))
    assert (failure.query_id, failure.cause, failure.place) == (query_id, cause, Place(str(path), "line", 2))
    assert re.search(message, failure.message)


def test_a_line_too_long_is_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line over the limit is skipped to its end; one of just the limit is read."""
    monkeypatch.setattr(lines, "MAX_LINE", 2**20)
    path = tmp_path / "x.jsonl"
    fits = orjson.dumps(GOOD).ljust(2**20)
    path.write_bytes(fits + b"\r\n" + fits + b" \n" + orjson.dumps(LAST))
    failure = only_failure(got(path))
    assert (failure.cause, failure.place.number) == ("line-too-long", 2)
    assert "the line is longer than 1 MiB; split the query's candidates" in failure.message


@pytest.mark.slow
def test_a_line_over_64_mib_is_skipped(tmp_path: Path) -> None:
    """The documented limit holds."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(orjson.dumps(GOOD) + b"\n" + b" " * (64 * 2**20 + 1) + b"\n" + orjson.dumps(LAST))
    assert "longer than 64 MiB" in only_failure(got(path)).message


def test_a_query_id_that_comes_back_names_both_places(tmp_path: Path) -> None:
    """The second one of two records is refused, with both lines."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, [GOOD, {**GOOD, "query": "y"}, LAST])))
    failure = only_failure(got(path))
    assert (failure.query_id, failure.cause) == ("good", "duplicate-query")
    assert f"at {path}, line 2 was already used at {path}, line 1" in failure.message


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("changes", "cause", "message"),
    [
        ({"query": None}, "null-query", "the query is null"),
        (
            {"query": "other"},
            "conflicting-query",
            "(row|line) 4 has the same query id but another query text",
        ),
        ({"pid": "0"}, "duplicate-document", "document id '0' comes twice"),
    ],
)
def test_a_bad_pair_fails_its_query_as_a_whole(
    tmp_path: Path, suffix: str, changes: dict[str, Any], cause: str, message: str
) -> None:
    """A query is never ranked without a document that its pairs name; other queries are."""
    rows = [{"qid": "bad", "query": "x", "pid": str(n), "text": "a"} for n in range(4)]
    rows[2] |= changes
    ends = [{"qid": i, "query": "x", "pid": "0", "text": "a"} for i in ("good", "last")]
    path = tmp_path / f"x{suffix}"
    rows = [ends[0], *rows, ends[1]]
    if suffix == ".jsonl":
        path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    failure = only_failure(got(path))
    assert (failure.query_id, failure.cause) == ("bad", cause)
    assert re.search(message, failure.message)


@pytest.mark.parametrize(
    ("changes", "query_id", "cause"),
    [
        ({"query_id": None}, None, "no-query-id"),
        ({"query": None}, "bad", "null-query"),
        ({"query": ""}, "bad", "empty-query"),
        ({"candidates": None}, "bad", "no-candidates"),
        ({"candidates": []}, "bad", "no-candidates"),
        ({"candidates": [{"docid": "a", "text": None, "score": None}]}, "bad", "all-documents-blank"),
        ({"candidates": [{"docid": "a", "text": "x", "score": np.inf}]}, "bad", "bad-score"),
        ({"candidates": [{"docid": "a", "text": "x"}] * 2}, "bad", "duplicate-document"),
        ({"query_id": "good"}, "good", "duplicate-query"),
    ],
)
def test_a_bad_row_is_named_and_the_rest_is_read(
    tmp_path: Path, changes: dict[str, Any], query_id: str | None, cause: str
) -> None:
    """Bad rows of Parquet have the causes of bad lines, and a row number."""
    document = pa.struct([("docid", pa.string()), ("text", pa.string()), ("score", pa.float64())])
    schema = pa.schema(
        [("query_id", pa.string()), ("query", pa.string()), ("candidates", pa.list_(document))]
    )
    path = tmp_path / "x.parquet"
    pq.write_table(pa.Table.from_pylist([GOOD, bad(**changes), LAST], schema=schema), path)
    failure = only_failure(got(path))
    assert (failure.query_id, failure.cause, failure.place) == (query_id, cause, Place(str(path), "row", 2))


@pytest.mark.parametrize("shape", ["lists", "pairs"])
def test_bytes_that_are_not_utf8_in_parquet_fail_their_row(tmp_path: Path, shape: str) -> None:
    """Parquet does not check its texts; the row is found and named."""
    rows = [{"qid": i, "query": "x", "docs": [b"a", b"b"], "text": b"a"} for i in ("good", "bad", "last")]
    rows[1] |= {"docs": [b"a", b"\xff"], "text": b"\xff"}
    for row in rows:
        del row["text" if shape == "lists" else "docs"]
    path = tmp_path / "x.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    failure = only_failure(got(path))
    assert (failure.query_id, failure.cause, failure.place.number) == ("bad", "invalid-utf8", 2)
    assert "is not UTF-8" in failure.message


def test_names_that_nobody_understands_are_one_error(tmp_path: Path) -> None:
    """A file of unknown names is not a million failures: the run stops and tells which names it looked for."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"key": 1, "wording": "x", "docs": ["a"]}\n' * 100_000)
    found: list[Query | Failure] = []
    with pytest.raises(InputError, match=r"line 1: no query: none of query, .* is among .*key, wording"):
        found.extend(read(Input(path=(str(path),))))
    assert len(found) < 100


def test_a_file_of_other_columns_among_good_ones_is_left_out_and_named(tmp_path: Path) -> None:
    """A Parquet file that holds something else fails as a whole; those before and after it are read."""
    pq.write_table(pa.Table.from_pylist([GOOD]), tmp_path / "1.parquet")
    pq.write_table(pa.table({"qrels": [1]}), tmp_path / "2.parquet")
    pq.write_table(pa.Table.from_pylist([LAST]), tmp_path / "3.parquet")
    failure = only_failure(got(tmp_path))
    assert (failure.query_id, failure.place.file) == (None, str(tmp_path / "2.parquet"))


def test_keys_for_documents_can_t_apply_to_plain_strings(tmp_path: Path) -> None:
    """``input.columns.doc_id`` is not silently ignored where candidates have no ids."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(orjson.dumps({**GOOD, "candidates": ["a"]}))
    with pytest.raises(InputError, match="but the candidates are plain strings"):
        got(path, columns=Columns(doc_id="docid"))
