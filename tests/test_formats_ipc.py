"""Arrow files and streams, and folders that ``datasets`` saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import polars
import pyarrow as pa
import pyarrow.feather
import pytest
from jobs import rows, write_jsonl

from batchrank.data import Query
from batchrank.errors import InputError
from batchrank.job.sections import Input
from batchrank.outcomes import Failure
from batchrank.read.layout import find
from batchrank.read.reader import read

ROWS = rows(40, 6)
TABLE = pa.Table.from_pylist(ROWS)


def got(path: Path, **keys: Any) -> list[Query | Failure]:
    return list(read(Input.model_validate({"path": str(path), **keys})))


def values(found: list[Query | Failure]) -> list[tuple[str, str, list[str], list[str]]]:
    shown = []
    for query in found:
        assert isinstance(query, Query), query
        shown.append((query.id, str(query.text), list(query.doc_ids), list(map(str, query.documents))))
    return shown


@pytest.fixture
def expected(tmp_path: Path) -> list[tuple[str, str, list[str], list[str]]]:
    return values(got(write_jsonl(tmp_path / "expected.jsonl", ROWS)))


def _file(path: Path) -> None:
    with pa.ipc.new_file(path, TABLE.schema) as file:
        file.write_table(TABLE, max_chunksize=7)


def _stream(path: Path) -> None:
    with pa.ipc.new_stream(path, TABLE.schema) as file:
        file.write_table(TABLE, max_chunksize=7)


def _compressed(path: Path) -> None:
    pyarrow.feather.write_feather(TABLE, path, compression="zstd")


def _polars(path: Path) -> None:
    polars.DataFrame(ROWS).write_ipc(path)


def _polars_stream(path: Path) -> None:
    polars.DataFrame(ROWS).write_ipc_stream(path)


WRITERS: list[Callable[[Path], None]] = [_file, _stream, _compressed, _polars, _polars_stream]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("name", ["x.arrow", "x.feather", "x.ipc", "x"])
def test_files_and_streams_are_read_whoever_wrote_them(
    tmp_path: Path, write: Callable[[Path], None], name: str, expected: Any
) -> None:
    """By their suffix or their first bytes; rows are numbered as in Parquet."""
    write(tmp_path / name)
    found = got(tmp_path / name)
    assert values(found) == expected
    assert [query.place.number for query in found if isinstance(query, Query)] == list(range(1, 41))
    assert values(got(tmp_path / name, format="arrow", limit=3)) == expected[:3]


@pytest.mark.parametrize(("write", "cut"), [(_file, 30), (_stream, 8), (_stream, 60)])
def test_a_file_cut_off_says_so(
    tmp_path: Path, write: Callable[[Path], None], cut: int, expected: Any
) -> None:
    """A stream cut off between two batches too: its end mark is missing."""
    path = tmp_path / "x.arrow"
    write(path)
    path.write_bytes(path.read_bytes()[:-cut])
    *queries, failure = got(path)
    assert values(queries) == expected[: len(queries)]
    assert isinstance(failure, Failure)
    assert (failure.cause, failure.place.number) == ("truncated-file", len(queries) + 1)


def test_a_saved_dataset_is_read_from_its_folder(tmp_path: Path, expected: Any) -> None:
    """Shards in order; what else is in the folder is left alone."""
    import datasets  # takes a second

    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "set", num_shards=3)
    (tmp_path / "set" / "cache-0123.arrow").write_bytes(b"none of the data")
    assert values(got(tmp_path / "set")) == expected
    assert [Path(source.name).name for source in find([str(tmp_path / "set")])] == [
        f"data-0000{i}-of-00003.arrow" for i in range(3)
    ]
    (tmp_path / "set" / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(InputError, match=r"no such file or folder: .*data-00001-of-00003\.arrow"):
        got(tmp_path / "set")


def test_a_saved_dataset_of_splits_needs_to_know_which(tmp_path: Path, expected: Any) -> None:
    """``input.split`` picks it; a single one needs no word."""
    import datasets  # takes a second

    data = datasets.Dataset.from_list(ROWS)
    splits = datasets.DatasetDict({"train": data.select(range(30)), "test": data.select(range(30, 40))})
    splits.save_to_disk(tmp_path / "set")
    with pytest.raises(
        InputError, match=r"input\.split: .*set is a saved dataset with the splits train, test; say"
    ):
        got(tmp_path / "set")
    assert values(got(tmp_path / "set", split="test")) == expected[30:]
    datasets.DatasetDict({"only": data}).save_to_disk(tmp_path / "one")
    assert values(got(tmp_path / "one")) == expected


def test_a_saved_dataset_can_be_the_corpus(tmp_path: Path, expected: Any) -> None:
    """Texts are joined from it as from any other collection."""
    import datasets

    texts = [{"_id": c["id"], "text": c["text"]} for row in ROWS for c in row["candidates"]]
    datasets.Dataset.from_list(texts).save_to_disk(tmp_path / "corpus")
    ids = [{**row, "candidates": [c["id"] for c in row["candidates"]]} for row in ROWS]
    named = write_jsonl(tmp_path / "run.jsonl", ids)
    assert values(got(named, corpus=str(tmp_path / "corpus"))) == expected


@pytest.mark.parametrize("write", [_file, _stream, _compressed])
def test_remote_files_are_read_too(write: Callable[[Path], None], tmp_path: Path, expected: Any) -> None:
    """Through fsspec, whose files have one position for all."""
    write(tmp_path / "x.arrow")
    fsspec.filesystem("memory").pipe(f"/{write.__name__}/x.arrow", (tmp_path / "x.arrow").read_bytes())
    assert values(list(read(Input(path=(f"memory://{write.__name__}/x.arrow",))))) == expected
