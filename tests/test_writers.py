"""The same 50 queries through every writer at hand, in every shape, are the same queries and the same rankings."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datafusion
import datasets
import duckdb
import fastparquet
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from jobs import make_job, outputs, run, text, write_jsonl

from batchrank.job import Input
from batchrank.read import read
from batchrank.records import Query

Rows = list[dict[str, Any]]

NESTED: Rows = [
    {
        "query_id": f"q{q}",
        "query": f"wie geht {q}?",
        "candidates": [
            {"id": f"d{q}-{d}", "text": f"ü {text(q * 100 + d)}" if d else "", "score": float(9 - d)}
            for d in range(q % 7 + 2)
        ],
    }
    for q in range(50)
]
PAIRS: Rows = [
    {
        "query_id": row["query_id"],
        "query": row["query"],
        "doc_id": c["id"],
        "text": c["text"],
        "score": c["score"],
    }
    for row in NESTED
    for c in row["candidates"]
]
COLUMNS: Rows = [
    row | {"candidates": {key: [c[key] for c in row["candidates"]] for key in ("id", "text", "score")}}
    for row in NESTED
]
IDS: Rows = [
    {key: row[key] for key in ("query_id", "query")}
    | {"candidates": [{"doc_id": c["id"], "score": c["score"]} for c in row["candidates"]]}
    for row in NESTED
]
CORPUS: Rows = [{"_id": c["id"], "title": "", "text": c["text"]} for row in NESTED for c in row["candidates"]]
SHAPES = {"nested": NESTED, "pairs": PAIRS, "columns": COLUMNS, "ids": IDS}


def _jsonl(rows: Rows, folder: Path) -> Path:
    return write_jsonl(folder / "x.jsonl", rows)


def _pyarrow(rows: Rows, folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "x.parquet", row_group_size=11)
    return folder / "x.parquet"


def _pyarrow_pages_v2(rows: Rows, folder: Path) -> Path:
    """As Spark and Trino may write: pages of version 2, prefixes of texts."""
    options = {"data_page_version": "2.0", "use_dictionary": False, "column_encoding": {}}
    table = pa.Table.from_pylist(rows)
    strings = [f.name for f in table.schema if pa.types.is_string(f.type)]
    options["column_encoding"] = dict.fromkeys(strings, "DELTA_BYTE_ARRAY")
    pq.write_table(table, folder / "x.parquet", **options)
    return folder / "x.parquet"


def _views(rows: Rows, folder: Path) -> Path:
    """Strings are views, lists are large; pyarrow can't write lists of views to Parquet."""
    schema = pa.schema([f.with_type(_viewed(f.type)) for f in pa.Table.from_pylist(rows).schema])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "x.parquet")
    return folder / "x.parquet"


def _viewed(kind: Any, *, deep: bool = False) -> Any:
    if pa.types.is_list(kind):
        return pa.list_view(_viewed(kind.value_type, deep=True)) if deep else pa.large_list(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(_viewed(f.type, deep=deep)) for f in kind])
    return pa.string_view() if pa.types.is_string(kind) else kind


def _arrow_of_everything(rows: Rows, folder: Path) -> Path:
    """An Arrow stream of dictionaries, runs, and views of lists of views, most of which Parquet can't hold."""
    table = pa.Table.from_pylist(rows)
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_string(column.type):
            column = pc.run_end_encode(column) if name == "query" else column.dictionary_encode()
        else:
            column = pa.array(column.to_pylist(), _viewed(column.type, deep=True))
        columns[name] = column
    made = pa.table(columns)
    with pa.ipc.new_stream(folder / "x.arrow", made.schema) as file:
        file.write_table(made, max_chunksize=13)
    return folder / "x.arrow"


def _pandas(rows: Rows, folder: Path) -> Path:
    pd.DataFrame(rows).to_parquet(folder / "x.parquet")
    return folder / "x.parquet"


def _pandas_categories(rows: Rows, folder: Path) -> Path:
    frame = pd.DataFrame(rows)
    flat = [name for name in frame.columns if isinstance(frame[name].iloc[0], str)]
    frame.astype(dict.fromkeys(flat, "category")).to_parquet(folder / "x.parquet", index=True)
    return folder / "x.parquet"


def _fastparquet(rows: Rows, folder: Path) -> Path:
    fastparquet.write(str(folder / "x.parquet"), pd.DataFrame(rows), row_group_offsets=40)
    return folder / "x.parquet"


def _polars(rows: Rows, folder: Path) -> Path:
    pl.DataFrame(rows).write_parquet(folder / "x.parquet", row_group_size=17)
    return folder / "x.parquet"


def _polars_categories(rows: Rows, folder: Path) -> Path:
    frame = pl.DataFrame(rows)
    frame.with_columns(pl.col(pl.String).cast(pl.Categorical)).write_ipc(
        folder / "x.feather", compression="zstd"
    )
    return folder / "x.feather"


def _duckdb(rows: Rows, folder: Path) -> Path:
    table = pa.Table.from_pylist(rows)
    with duckdb.connect() as database:
        database.register("rows", table)
        database.execute(f"COPY (FROM rows) TO '{folder}/x.parquet' (PARQUET_VERSION V2)")
    return folder / "x.parquet"


def _datafusion(rows: Rows, folder: Path) -> Path:
    """With the types of its own plans, in which every string is a view."""
    context = datafusion.SessionContext()
    context.from_arrow(pa.Table.from_pylist(rows), name="rows")
    context.sql("SELECT * FROM rows").write_parquet(str(folder / "x"))
    return folder / "x"


def _datasets(rows: Rows, folder: Path) -> Path:
    datasets.Dataset.from_list(rows).to_parquet(folder / "x.parquet")
    return folder / "x.parquet"


def _saved(rows: Rows, folder: Path) -> Path:
    datasets.Dataset.from_list(rows).save_to_disk(folder / "x", num_shards=2)
    return folder / "x"


WRITERS: list[Callable[[Rows, Path], Path]] = [
    _jsonl, _pyarrow, _pyarrow_pages_v2, _views, _arrow_of_everything, _pandas, _pandas_categories, _fastparquet,
    _polars, _polars_categories, _duckdb, _datafusion, _datasets, _saved,
]  # fmt: skip
FLAT: dict[Any, Any] = {_fastparquet: {"pairs"}}
"""Writers of flat columns only: fastparquet writes lists as JSON texts."""
CASES = [
    pytest.param(writer, shape, id=f"{writer.__name__[1:]}-{shape}")
    for writer in WRITERS
    for shape in SHAPES
    if shape in FLAT.get(writer, SHAPES)
]


def source(writer: Callable[[Rows, Path], Path], shape: str, folder: Path) -> dict[str, str]:
    """The input of a job, written."""
    (folder / "corpus").mkdir()
    found = {"path": str(writer(SHAPES[shape], folder))}
    return found | ({"corpus": str(writer(CORPUS, folder / "corpus"))} if shape == "ids" else {})


def values(queries: list[Any]) -> list[Any]:
    shown = []
    for query in queries:
        assert isinstance(query, Query), query
        assert query.first_stage_scores is not None
        scores = query.first_stage_scores.tolist()
        shown.append((query.id, query.text, list(query.doc_ids), list(query.documents), scores))
    return shown


EXPECTED = [
    (
        row["query_id"],
        row["query"],
        [c["id"] for c in row["candidates"]],
        [c["text"] for c in row["candidates"]],
        [c["score"] for c in row["candidates"]],
    )
    for row in NESTED
]


@pytest.mark.parametrize(("writer", "shape"), CASES)
def test_every_writer_s_file_is_read_as_the_same_queries(
    tmp_path: Path, writer: Callable[[Rows, Path], Path], shape: str
) -> None:
    """Ids, texts, order and scores, nothing told but where the file is."""
    assert values(list(read(Input.model_validate(source(writer, shape, tmp_path))))) == EXPECTED


@pytest.mark.anyio
async def test_every_shape_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """One writer for each shape, through the emulator: rankings are identical, byte for byte."""
    chosen = [(_jsonl, "nested"), (_datafusion, "pairs"), (_saved, "columns"), (_polars, "ids")]
    written = []
    for writer, shape in chosen:
        folder = tmp_path / shape
        folder.mkdir()
        given = source(writer, shape, folder)
        job = make_job(folder, Path(given["path"]), input=given, output={"format": "trec"})
        report = await run(job)
        assert (report.exit_code, report.data["notices"]) == (0, [])
        written.append(outputs(job))
    assert written[1:] == written[:1] * 3


def test_duckdb_s_uuids_are_ids(tmp_path: Path) -> None:
    """In pairs, in lists and joined with a corpus of them: canonical text."""
    ids = [str(uuid.UUID(int=i * 3**70)) for i in range(4)]
    rows = ", ".join(f"('{ids[i // 2]}'::UUID, 'how', '{ids[i]}'::UUID, 'text {i}')" for i in range(4))
    with duckdb.connect() as database:
        database.execute(f"CREATE TABLE pairs AS FROM (VALUES {rows}) t(query_id, query, doc_id, text)")
        database.execute(f"COPY pairs TO '{tmp_path}/pairs.parquet'")
        lists = "SELECT query_id, any_value(query) AS query, list(doc_id ORDER BY doc_id) AS candidate_ids"
        database.execute(f"COPY ({lists} FROM pairs GROUP BY query_id) TO '{tmp_path}/lists.parquet'")
        database.execute(f"COPY (SELECT doc_id, text FROM pairs) TO '{tmp_path}/corpus.parquet'")
    corpus = (str(tmp_path / "corpus.parquet"),)
    for source in (
        Input(path=(str(tmp_path / "pairs.parquet"),)),
        Input(path=(str(tmp_path / "lists.parquet"),), corpus=corpus),
    ):
        found = {
            q.id: dict(zip(q.doc_ids, q.documents, strict=True)) for q in read(source) if isinstance(q, Query)
        }
        assert found == {
            ids[0]: {ids[0]: "text 0", ids[1]: "text 1"},
            ids[1]: {ids[2]: "text 2", ids[3]: "text 3"},
        }


@pytest.mark.parametrize("writer", [_duckdb, _polars, _pandas_categories])
def test_repeats_of_any_writer_are_read_in_bounded_memory(
    tmp_path: Path, writer: Callable[[Rows, Path], Path]
) -> None:
    """Long texts that come again and again are stored once, whoever writes them, and never decoded all at once."""
    texts = [f"{i} " + "word " * 20_000 for i in range(3)]
    rows = [
        {"query_id": f"q{i // 40}", "query": "how", "doc_id": i, "text": texts[i % 3]} for i in range(1200)
    ]
    path = writer(rows, tmp_path)
    before = pa.total_allocated_bytes()
    taken = [pa.total_allocated_bytes() - before for _ in read(Input(path=(str(path),)))]
    assert len(taken) == 30
    assert np.max(taken) < 64 * 2**20
