"""Files of other formats are told for what they are, and never called damaged."""

import base64
import gzip
import pickle
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
from jobs import write_jsonl

from batchrank.data import Query
from batchrank.errors import InputError
from batchrank.job.sections import Input
from batchrank.outcomes import Failure
from batchrank.read import columnar
from batchrank.read.reader import read

ROWS = [{"query_id": f"q{i}", "query": "x", "doc_id": f"d{i}", "text": f"text {i}"} for i in range(3)]
TABLE = pa.Table.from_pylist(ROWS)


def got(path: Path) -> list[Query | Failure]:
    return list(read(Input(path=(str(path),))))


def _sqlite(path: Path) -> None:
    database = sqlite3.connect(path)
    with database:
        database.execute("CREATE TABLE documents (id)")
    database.close()


def _duckdb(path: Path) -> None:
    duckdb.connect(str(path)).close()


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.jsonl", "{}")


def _gzipped_parquet(path: Path) -> None:
    pq.write_table(TABLE, path)
    path.write_bytes(gzip.compress(path.read_bytes()))


def _feather_1(path: Path) -> None:
    path.write_bytes(b"FEA1" + bytes(200) + b"FEA1")  # pyarrow's own writer of it is deprecated


def _orc(path: Path) -> None:
    pyarrow.orc.write_table(TABLE, path)


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(ROWS))


def _json(path: Path) -> None:
    write_jsonl(path, ROWS)


OTHERS: list[tuple[Callable[[Path], None], str, str]] = [
    (_gzipped_parquet, "x.parquet.gz", r"compressed as a whole \(gzip\).*gunzip"),
    (_gzipped_parquet, "x.parquet", r"compressed as a whole \(gzip\).*gunzip"),
    (_orc, "x.orc", r"an ORC file.*pyarrow\.orc\.read_table"),
    (_orc, "x.parquet", r"an ORC file"),
    (_feather_1, "x.feather", r"Feather of version 1.*pandas\.read_feather"),
    (_sqlite, "x.db", r"a SQLite database.*duckdb FILE -c"),
    (_sqlite, "x.jsonl", r"a SQLite database"),
    (_duckdb, "x.duckdb", r"a DuckDB database.*COPY"),
    (_zip, "x.zip", r"a ZIP archive.*unzip"),
    (_pickle, "x.pkl", r"a Python pickle.*may run code"),
    (_json, "x.parquet", r"no Parquet file.*begins like JSON: name it \.jsonl"),
    (_json, "x.arrow", r"no Arrow file, although its name says so"),
]


@pytest.mark.parametrize(
    ("make", "name", "message"), OTHERS, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_file_of_another_format_says_what_it_is(
    tmp_path: Path, make: Callable[[Path], None], name: str, message: str
) -> None:
    """The message names the file, its format and what to do; nothing is called cut off."""
    make(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}, (line|row) 1: .*{message}"):
        got(tmp_path / name)


def test_a_corpus_of_another_format_says_what_it_is(tmp_path: Path) -> None:
    """A database given as a corpus is not a thousand broken lines."""
    _sqlite(tmp_path / "corpus.db")
    run = write_jsonl(tmp_path / "run.jsonl", [{"query_id": "a", "query": "x", "candidate_ids": ["d0"]}])
    with pytest.raises(InputError, match=r"corpus\.db, line 1: the file is a SQLite database"):
        list(read(Input(path=(str(run),), corpus=(str(tmp_path / "corpus.db"),))))


def test_another_format_among_good_files_leaves_them_be(tmp_path: Path) -> None:
    """The file is one failure; those before and after it are read."""
    pq.write_table(TABLE.slice(0, 1), tmp_path / "a.parquet")
    _orc(tmp_path / "b.parquet")
    pq.write_table(TABLE.slice(1, 1), tmp_path / "c.parquet")
    found = got(tmp_path)
    assert [item.id for item in found if isinstance(item, Query)] == ["q0", "q1"]
    (failure,) = (item for item in found if isinstance(item, Failure))
    assert (failure.cause, failure.place.file) == ("wrong-format", str(tmp_path / "b.parquet"))


class _Keys(pe.KmsClient):  # type: ignore[misc]
    """Wraps no key in truth: what is tested is a reader that has none."""

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_encrypted_parquet_is_an_error_and_not_the_end_of_the_process(
    tmp_path: Path, plaintext_footer: bool
) -> None:
    """pyarrow aborts when it is asked for an encrypted column; whole files and single columns are refused before."""
    factory = pe.CryptoFactory(lambda config: _Keys())
    wanted = pe.EncryptionConfiguration(
        footer_key="footer", column_keys={"columns": ["text"]}, plaintext_footer=plaintext_footer
    )
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), wanted)
    path = tmp_path / "x.parquet"
    with pq.ParquetWriter(path, TABLE.schema, encryption_properties=properties) as file:
        file.write_table(TABLE)
    with pytest.raises(InputError, match=r"x\.parquet, row 1: the file is encrypted Parquet"):
        got(path)
    with pytest.raises(InputError, match="the file is encrypted Parquet"):
        list(read(Input(path=(str(path),), corpus=(str(path),))))


def test_what_pyarrow_can_t_decode_is_not_called_damaged() -> None:
    """Only what a restored file would mend is told to be restored."""
    missing = pa.ArrowNotImplementedError("Support for codec 'lzo' not built")
    assert "write the file with another type" in (columnar.reason(missing) or "")
    assert "write the file with another type" in (columnar.reason(OSError("Not yet implemented: x")) or "")
    nested = pa.ArrowNotImplementedError("Nested data conversions not implemented for chunked array outputs")
    for large in (pa.ArrowCapacityError("array cannot contain more than 2147483646 bytes"), nested):
        assert "rows of it take more than 2 GiB" in (columnar.reason(large) or "")
    assert "too little memory" in (columnar.reason(pa.ArrowMemoryError("malloc")) or "")
    assert columnar.reason(OSError("CRC checksum verification failed")) is None
    assert columnar.reason(pa.ArrowInvalid("Parquet magic bytes not found in footer")) is None


def test_a_flat_triplet_names_its_column(tmp_path: Path) -> None:
    """``positive`` and ``negative`` are lists; strings are an error that says so."""
    pq.write_table(pa.table({"query": ["a"], "positive": ["b"], "negative": ["c"]}), tmp_path / "x.parquet")
    with pytest.raises(
        InputError, match=r"the list of positive texts .positive. is of type string; write lists"
    ):
        got(tmp_path / "x.parquet")
