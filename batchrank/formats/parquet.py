"""Parquet, read and written: by record batch, never a whole file or row group in memory."""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchrank.errors import Place
from batchrank.formats.base import ColumnsError, Item, Source, Unrecognised, cut, unreadable
from batchrank.formats.labelled import Labels
from batchrank.formats.names import LABELLED, Path
from batchrank.formats.partition import batch_with, schema_with
from batchrank.formats.rows import certified, merge_row
from batchrank.formats.storage import filesystem
from batchrank.formats.strings import Strings
from batchrank.formats.tables import Layout, items, layout
from batchrank.job.sections import Columns
from batchrank.records import Ranking

# What one batch may hold; a single row may exceed it.
_BATCH_DOCUMENTS = 4096
_BATCH_BYTES = 4 * 1024 * 1024
# Column chunks are read through a window of this many bytes instead of as a whole.
_WINDOW = 1024 * 1024
# Rows held back until they are written as a row group.
_GROUP_ROWS = 65_536


def read(source: Source, columns: Columns) -> Iterator[Item]:
    """The rows of a file; what can't be read is yielded as a failure in its place."""
    row = 0
    labels = Labels(source)
    try:
        with opened(source) as file:
            where = layout(schema_with(file.schema_arrow, source.partition), columns)
            for found in _batches(file, where):
                batch = batch_with(found, source.partition)
                yield from items(batch, where, Place(source.name, "row", row + 1), labels)
                row += batch.num_rows
                source.gauge.at(row / file.metadata.num_rows)
    except ColumnsError as error:
        yield Unrecognised.of(Place(source.name, "row", 1), error)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        yield unreadable(source, "row", error)
    except (pa.ArrowException, OSError) as error:
        yield cut(source, "row", row, error)


def opened(source: Source) -> Any:
    """A Parquet file, to be read through a small window and checked.

    Raises:
        OSError: it can't be opened.
        pyarrow.ArrowException: it isn't one.
    """
    system, path = filesystem(source.path or "")
    return pq.ParquetFile(
        path, filesystem=system, pre_buffer=False, buffer_size=_WINDOW, page_checksum_verification=True
    )


def _batches(file: Any, where: Layout) -> Iterator[Any]:
    """Batches with the needed columns only, sized by what the footer tells of each row group."""
    leaves = _leaves(file, where)
    names = [file.schema.column(i).path for i in leaves]
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        chunks = [group.column(i) for i in leaves]
        rows = max(group.num_rows, 1)
        documents = max(chunk.num_values for chunk in chunks) / rows
        size = sum(chunk.total_uncompressed_size for chunk in chunks) / rows
        batch = min(_BATCH_DOCUMENTS / max(documents, 1), _BATCH_BYTES / max(size, 1))
        yield from file.iter_batches(batch_size=max(int(batch), 1), row_groups=[number], columns=names)


def batches(file: Any, rows: int, size: int, *columns: str) -> Iterator[Any]:
    """Batches of whole columns, of so many rows and bytes at most; a single row may exceed it."""
    names = list(dict.fromkeys(columns))
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        chunks = [group.column(i) for i in range(group.num_columns)]
        wanted = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] in names)
        batch = min(rows, size * max(group.num_rows, 1) / max(wanted, 1))
        yield from file.iter_batches(batch_size=max(int(batch), 1), row_groups=[number], columns=names)


def _leaves(file: Any, where: Layout) -> list[int]:
    """The file's columns that hold what is needed, below lists and structs."""
    roles, document = where.record, where.document
    parts: list[Path] = []
    if document is not None:
        found = (document.text, document.title, document.doc_id, document.score, document.video)
        parts = [p for p in (*found, *_image(document.image)) if p]
    exact = {".".join(p) for p in (roles.query_id, roles.query, *_image(roles.query_image)) if p}
    lists = ".".join(roles.candidates or ())
    beside = tuple(f"{n}." for n in ((".".join(roles.ids or ())), *(LABELLED if roles.labelled else ())) if n)
    ends = tuple("." + ".".join(path) for path in parts)
    if not lists:
        exact |= {".".join(path) for path in parts}
    paths = [file.schema.column(i).path for i in range(len(file.schema))]
    return [
        i
        for i, path in enumerate(paths)
        if path in exact
        or path.startswith(beside)
        or (lists and f"{path}.".startswith(f"{lists}.") and (not ends or path.endswith(ends)))
    ]


def _image(path: Path | None) -> list[Path]:
    """Where an image may be: a column of its own, or one of bytes and path."""
    return [path, (*path, "bytes"), (*path, "path")] if path else []


_RANKING = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("raw_score", pa.float64()),
        pa.field("first_stage_rank", pa.int32(), nullable=False),
        pa.field("first_stage_score", pa.float64()),
        pa.field("certified", pa.bool_(), nullable=False),
    ]
)
_QUERIES = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("chunks", pa.int32(), nullable=False),
        pa.field("requests", pa.int32(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("cost", pa.float64()),
        pa.field("method", pa.string(), nullable=False),
        pa.field("certified", pa.int32(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("drift", pa.float64()),
        pa.field("drift_max", pa.float64()),
    ]
)


class ParquetWriter:
    """Two files: one row a document, and one row a query."""

    def __init__(self, files: tuple[BinaryIO, ...]) -> None:
        rankings, queries = files
        self._rankings = _writer(rankings, _RANKING, ["query_id"])
        self._queries = _writer(queries, _QUERIES, ["method", "verdict"])
        self._held: list[Ranking] = []
        self._rows = 0

    def add(self, ranking: Ranking) -> None:
        """Hold one ranking until a row group is full."""
        self._held.append(ranking)
        self._rows += len(ranking)
        # A query without a document counts too, so that no number of them is held.
        if self._rows + len(self._held) >= _GROUP_ROWS:
            self._flush()

    def finish(self) -> None:
        """Write what is held, and the footers."""
        self._flush()
        self._rankings.close()
        self._queries.close()

    def _flush(self) -> None:
        held, self._held, self._rows = self._held, [], 0
        if held:
            self._rankings.write_table(_ranking_table(held), row_group_size=2 * _GROUP_ROWS)
            rows = [{"query_id": ranking.query_id} | merge_row(ranking) for ranking in held]
            self._queries.write_table(pa.Table.from_pylist(rows, schema=_QUERIES))


def _writer(file: BinaryIO, schema: Any, dictionary: list[str]) -> Any:
    return pq.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=dictionary, write_page_checksum=True
    )


def _strings(values: Sequence[str]) -> Any:
    return values.array.cast(pa.string()) if isinstance(values, Strings) else pa.array(values, pa.string())


def _ranking_table(rankings: list[Ranking]) -> Any:
    counts = [len(ranking) for ranking in rankings]
    ids = pa.array([ranking.query_id for ranking in rankings], pa.string())

    def floats(name: str) -> Any:
        return pa.array(np.concatenate([getattr(ranking, name) for ranking in rankings]), from_pandas=True)

    columns = [
        ids.take(pa.array(np.repeat(np.arange(len(rankings)), counts))),
        pa.chunked_array([_strings(r.doc_ids) for r in rankings], pa.string()).combine_chunks(),
        pa.array(np.concatenate([np.arange(1, n + 1, dtype=np.int32) for n in counts])),
        floats("scores"),
        floats("raw_scores"),
        pa.array(np.concatenate([r.first_stage_ranks for r in rankings]).astype(np.int32)),
        floats("first_stage_scores"),
        pa.array(np.concatenate([certified(ranking) for ranking in rankings])),
    ]
    return pa.Table.from_arrays(columns, schema=_RANKING)
