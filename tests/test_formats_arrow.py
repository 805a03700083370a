"""Every Arrow type that can hold an id, a text, a score or a list."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrank.data import Query
from batchrank.errors import InputError
from batchrank.job.sections import Input
from batchrank.outcomes import Failure
from batchrank.read import arrow
from batchrank.read import pieces as plain
from batchrank.read.reader import read

TEXTS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.large_string()),
]
INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
LISTS = [pa.list_, pa.large_list, pa.list_view, pa.large_list_view, lambda item: pa.list_(item, 2)]


def parquet(path: Path, columns: dict[str, Any]) -> list[Query | Failure]:
    pq.write_table(pa.table(columns), path)
    return list(read(Input(path=(str(path),))))


@pytest.mark.parametrize("kind", TEXTS, ids=str)
def test_strings_of_every_type_are_texts(kind: Any) -> None:
    """Views, large, binary and dictionary-encoded strings are the same texts."""
    array = pa.array(["a", None, "ü"], pa.string())
    array = plain.decoded(array.dictionary_encode().cast(kind) if "dict" in str(kind) else array.cast(kind))
    assert arrow.is_text(plain.plain(kind))
    assert arrow.strings(array) == ["a", None, "ü"]
    assert arrow.strings(array, missing="") == ["a", "", "ü"]
    assert arrow.runs(array).tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", [*INTEGERS, pa.decimal128(5, 0), pa.decimal256(5, 0)], ids=str)
def test_whole_numbers_of_every_width_are_ids(kind: Any) -> None:
    """Integers and decimals without a fraction become strings."""
    array = pa.array([7, 7, None, 12], pa.int64()).cast(kind) if "dec" not in str(kind) else None
    array = array if array is not None else pa.array([Decimal(7), Decimal(7), None, Decimal(12)], kind)
    assert arrow.is_identifier(kind)
    assert arrow.strings(array) == ["7", "7", None, "12"]
    assert arrow.runs(array).tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    "kind", [*INTEGERS, pa.float16(), pa.float32(), pa.float64(), pa.decimal128(5, 2), pa.null()], ids=str
)
def test_numbers_of_every_type_are_scores(kind: Any) -> None:
    """Scores are 64-bit floats, NaN where null."""
    array = pa.array([None, None], kind)
    if kind != pa.null():
        array = pa.array([Decimal(2), None], kind) if "dec" in str(kind) else pa.array([2.0, None]).cast(kind)
    assert arrow.is_number(kind)
    values, wrong = arrow.numbers(array)
    np.testing.assert_array_equal(values, [np.nan if kind == pa.null() else 2.0, np.nan])
    assert wrong is None


def test_whole_numbers_beyond_53_bits_are_scores() -> None:
    """They are rounded, as any number is that becomes a float."""
    values, _ = arrow.numbers(pa.array([2**60 + 1, None, 2**64 - 1], pa.uint64()))
    assert values[[0, 2]].tolist() == [2.0**60, 2.0**64]


def test_infinite_scores_are_wrong_and_nan_is_missing() -> None:
    """Data frames write NaN for what is missing; an infinite score is nobody's."""
    wrong = arrow.numbers(pa.array([1.0, None, np.nan, np.inf]))[1]
    assert wrong is not None
    assert wrong.tolist() == [False, False, False, True]


@pytest.mark.parametrize("make", LISTS, ids=["list", "large", "view", "large view", "fixed"])
def test_lists_of_every_type_are_candidates(tmp_path: Path, make: Any) -> None:
    """Every kind of list is read, also below a null."""
    kind = make(pa.struct([("docid", pa.int32()), ("text", pa.string())]))
    rows = [
        [{"docid": 1, "text": "a"}, {"docid": 2, "text": None}],
        None,
        [{"docid": 3, "text": "b"}, {"docid": 1, "text": ""}],
    ]
    found = parquet(
        tmp_path / "x.parquet", {"qid": [1, 2, 3], "query": ["x"] * 3, "docs": pa.array(rows, kind)}
    )
    assert [(q.id, q.doc_ids, q.documents) for q in found if isinstance(q, Query)] == [
        ("1", ["1", "2"], ["a", ""]),
        ("3", ["3", "1"], ["b", ""]),
    ]
    assert [f.cause for f in found if isinstance(f, Failure)] == ["no-candidates"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"qid": [1.5]}, "the query id .qid. is of type double; write strings or whole numbers"),
        ({"query": [7]}, "the query .query. is of type int64; write strings"),
        ({"docs": ["text"]}, "the candidates .docs. are of type string; write lists"),
        ({"docs": [[1]]}, "each candidate .docs. is of type int64; write strings or structs"),
        ({"docs": [[{"text": "a", "score": "high"}]]}, "the score .score. is of type string; write numbers"),
    ],
)
def test_a_column_of_a_wrong_type_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    """The message names the column, its type and the type wanted."""
    with pytest.raises(InputError, match=message):
        parquet(tmp_path / "x.parquet", {"qid": [1], "query": ["x"], "docs": [["a"]]} | changed)


def test_null_columns_are_missing_values(tmp_path: Path) -> None:
    """A column of type null is read as if each of its values were missing; ids can't be."""
    kind = pa.list_(pa.struct([("text", pa.string()), ("score", pa.null())]))
    docs = pa.array([[{"text": "a"}, {"text": "b"}]], kind)
    (query,) = parquet(tmp_path / "x.parquet", {"qid": ["q"], "query": ["x"], "docs": docs})
    assert isinstance(query, Query)
    assert (query.doc_ids, query.first_stage_scores) == (["0", "1"], None)
    (failure,) = parquet(tmp_path / "y.parquet", {"qid": ["q"], "query": ["x"], "docs": pa.nulls(1)})
    assert isinstance(failure, Failure)
    assert failure.cause == "no-candidates"
    kind = pa.list_(pa.struct([("docid", pa.null()), ("text", pa.string())]))
    with pytest.raises(
        InputError, match=r"the document's id .docid. is null in every row; .*drop the column"
    ):
        parquet(
            tmp_path / "z.parquet", {"qid": ["q"], "query": ["x"], "docs": pa.array([[{"text": "a"}]], kind)}
        )


def test_a_row_that_pyarrow_leaves_out_is_a_failure(tmp_path: Path) -> None:
    """A row group of one row whose list of dictionary values spans pages comes back empty: that isn't silent."""
    texts = pa.array(["a", "b"]).dictionary_encode()
    columns = {
        "query_id": ["q1"],
        "query": ["x"],
        "candidates": pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), texts),
    }
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path, data_page_size=1)
    (found,) = read(Input(path=(str(path),)))
    if isinstance(found, Failure):  # a pyarrow without that fault reads the row
        assert found.cause == "unreadable-file"
        assert "row group 1 has 1 rows, 1 of which pyarrow leaves out" in found.message
    else:
        assert list(found.documents) == ["a", "b"]
