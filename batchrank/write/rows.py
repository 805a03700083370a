"""Parquet, written: rankings and how each was made, a row group at a time."""

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchrank.outcomes import Ranking
from batchrank.strings import Strings
from batchrank.write.rows_ import certified, merge_row

# Rows held back until they are written as a row group.
_GROUP_ROWS = 65_536

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
