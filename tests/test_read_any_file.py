"""Files made by chance, read and compared with a reader of ten lines: nothing silently wrong, nothing silently gone."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import write_jsonl

from batchrank.data import Query, is_blank
from batchrank.errors import InputError
from batchrank.job.sections import Input
from batchrank.read.reader import read

Record = dict[str, Any]

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
IDS = [f"d{i}" for i in range(9)]
DOC_ID = st.sampled_from([*IDS, *IDS, None, ""])
SCORE = st.none() | st.floats(-9, 9)
RECORD = st.fixed_dictionaries(
    {
        "named": st.sampled_from([True, True, True, None, ""]),
        "query": st.sampled_from(["one", "two"]) | st.none() | TEXT,
        "documents": st.none()
        | st.lists(st.tuples(DOC_ID, SCORE), max_size=4, unique_by=lambda pair: pair[0] or 0),
    }
)
STRINGS = {
    "string": pa.string(), "large": pa.large_string(), "binary": pa.binary(), "large binary": pa.large_binary(),
    "view": pa.string_view(), "dictionary": None, "runs": None,
}  # fmt: skip
SHAPES = ("nested", "columns", "pairs", "ids")


@st.composite
def ways(draw: st.DrawFn) -> Record:
    """How a file is written."""
    return {
        "format": draw(st.sampled_from(["parquet", "arrow", "jsonl"])),
        "flat": draw(st.sampled_from(sorted(STRINGS))),
        "inner": draw(st.sampled_from(["string", "large", "binary", "large binary"])),
        "list": draw(st.sampled_from([pa.list_, pa.large_list])),
        "group": draw(st.integers(1, 5)),
        "files": draw(st.integers(1, 3)),
        "options": {
            "use_dictionary": draw(st.booleans()),
            "compression": draw(st.sampled_from(["none", "snappy", "zstd"])),
            "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
            "store_schema": draw(st.booleans()),
        },
    }


def stored(records: list[Record], schema: Any, way: Record) -> Any:
    """The records as a table whose strings are of the kind that the way says."""
    table = pa.Table.from_pylist(records, schema=schema)
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_string(column.type):
            column = _as(column, way)
        columns[name] = column
    return pa.table(columns)


def _as(column: Any, way: Record) -> Any:
    kind = way["flat"]
    if kind == "runs" and way["format"] == "arrow":
        return pc.run_end_encode(column)
    return column.dictionary_encode() if STRINGS[kind] is None else column.cast(STRINGS[kind])


def write(folder: Path, name: str, records: list[Record], schema: Any, way: Record) -> str:
    """Write the records as the way says, into one file or several; a pattern that matches them."""
    size = max(-(-len(records) // way["files"]), 1)
    parts = [records[first : first + size] for first in range(0, len(records), size)]
    for number, part in enumerate(parts):
        path = folder / f"{name}-{number}.{way['format']}"
        if way["format"] == "jsonl":
            write_jsonl(path, part)
            continue
        table = stored(part, schema, way)
        if way["format"] == "parquet":
            pq.write_table(table, path, row_group_size=way["group"], **way["options"])
        else:
            with pa.ipc.new_stream(path, table.schema) as file:
                file.write_table(table, max_chunksize=way["group"])
    return str(folder / f"{name}-*")


def shaped(records: list[Record], shape: str, way: Record) -> tuple[list[Record], Any]:
    """The records in a shape, and its schema."""
    text = STRINGS[way["inner"]] if way["format"] != "jsonl" else pa.string()
    heads = [("query_id", pa.string()), ("query", pa.string())]
    leaves = [("id", text), ("text", text), ("score", pa.float64())]
    binary = "binary" in str(text)

    def leaf(value: str | None) -> Any:
        return value.encode() if binary and value is not None else value

    rows = [
        {key: r[key] for key in ("query_id", "query")}
        | {"candidates": None if r["documents"] is None else [
            {"id": leaf(d["id"]), "text": leaf(d["text"]), "score": d["score"]} for d in r["documents"]]}
        for r in records
    ]  # fmt: skip
    if shape == "nested":
        return rows, pa.schema([*heads, ("candidates", way["list"](pa.struct(leaves)))])
    if shape == "pairs":
        flat = [
            {
                "query_id": r["query_id"],
                "query": r["query"],
                "doc_id": d["id"],
                "text": d["text"],
                "score": d["score"],
            }
            for r in records
            for d in r["documents"] or ()
        ]
        named = [("doc_id", pa.string()), ("text", pa.string()), ("score", pa.float64())]
        return flat, pa.schema([*heads, *named])
    names = [name for name, _ in leaves] if shape == "columns" else ["id", "score"]
    if shape == "ids":
        for row in rows:
            row["candidates"] = row["candidates"] and [{n: d[n] for n in names} for d in row["candidates"]]
        items = pa.struct([leaf for leaf in leaves if leaf[0] in names])
        return rows, pa.schema([*heads, ("candidates", way["list"](items))])
    for row in rows:
        lists = row["candidates"]
        row["candidates"] = None if lists is None else {n: [d[n] for d in lists] for n in names}
    return rows, pa.schema([*heads, ("candidates", pa.struct([(n, way["list"](t)) for n, t in leaves]))])


def plain_reader(records: list[Record], shape: str) -> tuple[dict[str, dict[str, str]], int]:
    """The documents of each query that can be ranked, and how many records or queries can't."""
    queries: dict[str, dict[str, str]] = {}
    bad = 0
    for record in records:
        documents = record["documents"] or []
        if shape == "pairs" and (not documents or not record["query_id"]):
            bad += len(documents)
            continue
        ids = [d["id"] for d in documents]
        texts = {d["id"]: d["text"] or "" for d in documents}
        asked = bool(record["query_id"]) and bool(record["query"]) and not record["query"].isspace()
        if asked and documents and all(ids) and not all(map(is_blank, texts.values())):
            queries[record["query_id"]] = texts
        else:
            bad += 1
    return queries, bad


@settings(max_examples=150, deadline=None)
@given(
    drawn=st.lists(RECORD, min_size=1, max_size=8),
    texts=st.lists(st.none() | TEXT, min_size=len(IDS), max_size=len(IDS)),
    shape=st.sampled_from(SHAPES),
    way=ways(),
    corpus_way=ways(),
)
def test_queries_and_bad_records_are_all_records(
    drawn: list[Record], texts: list[str | None], shape: str, way: Record, corpus_way: Record
) -> None:
    """Whatever the types, nulls, encodings, row groups and files: every record is a query or a failure, and each query
    has its own ids and texts."""
    known = dict(zip(IDS, texts, strict=True))
    records = [
        {
            "query_id": f"q{number}" if record["named"] is True else record["named"],
            "query": record["query"],
            "documents": record["documents"]
            and [
                {"id": i, "text": known.get(i or "", "x"), "score": score} for i, score in record["documents"]
            ],
        }
        for number, record in enumerate(drawn)
    ]
    expected, bad = plain_reader(records, shape)
    with TemporaryDirectory() as name:
        folder = Path(name)
        rows, schema = shaped(records, shape, way)
        keys = {"path": (write(folder, "data", rows, schema, way),)}
        if shape == "ids":
            corpus = [{"_id": i, "text": text} for i, text in known.items()]
            kinds = pa.schema([("_id", pa.string()), ("text", pa.string())])
            keys["corpus"] = (write(folder, "corpus", corpus, kinds, corpus_way),)
        if not rows:
            return
        try:
            found = list(read(Input(**keys)))  # type: ignore[arg-type]
        except InputError as error:
            # The input as a whole tells nothing: that is loud, and right where nothing can be ranked.
            assert not expected, error
            return
    queries = {q.id: dict(zip(q.doc_ids, q.documents, strict=True)) for q in found if isinstance(q, Query)}
    assert queries == expected
    assert len(found) == len(expected) + bad
