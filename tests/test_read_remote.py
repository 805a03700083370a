"""Files at an address: read as files here are."""

import gzip
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from field_data import QUERIES, beir, jsonl, mteb, parquet, run_file
from stores import served

from batchrank.data import Query
from batchrank.errors import InputError, MissingExtraError
from batchrank.io import storage
from batchrank.job.sections import Input, Output
from batchrank.outcomes import Failure
from batchrank.read.layout import facts, find
from batchrank.read.reader import read

BUCKET = "data"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An object store on loopback; yields what addresses end in."""
    with served() as (host, port):
        yield f"?scheme=http&endpoint_override={host}:{port}&allow_bucket_creation=true"


@pytest.fixture
def memory() -> Iterator[str]:
    """A file system of fsspec's."""
    import fsspec

    yield "memory://"
    fsspec.filesystem("memory").store.clear()


def upload(folder: Path, address: str, options: str) -> str:
    """Copy a folder to an address; return the address it then has."""
    from pyarrow import fs

    target = f"{address}{folder.name}"
    system, inner = storage.filesystem(target + options)
    system.create_dir(inner, recursive=True)
    fs.copy_files(str(folder), inner, fs.LocalFileSystem(), system)
    return target


@pytest.fixture(params=["s3", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Uploads a folder to each kind of store; returns its address, and what further addresses end in."""
    options = request.getfixturevalue(request.param)

    def put(folder: Path) -> tuple[str, str]:
        if request.param == "memory":
            return upload(folder, options, ""), ""
        return upload(
            folder, f"s3://{BUCKET}-{tmp_path.name.replace('_', '-')[:40].strip('-')}/in/", options
        ), options

    return put


def got(*paths: str, **keys: Any) -> list[Query]:
    found = list(read(Input(path=paths, **keys)))
    assert not [item for item in found if isinstance(item, Failure)]
    return [item for item in found if isinstance(item, Query)]


def values(found: list[Query]) -> list[Any]:
    return [(q.id, q.text, list(q.doc_ids), list(q.documents)) for q in found]


def test_files_folders_and_patterns_are_read_from_a_store(tmp_path: Path, place: Any) -> None:
    """JSON lines, compressed or not, and Parquet; named, in a folder, by patterns, ``**`` included."""
    jsonl(tmp_path / "set/a.jsonl.gz", QUERIES[:2])
    parquet(tmp_path / "set/b.parquet", QUERIES[2:4])
    jsonl(tmp_path / "set/deep/er/c.jsonl", QUERIES[4:])
    jsonl(tmp_path / "set/_skipped.jsonl", QUERIES[4:])
    expected = values(got(str(tmp_path / "set"), str(tmp_path / "set/**/c.*")))
    at, options = place(tmp_path / "set")
    assert values(got(at + options, f"{at}/**/c.*{options}")) == expected
    assert values(
        got(f"{at}/a.jsonl.gz{options}", f"{at}/[bc].par*{options}", f"{at}/deep/er/c.jsonl{options}")
    ) == (expected)


def test_datasets_are_recognised_in_a_store(tmp_path: Path, place: Any) -> None:
    """A folder of BEIR's or MTEB's, and a run over it."""
    run_file(beir(tmp_path / "beir") / "run.trec"), mteb(tmp_path / "mteb")
    expected = [q["query_id"] for q in QUERIES]
    (first, options), (second, _) = place(tmp_path / "beir"), place(tmp_path / "mteb")
    assert [q.id for q in got(first + options)] == expected
    assert [q.id for q in got(second + options, format="mteb")] == expected
    assert [q.id for q in got(str(tmp_path / "beir/run.trec"), corpus=(second + options,))] == expected


def test_changes_in_a_store_are_noticed(tmp_path: Path, place: Any) -> None:
    """Sizes and times tell whether a file changed, as they do here; names carry no options."""
    jsonl(tmp_path / "set/a.jsonl", QUERIES)
    at, options = place(tmp_path / "set")
    (before,) = facts(Input(path=(at + options,))) or []
    assert before[1] == (tmp_path / "set/a.jsonl").stat().st_size
    jsonl(tmp_path / "set/a.jsonl", QUERIES[:2])
    place(tmp_path / "set")
    assert facts(Input(path=(at + options,))) != [before]
    assert [source.name for source in find([at + options])] == [f"{at}/a.jsonl"]


def test_what_is_not_in_a_store_is_named(tmp_path: Path, place: Any) -> None:
    """The message names the address, without its options."""
    jsonl(tmp_path / "set/a.jsonl", QUERIES)
    at, options = place(tmp_path / "set")
    with pytest.raises(InputError, match=f"no such file or folder: {at}/none.jsonl; correct the path"):
        got(f"{at}/none.jsonl{options}")
    with pytest.raises(InputError, match="no file matches"):
        got(f"{at}/*.parquet{options}")


def test_a_cut_file_in_a_store_is_used_up_to_the_fault(tmp_path: Path, memory: str) -> None:
    """As with a file here, what stands before the cut is ranked."""
    shutil.rmtree(tmp_path / "set", ignore_errors=True)
    path = jsonl(tmp_path / "set/a.jsonl", QUERIES)
    data = gzip.compress(path.read_bytes()) + gzip.compress(b'{"x": 1}\n')[:-4]
    path.unlink()
    (tmp_path / "set/a.jsonl.gz").write_bytes(data)
    found = list(read(Input(path=(upload(tmp_path / "set", memory, ""),))))
    assert [item.cause for item in found if isinstance(item, Failure)][-1:] == ["truncated-file"]
    assert len([item for item in found if isinstance(item, Query)]) == len(QUERIES)


@pytest.mark.parametrize("missing", ["fsspec", "huggingface_hub"])
def test_without_a_store_s_library_the_install_line_is_told(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing extra names itself."""
    for name in [n for n in sys.modules if n.split(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "fsspec":
        monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'batchrank\[remote\]'"):
        got(f"hf://datasets/{missing}/none/a.jsonl")


def test_a_scheme_that_nobody_knows_is_an_error() -> None:
    """The message names the address."""
    with pytest.raises(InputError, match="nope://x/y"):
        got("nope://x/y")


def test_keys_never_stand_in_an_address() -> None:
    """They would end up in reports."""
    with pytest.raises(ValueError, match="would end up in reports"):
        Input(path=("s3://key:secret@bucket/x",))
    for path in ("s3://key:secret@bucket/x", "abfs://f@account/x?client_secret=x", "s3://b/x?secret_key=x"):
        with pytest.raises(ValueError, match="would end up in reports"):
            Output(path=path)
