"""Writers of Parquet and Arrow: each takes records and a folder, and returns what it wrote.

Libraries that take long to import are imported by the writer that needs them, as every test process reads this file.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from writers_text import Rows, duckdb_file

duckdb_parquet = duckdb_file("x.parquet", "PARQUET_VERSION V2")


def pyarrow_parquet(rows: Rows, folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "x.parquet", row_group_size=11)
    return folder / "x.parquet"


def pages_of_version_2(rows: Rows, folder: Path) -> Path:
    """As Spark and Trino may write: pages of version 2, prefixes of texts."""
    table = pa.Table.from_pylist(rows)
    strings = [f.name for f in table.schema if pa.types.is_string(f.type)]
    pq.write_table(
        table,
        folder / "x.parquet",
        data_page_version="2.0",
        use_dictionary=False,
        column_encoding=dict.fromkeys(strings, "DELTA_BYTE_ARRAY"),
    )
    return folder / "x.parquet"


def views(rows: Rows, folder: Path) -> Path:
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


def arrow_of_everything(rows: Rows, folder: Path) -> Path:
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


def pandas_parquet(rows: Rows, folder: Path) -> Path:
    pd.DataFrame(rows).to_parquet(folder / "x.parquet")
    return folder / "x.parquet"


def pandas_categories(rows: Rows, folder: Path) -> Path:
    frame = pd.DataFrame(rows)
    flat = [name for name in frame.columns if isinstance(frame[name].iloc[0], str)]
    frame.astype(dict.fromkeys(flat, "category")).to_parquet(folder / "x.parquet", index=True)
    return folder / "x.parquet"


def fastparquet_pairs(rows: Rows, folder: Path) -> Path:
    import fastparquet

    fastparquet.write(str(folder / "x.parquet"), pd.DataFrame(rows), row_group_offsets=40)
    return folder / "x.parquet"


def polars_parquet(rows: Rows, folder: Path) -> Path:
    pl.DataFrame(rows).write_parquet(folder / "x.parquet", row_group_size=17)
    return folder / "x.parquet"


def polars_categories(rows: Rows, folder: Path) -> Path:
    frame = pl.DataFrame(rows).with_columns(pl.col(pl.String).cast(pl.Categorical))
    frame.write_ipc(folder / "x.feather", compression="zstd")
    return folder / "x.feather"


def datafusion_folder(rows: Rows, folder: Path) -> Path:
    """With the types of its own plans, in which every string is a view."""
    import datafusion

    context = datafusion.SessionContext()
    context.from_arrow(pa.Table.from_pylist(rows), name="rows")
    context.sql("SELECT * FROM rows").write_parquet(str(folder / "x"))
    return folder / "x"


def datasets_parquet(rows: Rows, folder: Path) -> Path:
    import datasets

    datasets.Dataset.from_list(rows).to_parquet(folder / "x.parquet")
    return folder / "x.parquet"


def saved_dataset(rows: Rows, folder: Path) -> Path:
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(folder / "x", num_shards=2)
    return folder / "x"
