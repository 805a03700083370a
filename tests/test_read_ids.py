"""Ids that are null or empty, and lists that are: bad records in every format, and nobody else's answer is touched."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs import failed, make_job, rankings, run, write_jsonl

from batchrank.data import Query
from batchrank.errors import InputError
from batchrank.job.sections import Input
from batchrank.outcomes import Failure
from batchrank.read.reader import read

TEXTS = {f"d{i}": f"text {i}" for i in range(12)}
Make = Callable[[Path, list[dict[str, Any]], Any], Path]

_QUERY = [("query_id", pa.string()), ("query", pa.string())]
_DOCUMENT = pa.struct([("id", pa.string()), ("text", pa.string())])
PAIRS = pa.schema([*_QUERY, ("doc_id", pa.string()), ("text", pa.string())])
LISTS = pa.schema([*_QUERY, ("candidates", pa.list_(_DOCUMENT))])
ID_PAIRS = pa.schema([*_QUERY, ("doc_id", pa.string())])
ID_LISTS = pa.schema([*_QUERY, ("candidate_ids", pa.list_(pa.string()))])
COLUMNS = pa.struct([("id", pa.list_(pa.string()))])
ID_COLUMNS = pa.schema([*_QUERY, ("candidates", COLUMNS)])


def _parquet(folder: Path, rows: list[dict[str, Any]], schema: Any) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "x.parquet", row_group_size=3)
    return folder / "x.parquet"


def _arrow(folder: Path, rows: list[dict[str, Any]], schema: Any) -> Path:
    with pa.ipc.new_file(folder / "x.arrow", schema) as file:
        file.write_table(pa.Table.from_pylist(rows, schema=schema), max_chunksize=3)
    return folder / "x.arrow"


def _jsonl(folder: Path, rows: list[dict[str, Any]], schema: Any) -> Path:
    return write_jsonl(folder / "x.jsonl", rows)


MAKE = [_parquet, _arrow, _jsonl]


def corpus(folder: Path) -> Path:
    return write_jsonl(folder / "corpus.jsonl", [{"_id": i, "text": text} for i, text in TEXTS.items()])


def got(**keys: Any) -> tuple[dict[str, list[tuple[str, str]]], list[tuple[str | None, str, int]]]:
    """The documents of each query, and of each failure the query's id, the cause and the row or line."""
    queries, failures = {}, []
    for item in read(Input.model_validate(keys)):
        if isinstance(item, Query):
            queries[item.id] = list(zip(item.doc_ids, map(str, item.documents), strict=True))
        else:
            failures.append((item.query_id, item.cause, item.place.number))
    return queries, failures


def documents(*ids: str) -> list[tuple[str, str]]:
    return [(i, TEXTS[i]) for i in ids]


@pytest.mark.parametrize("make", MAKE)
def test_a_null_query_id_moves_no_query_s_documents(tmp_path: Path, make: Make) -> None:
    """Pairs of ids joined with a corpus: every query gets its own documents, the nameless rows are bad records."""
    ids = ["a", "a", None, "b", "", "c", "c"]
    rows = [{"query_id": q, "query": f"query {q}", "doc_id": f"d{i}"} for i, q in enumerate(ids)]
    queries, failures = got(path=str(make(tmp_path, rows, ID_PAIRS)), corpus=str(corpus(tmp_path)))
    assert queries == {"a": documents("d0", "d1"), "b": documents("d3"), "c": documents("d5", "d6")}
    assert failures == [(None, "no-query-id", 3), (None, "no-query-id", 5)]


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("shape", ["lists", "columns"])
def test_a_list_without_documents_is_a_dead_letter(tmp_path: Path, make: Make, shape: str) -> None:
    """Null and empty lists of ids, a null id within a list and a null query id: each is told, the rest is joined."""
    lists: dict[Any, Any] = {
        "a": ["d0", "d1"], "empty": [], "b": ["d2"], "null": None, None: ["d3"], "hole": ["d4", None],
        "blank": ["", "d5"], "c": ["d6"],
    }  # fmt: skip
    name = "candidate_ids" if shape == "lists" else "candidates"
    rows = [
        {"query_id": q, "query": "x", name: ids if shape == "lists" or ids is None else {"id": ids}}
        for q, ids in lists.items()
    ]
    schema = ID_LISTS if shape == "lists" else ID_COLUMNS
    queries, failures = got(path=str(make(tmp_path, rows, schema)), corpus=str(corpus(tmp_path)))
    assert queries == {"a": documents("d0", "d1"), "b": documents("d2"), "c": documents("d6")}
    assert failures == [
        (None, "no-query-id", 5),
        ("empty", "no-candidates", 2),
        ("null", "no-candidates", 4),
        ("hole", "no-document-id", 6),
        ("blank", "no-document-id", 7),
    ]


@pytest.mark.anyio
async def test_dead_letters_of_an_id_only_run_are_written_and_not_paid_for(tmp_path: Path) -> None:
    """``failed.jsonl`` holds the query without candidates and the row without an id; the others are ranked."""
    rows: list[dict[str, Any]] = [
        {"query_id": "a", "query": "x", "candidate_ids": ["d0", "d1"]},
        {"query_id": None, "query": "x", "candidate_ids": ["d2"]},
        {"query_id": "empty", "query": "x", "candidate_ids": []},
        {"query_id": "b", "query": "x", "candidate_ids": ["d3"]},
    ]
    path = _parquet(tmp_path, rows, ID_LISTS)
    job = make_job(tmp_path, path, input={"path": str(path), "corpus": str(corpus(tmp_path))})
    assert (await run(job)).exit_code == 3
    found = {row["query_id"]: {e["doc_id"] for e in row["ranking"]} for row in rankings(job)}
    assert found == {"a": {"d0", "d1"}, "b": {"d3"}}
    letters = [(letter["query_id"], letter["cause"]) for letter in failed(job)]
    assert letters == [(None, "no-query-id"), ("empty", "no-candidates")]


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("wrong", [None, ""])
def test_a_pair_without_a_document_id_fails_its_query(tmp_path: Path, make: Make, wrong: str | None) -> None:
    """No id is made up where there is a column of them; with texts at hand and without."""
    ids = [("a", "d0"), ("bad", "d1"), ("bad", wrong), ("b", "d3")]
    rows = [{"query_id": q, "query": "x", "doc_id": d, "text": "text 3"} for q, d in ids]
    queries, failures = got(path=str(make(tmp_path, rows, PAIRS)))
    assert queries == {"a": [("d0", "text 3")], "b": [("d3", "text 3")]}
    # Parquet says where the query begins, and in the message where the document is; JSON lines say the latter.
    assert [failure[:2] for failure in failures] == [("bad", "no-document-id")]
    bare = [{key: row[key] for key in ("query_id", "query", "doc_id")} for row in rows]
    queries, failures = got(path=str(make(tmp_path, bare, ID_PAIRS)), corpus=str(corpus(tmp_path)))
    assert queries == {"a": documents("d0"), "b": documents("d3")}
    assert failures == [("bad", "no-document-id", 2)]


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("wrong", [{"id": None, "text": "x"}, {"id": "", "text": "x"}, None])
def test_a_candidate_without_an_id_fails_its_query(tmp_path: Path, make: Make, wrong: Any) -> None:
    """In a list whose documents have ids, one that has none, or that is null, is named by its number."""
    good = {"id": "d0", "text": "text 0"}
    rows = [{"query_id": q, "query": "x", "candidates": [good]} for q in ("a", "bad", "b")]
    rows[1]["candidates"] = [good, wrong]
    found = list(read(Input(path=(str(make(tmp_path, rows, LISTS)),))))
    first, failure, last = found
    assert isinstance(first, Query) and isinstance(last, Query) and isinstance(failure, Failure)
    assert (failure.query_id, failure.cause, failure.place.number) == ("bad", "no-document-id", 2)
    assert "candidate 2 of the list: the document's id is null or empty" in failure.message


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_string(), pa.string_view()], ids=str)
def test_an_empty_id_of_any_type_is_none(tmp_path: Path, kind: Any) -> None:
    """Bytes, views and large strings of no length name no document and no query."""
    ids = pa.array(["a", "", "b", "b"]).cast(pa.binary()).cast(kind)
    docs = pa.array(["d0", "d1", "d2", ""]).cast(pa.binary()).cast(kind)
    table = pa.table({"query_id": ids, "query": ["x"] * 4, "doc_id": docs, "text": ["t"] * 4})
    pq.write_table(table, tmp_path / "x.parquet")
    queries, failures = got(path=str(tmp_path / "x.parquet"))
    assert queries == {"a": [("d0", "t")]}
    assert failures == [(None, "no-query-id", 2), ("b", "no-document-id", 3)]


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("wrong", [None, ""])
def test_ids_beside_texts_must_be_there(tmp_path: Path, make: Make, wrong: str | None) -> None:
    """A hole in ``candidate_ids`` is no document's number."""
    schema = pa.schema([*ID_LISTS, ("candidate_docs", pa.list_(pa.string()))])
    rows = [{"query_id": q, "query": "x", "candidate_docs": ["s", "t"]} for q in ("a", "bad")]
    rows[0]["candidate_ids"], rows[1]["candidate_ids"] = ["d0", "d1"], ["d0", wrong]  # type: ignore[list-item]
    queries, failures = got(path=str(make(tmp_path, rows, schema)))
    assert queries == {"a": [("d0", "s"), ("d1", "t")]}
    assert failures == [("bad", "no-document-id", 2)]


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("wrong", [None, ""])
def test_a_labelled_record_s_id_is_its_own(tmp_path: Path, make: Make, wrong: str | None) -> None:
    """Where there are query ids, a null one isn't numbered."""
    lists = [(name, pa.list_(pa.string())) for name in ("positive", "negative")]
    rows = [{"query_id": q, "query": "x", "positive": ["p"], "negative": ["n"]} for q in ("a", wrong, "b")]
    queries, failures = got(path=str(make(tmp_path, rows, pa.schema([*_QUERY, *lists]))))
    assert (list(queries), failures) == (["a", "b"], [(None, "no-query-id", 2)])


@pytest.mark.parametrize("make", MAKE)
def test_a_corpus_record_without_an_id_is_named(tmp_path: Path, make: Make) -> None:
    """Null and empty ids of a corpus are bad records, and nothing is joined with them."""
    schema = pa.schema([("_id", pa.string()), ("text", pa.string())])
    texts = make(tmp_path, [{"_id": i, "text": "t"} for i in ("d0", None, "", "d1")], schema)
    rows = write_jsonl(
        tmp_path / "run.jsonl", [{"query_id": "a", "query": "x", "candidate_ids": ["d0", "d1"]}]
    )
    queries, failures = got(path=str(rows), corpus=str(texts))
    assert queries == {"a": [("d0", "t"), ("d1", "t")]}
    assert failures == [(None, "no-id", 2), (None, "no-id", 3)]


def test_text_columns_with_an_empty_id_are_told_as_in_other_formats(tmp_path: Path) -> None:
    """Tabs with nothing between them are no id: in MS MARCO's top1000, and in a collection."""
    (tmp_path / "top1000.tsv").write_text("a\td0\tx\tt\n\td1\tx\tt\nb\t\tx\tt\nb\td2\tx\tt\n")
    queries, failures = got(path=str(tmp_path / "top1000.tsv"))
    assert queries == {"a": [("d0", "t")]}
    assert failures == [(None, "no-query-id", 2), ("b", "no-document-id", 3)]
    (tmp_path / "corpus.tsv").write_text("d0\tt\n\tu\n")
    rows = write_jsonl(tmp_path / "run.jsonl", [{"query_id": "a", "query": "x", "candidate_ids": ["d0"]}])
    queries, failures = got(path=str(rows), corpus=str(tmp_path / "corpus.tsv"))
    assert (queries, failures) == ({"a": [("d0", "t")]}, [(None, "no-id", 2)])


@pytest.mark.parametrize("make", MAKE)
def test_a_corpus_may_say_the_same_twice(tmp_path: Path, make: Make) -> None:
    """Identical records of one id are harmless; different texts are an error of the queries that name the id."""
    schema = pa.schema([("_id", pa.string()), ("title", pa.string()), ("text", pa.string())])
    texts = [("d0", "", "same"), ("d1", "T", "x"), ("d0", "", "same"), ("d1", None, "T\nx"), ("d2", "", "one"),
             ("d2", "", "two"), ("d0", "", "same")]  # fmt: skip
    named = make(tmp_path, [dict(zip(("_id", "title", "text"), row, strict=True)) for row in texts], schema)
    lists = {"a": ["d0", "d1"], "b": ["d0", "d2"], "c": ["d1"]}
    rows = [{"query_id": q, "query": "x", "candidate_ids": ids} for q, ids in lists.items()]
    source = Input(path=(str(write_jsonl(tmp_path / "run.jsonl", rows)),), corpus=(str(named),))
    first, failure, last = read(source)
    assert isinstance(first, Query) and isinstance(last, Query) and isinstance(failure, Failure)
    assert list(first.documents) == ["same", "T\nx"]
    assert (failure.query_id, failure.cause) == ("b", "duplicate-document")
    assert "document id 'd2' comes more than once" in failure.message
    assert "with different texts" in failure.message


@pytest.mark.parametrize("make", MAKE)
def test_a_query_whose_text_is_null_is_not_said_to_be_absent(tmp_path: Path, make: Make) -> None:
    """``queries`` has it, without a text: an empty query, not a missing one."""
    schema = pa.schema([("_id", pa.string()), ("text", pa.string())])
    asked = make(tmp_path, [{"_id": "a", "text": "x"}, {"_id": "b", "text": None}], schema)
    rows = write_jsonl(tmp_path / "run.jsonl", [{"query_id": q, "candidate_ids": ["d0"]} for q in "ab"])
    queries, failures = got(path=str(rows), corpus=str(corpus(tmp_path)), queries=str(asked))
    assert (list(queries), failures) == (["a"], [("b", "empty-query", 2)])


def test_bytes_that_are_not_utf8_fail_their_row_in_joined_files_too(tmp_path: Path) -> None:
    """In a run and in a corpus the row is found and named; the others are joined."""
    rows = [
        {"query_id": q, "query": b"x", "doc_id": d}
        for q, d in ((b"a", b"d0"), (b"b", b"\xff"), (b"c", b"d1"))
    ]
    path = _parquet(tmp_path, rows, None)
    texts = pa.table({"_id": [b"d0", b"d1", b"d2"], "text": [b"one", b"two", b"\xff"]})
    pq.write_table(texts, tmp_path / "corpus.parquet")
    queries, failures = got(path=str(path), corpus=str(tmp_path / "corpus.parquet"))
    assert queries == {"a": [("d0", "one")], "c": [("d1", "two")]}
    assert failures == [(None, "invalid-utf8", 2), (None, "invalid-utf8", 3)]


def test_columns_of_ids_that_are_none_are_named(tmp_path: Path) -> None:
    """The message tells the column and its type."""
    path = _parquet(tmp_path, [{"query_id": "a", "query": "x", "candidate_ids": [1.5]}], None)
    with pytest.raises(
        InputError, match=r"each document id .candidate_ids. is of type double; write strings"
    ):
        got(path=str(path), corpus=str(corpus(tmp_path)))
    path = _parquet(tmp_path, [{"query_id": 1.5, "query": "x", "doc_id": "a"}], None)
    with pytest.raises(InputError, match=r"the query id .query_id. is of type double; write strings"):
        got(path=str(path), corpus=str(corpus(tmp_path)))
