"""Long texts take disk, not memory, where files are joined or sorted."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from peak_memory import LINUX

from batchrank.data import Query
from batchrank.errors import InputError
from batchrank.job.sections import Input
from batchrank.read import join
from batchrank.read.join import Join
from batchrank.read.reader import read

Make: TypeAlias = Callable[[Path, int, int], dict[str, object]]

_DEPTH = 20
_READ = """
import pathlib, sys
import orjson
from batchrank.job.sections import Input
from batchrank.read.reader import read
from batchrank.data import Query
keys = orjson.loads(sys.argv[1])
print(sum(len(q.documents) for q in read(Input(**keys)) if isinstance(q, Query)))
# Not ru_maxrss: a process that was just started still counts the peak of the one that started it.
status = pathlib.Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


def text(number: int, size: int) -> str:
    """A text that is like no other, and that its number tells."""
    return f"{number} ".ljust(size, "x")


def joined(folder: Path, documents: int, size: int) -> dict[str, object]:
    """A run that names the documents of a corpus in another order, each once."""
    with (folder / "corpus.jsonl").open("wb") as file:
        for i in range(documents):
            file.write(orjson.dumps({"_id": f"d{i}", "title": "t" * (i % 2), "text": text(i, size)}) + b"\n")
        file.write(orjson.dumps({"_id": "unasked", "text": "z" * size}) + b"\n")
    queries = documents // _DEPTH
    with (folder / "run.jsonl").open("wb") as file:
        for q in range(queries):
            ids = [f"d{q + i * queries}" for i in range(_DEPTH)]
            file.write(orjson.dumps({"query_id": f"q{q}", "query": "x", "candidate_ids": ids}) + b"\n")
    return {"path": str(folder / "run.jsonl"), "corpus": str(folder / "corpus.jsonl")}


def mixed(folder: Path, documents: int, size: int) -> dict[str, object]:
    """Pairs of which no two that follow one another are of one query."""
    queries = documents // _DEPTH
    with (folder / "pairs.jsonl").open("wb") as file:
        for i in range(documents):
            pair = {"query_id": f"q{i % queries}", "query": "x", "doc_id": f"d{i}", "text": text(i, size)}
            file.write(orjson.dumps(pair) + b"\n")
    return {"path": str(folder / "pairs.jsonl"), "sort": True}


@pytest.mark.parametrize(("make", "title"), [(joined, "t\n"), (mixed, "")])
def test_texts_of_any_length_are_grouped_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make, title: str
) -> None:
    """Each document gets its own text, though the texts are many times what the database may hold."""
    monkeypatch.setattr(join, "_MEMORY", "24MB")
    count, size = 4000, 20_000
    found = [q for q in read(Input.model_validate(make(tmp_path, count, size))) if isinstance(q, Query)]
    assert [q.id for q in found] == [f"q{q}" for q in range(count // _DEPTH)]
    for number, query in enumerate(found):
        numbers = [number + i * len(found) for i in range(_DEPTH)]
        assert list(query.doc_ids) == [f"d{i}" for i in numbers]
        assert list(query.documents) == [title * (i % 2) + text(i, size) for i in numbers]


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize(("make", "most"), [(joined, 1000), (mixed, 650)])
@pytest.mark.parametrize(("count", "size"), [(50_000, 10_000), (25_000, 20_000), (20, 13_000_000)])
def test_half_a_gigabyte_of_long_texts_is_grouped(
    tmp_path: Path, make: Make, most: int, count: int, size: int
) -> None:
    """Resident memory, in MB, stays below what the texts take, and below the bound whatever their length."""
    keys = orjson.dumps(make(tmp_path, count, size)).decode()
    done = subprocess.run([sys.executable, "-c", _READ, keys], capture_output=True, check=True)
    read_documents, resident = map(int, done.stdout.split())
    assert read_documents == count
    assert resident < most


def pairs(folder: Path, documents: int, size: int) -> dict[str, object]:
    """One row group of a few megabytes, whose dictionary decodes to a thousand times as much."""
    table = pa.table(
        {
            "query_id": [f"q{i // _DEPTH}" for i in range(documents)],
            "query": ["x"] * documents,
            "doc_id": [f"d{i}" for i in range(documents)],
            "text": pa.DictionaryArray.from_arrays(pa.array([0] * documents), [text(0, size)]),
        }
    )
    pq.write_table(table, folder / "in.parquet", row_group_size=documents)
    return {"path": str(folder / "in.parquet")}


def lists(folder: Path, documents: int, size: int) -> dict[str, object]:
    """The same, a query a row."""
    entry = {"id": "d", "text": text(0, size)}
    row = {"query_id": "q", "query": "x", "candidates": [entry | {"id": f"d{i}"} for i in range(_DEPTH)]}
    table = pa.Table.from_pylist([row | {"query_id": f"q{i}"} for i in range(documents // _DEPTH)])
    pq.write_table(table, folder / "in.parquet", dictionary_pagesize_limit=2**24)
    return {"path": str(folder / "in.parquet")}


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize(("make", "size"), [(pairs, 2**20), (lists, 2**19)])
def test_a_row_group_that_decodes_to_gigabytes_is_read_in_pieces(
    tmp_path: Path, make: Make, size: int
) -> None:
    """Gigabytes from one row group, whose bytes on disk do not tell: read in a fraction of it."""
    keys = orjson.dumps(make(tmp_path, 3000, size)).decode()
    assert (tmp_path / "in.parquet").stat().st_size < 2**26
    done = subprocess.run([sys.executable, "-c", _READ, keys], capture_output=True, check=True)
    read_documents, resident = map(int, done.stdout.split())
    assert read_documents == 3000
    assert resident < 400


def test_out_of_memory_and_a_full_disk_have_remedies_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder for temporary files gives no more memory."""
    monkeypatch.setattr(join, "_MEMORY", "24MB")
    with Join() as database:
        with pytest.raises(InputError, match="split the candidates into files of fewer queries") as error:
            database._run("SELECT list(i) FROM range(30_000_000) r(i)")
        assert "TMPDIR" not in str(error.value)
        database._run("SET max_temp_directory_size = '1MB'")
        with pytest.raises(InputError, match="free some space, or set TMPDIR"):
            database._run(
                "CREATE TABLE t AS SELECT i, md5(i::VARCHAR) AS m FROM range(3_000_000) r(i) ORDER BY m"
            )
