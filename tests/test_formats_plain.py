"""Columns of any Arrow type, decoded once, in pieces of bounded size."""

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from jobs import write_jsonl

from batchrank.data import Query
from batchrank.job.sections import Input
from batchrank.outcomes import Failure
from batchrank.read import parquet, pieces
from batchrank.read import pieces as plain
from batchrank.read.base import Source
from batchrank.read.reader import read

TEXTS = ["a", "bb", None, "", "ü", "a" * 100, "a"]
IDS = [uuid.UUID(int=i * 2**77 + 5) for i in range(4)]


def _dictionary(values: Any) -> Any:
    encoded = pa.array(TEXTS).dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices, encoded.dictionary.cast(values))


def _runs(values: Any) -> Any:
    encoded = pc.run_end_encode(pa.array(TEXTS))
    return pa.RunEndEncodedArray.from_arrays(encoded.run_ends, encoded.values.cast(values))


STORED = {
    "string": pa.array(TEXTS),
    "large": pa.array(TEXTS, pa.large_string()),
    "view": pa.array(TEXTS).cast(pa.string_view()),
    "dictionary": _dictionary(pa.string()),
    "dictionary of views": _dictionary(pa.string_view()),
    "runs": _runs(pa.string()),
    "runs of views": _runs(pa.string_view()),
    "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(TEXTS)),
}


@pytest.mark.parametrize("name", STORED)
def test_strings_are_decoded_from_every_way_to_store_them(name: str) -> None:
    """Whole, sliced, in structs and in lists, they are the strings that they were, of the type that ``plain`` tells."""
    stored = STORED[name]
    for first, end in ((0, 7), (2, 6), (3, 3)):
        found = plain.decoded(stored[first:end])
        assert found.to_pylist() == TEXTS[first:end]
        assert found.type == plain.plain(stored.type)
    structs = pa.StructArray.from_arrays([stored], names=["x"], mask=pa.array([False, True] + [False] * 5))
    assert plain.decoded(structs[1:4]).to_pylist() == [None, {"x": None}, {"x": ""}]
    lists = pa.LargeListArray.from_arrays(pa.array([0, None, 2, 2, 5], pa.int64()), stored)
    if "runs" not in name:  # which pyarrow can't take out of lists
        assert plain.decoded(lists[1:]).to_pylist() == [None, [], TEXTS[2:5]]


@pytest.mark.parametrize("name", STORED)
def test_sizes_are_those_of_what_is_decoded(name: str) -> None:
    """They are told without decoding, through dictionaries, runs and views; a null takes nothing."""
    lengths = [len((text or "").encode()) for text in TEXTS]
    assert pieces.sizes(STORED[name]).tolist() == lengths
    assert pieces.sizes(STORED[name][2:6]).tolist() == lengths[2:6]


@pytest.mark.parametrize("kind", [pa.list_view(pa.string_view()), pa.large_list_view(pa.string())], ids=str)
def test_views_of_lists_are_lists(kind: Any) -> None:
    """Null and empty ones too; their sizes are told without copying what several of them show."""
    array = pa.array([["a"], None, [], ["b", "cc"]], kind)
    assert plain.decoded(array[1:]).to_pylist() == [None, [], ["b", "cc"]]
    assert pieces.sizes(array[1:]).tolist() == [8, 8, 11]


def test_uuids_are_written_as_people_write_them() -> None:
    """In canonical form, also where some are null."""
    values = [IDS[0], None, *IDS[1:]]
    stored = pa.array([value and value.bytes for value in values], pa.binary(16))
    array = pa.ExtensionArray.from_storage(pa.uuid(), stored)
    assert plain.decoded(array[1:]).to_pylist() == [None, *map(str, IDS[1:])]
    assert plain.decoded(array[:0]).to_pylist() == []


def test_a_batch_is_cut_where_it_would_grow_too_large() -> None:
    """Pieces follow one another, hold all rows, and are small; a row beyond the bound is handed out undecoded."""
    long = "x" * 1_000_000
    indices = pa.array([0] * 50 + [1] * 300 + [0], pa.int32())
    texts = pa.DictionaryArray.from_arrays(indices, pa.array([long, "y"]))
    lists = pa.ListArray.from_arrays(pa.array([0, 0, 50, 350, 351], pa.int32()), texts)
    found = list(pieces.pieces(pa.record_batch({"text": texts}), 1))
    assert [piece.first for piece in found] == [1, *np.cumsum([p.rows.num_rows for p in found])[:-1] + 1]
    assert sum(piece.rows.num_rows for piece in found) == 351
    assert max(piece.rows.nbytes for piece in found) < 9_000_000
    too_large = pa.ListArray.from_arrays(pa.array([0, 300, 301]), pa.DictionaryArray.from_arrays(
        pa.array([0] * 301, pa.int32()), pa.array([long])))  # fmt: skip
    first, second = pieces.pieces(pa.record_batch({"docs": too_large}), 8)
    assert (first.first, first.bytes) == (8, 300_000_008)
    assert (second.first, second.bytes, second.rows.column(0).to_pylist()) == (9, None, [[long]])
    assert sum(p.rows.num_rows for p in pieces.pieces(pa.record_batch({"docs": lists}), 1)) == 4


def repeats(path: Path, rows: int, length: int, *, schema: bool = False) -> Path:
    """Pairs, 100 a query, all of which mean one of three long texts of a dictionary."""
    numbers = np.arange(rows)
    texts = pa.array([f"{i} " + "word " * (length // 5) for i in range(3)])
    table = pa.table(
        {
            "query_id": pa.array(numbers // 100).cast(pa.string()),
            "query": ["how"] * rows,
            "doc_id": pa.array(numbers).cast(pa.string()),
            "text": pa.DictionaryArray.from_arrays(pa.array((numbers % 3).astype(np.int32)), texts),
        }
    )
    pq.write_table(table, path, compression="zstd", store_schema=schema)
    return path


@pytest.mark.parametrize("schema", [False, True], ids=["strings", "dictionaries"])
def test_memory_does_not_follow_what_a_dictionary_repeats(tmp_path: Path, schema: bool) -> None:
    """A file of a few KiB that decodes to a gigabyte is read a few MiB at a time, whichever type it says."""
    path = repeats(tmp_path / "x.parquet", 10_000, 100_000, schema=schema)
    assert path.stat().st_size < 100_000
    before = pa.total_allocated_bytes()
    largest = documents = 0
    for query in read(Input(path=(str(path),))):
        assert isinstance(query, Query)
        documents += len(query.doc_ids)
        assert query.documents[1].startswith(f"{int(query.doc_ids[1]) % 3} word")  # type: ignore[union-attr]
        largest = max(largest, pa.total_allocated_bytes() - before)
    assert documents == 10_000
    assert largest < 64 * 2**20


@pytest.mark.parametrize("first", [None, [], [None]])
def test_an_empty_first_row_hides_no_dictionary(tmp_path: Path, first: Any) -> None:
    """The dictionary is looked at through the first row; where it has no text the column is kept encoded."""
    numbers = np.zeros(20_000, np.int32)
    texts = pa.DictionaryArray.from_arrays(pa.array(numbers), pa.array(["word " * 20_000]))
    rest = pa.ListArray.from_arrays(pa.array(np.arange(0, 20_001, 100), pa.int32()), texts)
    lists = pa.chunked_array([pa.array([first], rest.type), rest])
    ids = pa.array([f"q{i}" for i in range(len(lists))])
    table = pa.table({"query_id": ids, "query": ["x"] * len(ids), "docs": lists}).combine_chunks()
    pq.write_table(table, tmp_path / "x.parquet", store_schema=False)
    before = pa.total_allocated_bytes()
    largest, queries = 0, 0
    for item in read(Input(path=(str(tmp_path / "x.parquet"),))):
        queries += isinstance(item, Query)
        largest = max(largest, pa.total_allocated_bytes() - before)
    assert queries == 200
    assert largest < 64 * 2**20


def test_a_plain_column_is_never_kept_encoded(tmp_path: Path) -> None:
    """Ordinary data is read as ever: a dictionary is asked for its longest text only where it could do harm."""
    path = tmp_path / "x.parquet"
    texts = [f"text {i} " + "word " * 50 for i in range(20_000)]
    pq.write_table(pa.table({"query_id": ["q"] * 20_000, "query": ["x"] * 20_000, "text": texts}), path)
    with pq.ParquetFile(path) as file:
        table = parquet.Opened(file, str(path))
        chunks = [file.metadata.row_group(0).column(i) for i in range(3)]
        assert chunks[2].has_dictionary_page
        assert table._reader(0, chunks) is file


def test_a_row_beyond_the_bound_is_refused_by_name(tmp_path: Path) -> None:
    """256 MiB of one row: it is never decoded, the number and the query are told, and the next row is read."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 4002, pa.int32()), pa.array(["w " * 40_000]))
    docs = pa.ListArray.from_arrays(pa.array([0, 1, 4001, 4002], pa.int32()), texts)
    table = pa.table({"query_id": ["a", "big", "c"], "query": ["x"] * 3, "docs": docs})
    pq.write_table(table, tmp_path / "x.parquet", store_schema=False)
    before = pa.total_allocated_bytes()
    first, failure, last = read(Input(path=(str(tmp_path / "x.parquet"),)))
    assert isinstance(first, Query) and isinstance(last, Query)
    assert isinstance(failure, Failure)
    assert (failure.query_id, failure.cause, failure.place.number) == ("big", "row-too-large", 2)
    assert "305 MiB once it is decoded, and no row may take more than 256 MiB" in failure.message
    assert pa.total_allocated_bytes() - before < 2**20


def test_a_query_of_pairs_beyond_the_bound_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documents of a query are held together: all of them count, from however many rows they come."""
    monkeypatch.setattr("batchrank.read.groups.ROW_BYTES", 2**20)
    pairs = [
        {"query_id": f"q{i // 100}", "query": "how", "doc_id": i, "text": "w " * 10_000} for i in range(230)
    ]
    path = write_jsonl(tmp_path / "x.jsonl", pairs)
    first, second, last = read(Input(path=(str(path),)))
    assert isinstance(first, Failure) and isinstance(second, Failure) and isinstance(last, Query)
    assert (first.query_id, first.cause, last.id) == ("q0", "query-too-large", "q2")
    assert "no query's may; split its candidates" in first.message


def test_long_texts_at_the_end_are_read_few_at_a_time(tmp_path: Path) -> None:
    """The mean of a row group tells nothing of where its long texts stand: batches are small, and the rest is read in
    large ones as ever, with every row in its place."""
    lengths = [20] * 100_000 + [50_000] * 2_000
    texts = [f"{i} " + "w" * length for i, length in enumerate(lengths)]
    queries = [f"q{i // 100}" for i in range(len(texts))]
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"query_id": queries, "query": ["x"] * len(texts), "text": texts}), path)
    source = Source("x", str(path), "parquet")
    with parquet.table(source) as table:
        found = list(table.pieces(lambda _: True, rows=4096, documents=4096, size=4 * 2**20))
    sizes = [piece.rows.num_rows for piece in found]
    assert [piece.first for piece in found] == [1, *(np.cumsum(sizes)[:-1] + 1).tolist()]
    assert sum(sizes) == len(texts)
    assert max(piece.rows.nbytes for piece in found) < 30 * 2**20
    assert np.median(sizes) > 2000
    assert [t for piece in found for t in piece.rows.column(2).to_pylist()] == texts
