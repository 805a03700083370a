"""Texts that are not in UTF-8, and files that no reader takes."""

import zipfile
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.feather
import pytest
from field_data import stream_of
from hypothesis import assume, given
from hypothesis import strategies as st

from batchrank.data import Query
from batchrank.errors import InputError
from batchrank.io.opening import in_utf8
from batchrank.job.sections import Input
from batchrank.read.reader import read

ENCODINGS = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "utf-8"]
RECORD = {"query_id": "q1", "query": "Höhe 高さ 🗻", "candidates": [{"id": "d1", "text": "tall\nand wide"}]}


def test_json_lines_are_read_in_any_unicode(tmp_path: Path) -> None:
    """Windows writes UTF-16; with or without a byte order mark the text is the same."""
    for encoding in ENCODINGS:
        path = tmp_path / f"{encoding}.jsonl"
        path.write_bytes((orjson.dumps(RECORD).decode() + "\r\n").encode(encoding))
        (query,) = read(Input(path=(str(path),)))
        assert isinstance(query, Query)
        assert (query.text, list(query.documents)) == (RECORD["query"], ["tall\nand wide"])


@given(st.text(st.characters(codec="utf-8"), max_size=50), st.sampled_from(["utf-16", "utf-32"]))
def test_any_text_becomes_the_same_in_utf8(text: str, encoding: str) -> None:
    """What a mark announces is recoded without a loss; a NUL after UTF-16's mark makes it UTF-32's."""
    assume(encoding == "utf-32" or not text.startswith("\0"))
    stream = stream_of(text.encode(encoding))
    assert in_utf8(stream).read().decode() == text


def test_utf16_that_is_cut_off_says_so() -> None:
    """Half a character at the end is a fault of the file, not a missing letter."""
    with pytest.raises(OSError, match="UTF-16 text is cut off or corrupt"):
        in_utf8(stream_of("ab".encode("utf-16")[:-1])).read()


def test_files_that_no_reader_takes_say_what_they_are(tmp_path: Path) -> None:
    """An archive or an Arrow file with a wrong name is called so, with what to do about it."""
    with zipfile.ZipFile(tmp_path / "a.jsonl", "w") as archive:
        archive.writestr("x.jsonl", "{}")
    pyarrow.feather.write_feather(pa.table({"query": ["x"]}), str(tmp_path / "b.json"))
    (tmp_path / "c.tsv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    wanted = {"a.jsonl": "a ZIP archive .*unpack", "b.json": r"Arrow IPC .*\.arrow", "c.tsv": "git lfs pull"}
    for name, message in wanted.items():
        with pytest.raises(InputError, match=message):
            list(read(Input(path=(str(tmp_path / name),))))
