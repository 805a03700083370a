"""Files of columns made by chance, read and compared with a plain reader of CSV: nothing lost, nothing changed."""

import bz2
import csv
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from batchrank.data import Query
from batchrank.job.sections import Input
from batchrank.outcomes import Failure
from batchrank.read.reader import read

_WORDS = st.text(st.sampled_from("ab \t\n\"',;|é高🗻\\"), max_size=8)
_DOCUMENTS = st.lists(st.tuples(_WORDS, st.sampled_from(["", "1", "-2.5", "1e3"])), min_size=1, max_size=3)
_QUERIES = st.lists(st.tuples(_WORDS, _DOCUMENTS), min_size=1, max_size=6)
_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
_NAMES = ["qid", "query", "pid", "text", "score"]


@settings(max_examples=150, deadline=None)
@given(
    data=_QUERIES,
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    header=st.permutations(_NAMES),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be"]),
    compression=st.sampled_from(sorted(_COMPRESS)),
    end=st.sampled_from(["\n", "\r\n"]),
    bad=st.integers(0, 2),
)
def test_any_file_of_columns_is_read_whole(
    data: list[tuple[str, Any]],
    delimiter: str,
    quoting: Any,
    header: list[str],
    encoding: str,
    compression: str,
    end: str,
    bad: int,
) -> None:
    """Queries read and bad records are all that went in, with the ids and texts that a plain reader of CSV finds."""
    # Where quotes are rare a line of a text that looks like a whole record is taken for one.
    tabs = max(
        words.count("\t") for query, documents in data for words in (query, *(w for w, _ in documents))
    )
    assume(delimiter != "\t" or tabs < len(_NAMES) - 1)
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerow(header)
    for number, (query, documents) in enumerate(data):
        for place, (words, score) in enumerate(documents):
            row = dict(zip(_NAMES, [f"q{number}", query, f"d{place}", words, score], strict=True))
            writer.writerow([row[name] for name in header])
    # Among so many good lines a bad one is the exception, as it has to be.
    for i in range(20):
        writer.writerow(
            [{"qid": f"z{i}", "query": "x", "pid": "d0", "text": "y", "score": ""}[n] for n in header]
        )
    for _ in range(bad):
        writer.writerow(["too", "few", "fields"])
    suffix = "tsv" if delimiter == "\t" else "csv"
    with TemporaryDirectory() as folder:
        path = Path(folder, f"x.{suffix}{compression}")
        path.write_bytes(_COMPRESS[compression](text.getvalue().encode(encoding)))
        found = list(read(Input(path=(str(path),))))
    _compare(found, list(csv.reader(io.StringIO(text.getvalue(), newline=""), delimiter=delimiter)), bad)


def _compare(found: list[Query | Failure], table: list[list[str]], bad: int) -> None:
    expected: dict[str, list[dict[str, str]]] = {}
    for row in table[1:]:
        if len(row) == len(table[0]):
            record = dict(zip(table[0], row, strict=True))
            expected.setdefault(record["qid"], []).append(record)
    failures = [f for f in found if isinstance(f, Failure)]
    read = [q for q in found if isinstance(q, Query)]
    assert [f.cause for f in failures if f.query_id is None] == ["broken-line"] * bad
    failed = {f.query_id for f in failures if f.query_id is not None}
    assert sorted([*failed, *(q.id for q in read)]) == sorted(expected)
    for name in failed:
        rows = expected[str(name)]
        assert not rows[0]["query"].strip() or not any(row["text"].strip() for row in rows)
    for query in read:
        rows = expected[query.id]
        assert query.text == rows[0]["query"]
        pairs = dict(zip(query.doc_ids, query.documents, strict=True))
        assert pairs == {row["pid"]: row["text"] for row in rows}
