"""The columns that a file's folders name (``lang=en/part-0.parquet``), beside those that the file holds itself."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa


def schema_with(schema: Any, partition: Mapping[str, str | None]) -> Any:
    """A schema with the folders' columns; where the file has one of the same name, the file's counts."""
    for name in partition:
        if name not in schema.names:
            schema = schema.append(pa.field(name, pa.string()))
    return schema


def batch_with(batch: Any, partition: Mapping[str, str | None]) -> Any:
    """A batch with the folders' columns, each with one value in all rows."""
    for name, value in partition.items():
        if name not in batch.schema.names:
            column = pa.repeat(pa.scalar(value, pa.string()), batch.num_rows)
            schema = batch.schema.append(pa.field(name, pa.string()))
            batch = pa.RecordBatch.from_arrays([*batch.columns, column], schema=schema)
    return batch
