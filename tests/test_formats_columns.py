"""Which name holds what."""

import pytest

from batchrank.job.sections import Columns
from batchrank.read.base import ColumnsError
from batchrank.read.columns import DocumentRoles, document_roles, record_roles


def fields(*names: str, **nested: tuple[str, ...]) -> dict[str, tuple[str, ...] | None]:
    return dict.fromkeys(names) | nested


@pytest.mark.parametrize("query_id", ["query_id", "qid", "query-id", "_id", "id", "custom_id"])
@pytest.mark.parametrize("query", ["query", "query_text", "question", "text"])
@pytest.mark.parametrize("candidates", ["candidates", "documents", "docs", "passages", "candidate_docs"])
def test_each_documented_name_of_a_list_record_is_found(query_id: str, query: str, candidates: str) -> None:
    """Any documented names for id, query and list are found without a mapping."""
    roles = record_roles(fields(query_id, query, candidates), Columns())
    assert (roles.query_id, roles.query, roles.candidates) == ((query_id,), (query,), (candidates,))


@pytest.mark.parametrize("doc_id", ["doc_id", "docid", "pid", "did", "corpus-id", "_id", "id"])
@pytest.mark.parametrize("text", ["text", "passage", "doc", "contents", "content", "body", "document"])
def test_each_documented_name_of_a_document_is_found(doc_id: str, text: str) -> None:
    """Any documented names for a document's id and text are found, in a candidate and in a pair."""
    expected = DocumentRoles((text,), ("title",), (doc_id,), ("score",))
    assert document_roles(fields(doc_id, text, "title", "score"), Columns()) == expected
    roles = record_roles(fields("qid", "query", doc_id, text, "title", "score"), Columns())
    assert (roles.candidates, roles.document) == (None, expected)


def test_the_shape_of_rank_llm_is_found() -> None:
    """A query object of text and qid, and candidates of docid, score and a nested doc, need no mapping."""
    roles = record_roles(fields("candidates", query=("text", "qid")), Columns())
    assert (roles.query_id, roles.query) == (("query", "qid"), ("query", "text"))
    found = document_roles(fields("docid", "score", doc=("url", "title", "segment")), Columns())
    assert found == DocumentRoles(("doc", "segment"), ("doc", "title"), ("docid",), ("score",))


@pytest.mark.parametrize(
    ("names", "query_id", "doc_id"),
    [
        (("_id", "query", "doc_id", "text"), "_id", "doc_id"),
        (("query_id", "query", "_id", "text"), "query_id", "_id"),
        (("custom_id", "query", "id", "text"), "custom_id", "id"),
        (("query_id", "query", "text"), "query_id", None),
    ],
)
def test_a_shared_name_goes_to_the_one_role_left_for_it(
    names: tuple[str, ...], query_id: str, doc_id: str | None
) -> None:
    """In a pair, ``_id`` and ``id`` are the document's where the query has its own name, and the other way round."""
    roles = record_roles(fields(*names), Columns())
    assert roles.document is not None
    assert (roles.query_id, roles.document.doc_id) == ((query_id,), doc_id and (doc_id,))


def test_text_is_the_query_where_only_it_can_be() -> None:
    """A pair of ``text`` and ``passage`` has its query in ``text``."""
    roles = record_roles(fields("qid", "text", "passage"), Columns())
    assert roles.document is not None
    assert (roles.query, roles.document.text) == (("text",), ("passage",))


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (("query_id", "qid", "query", "docs"), "input.columns.query_id"),
        (("_id", "id", "query", "docs"), "input.columns.query_id"),
        (("qid", "query", "question", "docs"), "input.columns.query"),
        (("qid", "query", "docs", "passages"), "input.columns.candidates"),
        (("id", "query", "text"), "input.columns.query_id or input.columns.doc_id"),
        (("qid", "query", "_id", "id", "text"), "input.columns.doc_id"),
        (("qid", "query", "docid", "pid", "text"), "input.columns.doc_id"),
        (("qid", "query", "text", "contents"), "input.columns.text"),
    ],
)
def test_ambiguity_names_the_key_to_set(names: tuple[str, ...], key: str) -> None:
    """Two names for one role, or one name for two, is an error that names the key."""
    with pytest.raises(ColumnsError, match=f"set {key} to the right name") as caught:
        record_roles(fields(*names), Columns())
    assert caught.value.ambiguous


def test_two_ids_of_a_query_object_and_its_record_are_ambiguous() -> None:
    """An unmistakable id beside the query object's own is not guessed at."""
    with pytest.raises(ColumnsError, match=r"query_id and query\.qid could both be the query's id"):
        record_roles(fields("query_id", "docs", query=("text", "qid")), Columns())


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (("query", "docs"), "input.columns.query_id"),
        (("qid", "docs"), "input.columns.query"),
        (("qid", "query"), "input.columns.candidates"),
    ],
)
def test_a_missing_role_lists_names_and_key(names: tuple[str, ...], key: str) -> None:
    """The message tells what was looked for, what is there, and what to set."""
    with pytest.raises(ColumnsError, match=key) as caught:
        record_roles(fields(*names), Columns())
    assert names[0] in str(caught.value)
    assert not caught.value.ambiguous


def test_the_job_s_names_win() -> None:
    """``input.columns`` settles what the names leave open, also below an object."""
    columns = Columns(query_id="qid", query="q", text="doc.body", doc_id="key")
    roles = record_roles(fields("query_id", "qid", "q", "query", "key", "id", doc=("text", "body")), columns)
    assert (roles.query_id, roles.query) == (("qid",), ("q",))
    assert roles.document == DocumentRoles(("doc", "body"), None, ("key",), None)


def test_a_doc_id_named_for_candidates_leaves_the_record_s_own_id() -> None:
    """``input.columns.doc_id: id`` speaks of the candidates when there is a list."""
    assert record_roles(fields("id", "query", "docs"), Columns(doc_id="id")).query_id == ("id",)


def test_a_name_that_is_not_there_is_an_error() -> None:
    """A misspelt ``input.columns`` never falls back to a guess."""
    with pytest.raises(ColumnsError, match=r"input\.columns\.doc_id names 'dociid', which is not among"):
        document_roles(fields("docid", "text"), Columns(doc_id="dociid"))


def test_a_plain_text_is_taken_before_an_object_of_the_same_role() -> None:
    """Beside ``text``, a ``doc`` object only describes the document."""
    assert document_roles(fields("docid", "text", doc=("url",)), Columns()).text == ("text",)
