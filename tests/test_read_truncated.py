"""Files cut off or corrupt: everything before the fault is read, and the file is named."""

import gzip
from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from batchrank.data import Query
from batchrank.errors import InputError
from batchrank.job.sections import Input
from batchrank.outcomes import Failure
from batchrank.read.reader import read

ROWS = 3000


def record(i: int) -> dict[str, object]:
    return {"query_id": f"q{i:05d}", "query": f"query {i * 7919}", "candidates": [f"text {i * 104729}"]}


def pair(i: int) -> dict[str, object]:
    return {"query_id": f"q{i // 10:05d}", "query": "x", "docid": i, "text": f"text {i * 104729}"}


def got(folder: Path) -> tuple[list[str], list[Failure]]:
    found = list(read(Input(path=(str(folder),))))
    queries = [item.id for item in found if isinstance(item, Query)]
    return queries, [item for item in found if isinstance(item, Failure)]


@pytest.mark.parametrize(("compress", "suffix"), [(gzip.compress, "gz"), (zstandard.compress, "zst")])
def test_a_compressed_file_cut_off_gives_what_is_before(
    tmp_path: Path, compress: Callable[[bytes], bytes], suffix: str
) -> None:
    """All complete lines before the cut are queries, the failure names file and line, and the next file is read."""
    whole = b"".join(orjson.dumps(record(i)) + b"\n" for i in range(ROWS))
    blocks = b"".join(compress(whole[i : i + 40_000]) for i in range(0, len(whole), 40_000))
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(blocks[:-700])
    (tmp_path / "b.jsonl").write_bytes(orjson.dumps({**record(0), "query_id": "next"}))
    queries, (failure,) = got(tmp_path)
    assert queries == [f"q{i:05d}" for i in range(len(queries) - 1)] + ["next"]
    assert len(queries) > ROWS * 0.8
    assert (failure.cause, failure.query_id) == ("truncated-file", None)
    assert failure.place.number == len(queries)
    assert f"a.jsonl.{suffix} can't be read past line {len(queries) - 1}: its" in failure.message
    assert "data is cut off; all before it was read" in failure.message


def test_pairs_cut_off_are_not_ranked_without_the_lost_documents(tmp_path: Path) -> None:
    """The query in whose pairs the cut falls fails; those before it are complete."""
    whole = b"".join(orjson.dumps(pair(i)) + b"\n" for i in range(ROWS))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(whole)[:-2000])
    queries, failures = got(tmp_path)
    assert queries == [f"q{i:05d}" for i in range(len(queries))]
    assert [failure.cause for failure in failures] == ["truncated-file"] * 2
    assert [failure.query_id for failure in failures] == [None, f"q{len(queries):05d}"]
    assert "documents of this query may be missing" in failures[1].message


def test_a_lost_part_takes_the_queries_beside_it(tmp_path: Path) -> None:
    """Pairs are cut into files anywhere: the last query before a lost file and the first after it may have had
    documents in it, so they fail; all others are ranked."""
    rows = [pair(i) for i in range(60)]
    for name, part in (("a", rows[:24]), ("b", rows[24:36]), ("c", rows[36:])):
        pq.write_table(pa.Table.from_pylist(part), tmp_path / f"{name}.parquet")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "b.parquet").read_bytes()[:-10])
    queries, failures = got(tmp_path)
    assert queries == ["q00000", "q00001", "q00004", "q00005"]
    assert [(f.query_id, f.cause) for f in failures] == [
        (None, "truncated-file"), ("q00002", "truncated-file"), ("q00003", "truncated-file"),
    ]  # fmt: skip
    assert (
        "b.parquet, row 1 on can't be read, so documents of this query may be missing" in failures[1].message
    )
    assert f"what stands in {tmp_path / 'b.parquet'} can't be read" in failures[2].message


def test_a_parquet_file_without_its_end_gives_nothing_and_is_named(tmp_path: Path) -> None:
    """Parquet keeps its index at the end: a file cut off is lost whole, the next one is read."""
    pq.write_table(pa.Table.from_pylist([record(i) for i in range(ROWS)]), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:-100])
    pq.write_table(pa.Table.from_pylist([record(1)]), tmp_path / "b.parquet")
    queries, (failure,) = got(tmp_path)
    assert queries == ["q00001"]
    assert (failure.cause, failure.query_id, failure.place.number) == ("truncated-file", None, 1)
    assert "a.parquet can't be read at all: " in failure.message
    assert "nothing of it was read" in failure.message


def test_a_corrupt_page_of_parquet_gives_the_row_groups_before(tmp_path: Path) -> None:
    """Where pages have checksums a flipped bit is found; rows of earlier batches are read."""
    path = tmp_path / "a.parquet"
    table = pa.Table.from_pylist([record(i) for i in range(ROWS)])
    pq.write_table(table, path, row_group_size=1000, write_page_checksum=True, use_dictionary=False)
    chunk = pq.ParquetFile(path).metadata.row_group(2).column(1)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(data)
    queries, (failure,) = got(tmp_path)
    assert queries == [f"q{i:05d}" for i in range(2000)]
    assert "a.parquet can't be read past row 2000" in failure.message


def test_a_last_line_cut_off_says_so(tmp_path: Path) -> None:
    """An uncompressed file that ends within a record is a broken line that names the likely reason."""
    (tmp_path / "a.jsonl").write_bytes(orjson.dumps(record(1)) + b"\n" + orjson.dumps(record(2))[:-9])
    queries, (failure,) = got(tmp_path)
    assert (queries, failure.cause) == (["q00001"], "broken-json")
    assert "the file may be cut off" in failure.message


def test_a_file_that_can_t_be_opened_is_named(tmp_path: Path) -> None:
    """Alone it makes the input unusable; among others it is a failure and the others are read."""
    (tmp_path / "a.jsonl").symlink_to("/proc/self/mem/nothing")
    (tmp_path / "b.jsonl").mkdir()
    folder = str(tmp_path / "b.jsonl")
    with pytest.raises(InputError, match="has no data file"):
        list(read(Input(path=(folder,))))
