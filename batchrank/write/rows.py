"""Writes rankings as rows, one a document and one a query: to Parquet, and to JSON lines."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from batchrank.data import Content, taken
from batchrank.io.strings import Strings
from batchrank.outcomes import Failure, Ranking

RANKING = ("doc_id", "rank", "score", "raw_score", "first_stage_rank", "first_stage_score", "certified")


def top(ranking: Ranking, n: int) -> Ranking:
    """The first n documents; copies, so that the rest can be forgotten."""
    if n >= len(ranking):
        return ranking
    return replace(
        ranking,
        doc_ids=taken(ranking.doc_ids, np.arange(n)),
        scores=ranking.scores[:n].copy(),
        raw_scores=ranking.raw_scores[:n].copy(),
        first_stage_ranks=ranking.first_stage_ranks[:n].copy(),
        first_stage_scores=ranking.first_stage_scores[:n].copy(),
        documents=None if ranking.documents is None else ranking.documents[:n],
    )


def certified(ranking: Ranking) -> NDArray[np.bool_]:
    """For each document whether its rank is proven."""
    return np.arange(len(ranking.scores)) < ranking.merge.certified


def written_text(content: Content | None) -> str | None:
    """What is written of a query or document: its text as it was read; None for an image or a video.

    A lone surrogate, which no UTF-8 can hold, becomes a question mark, as it does in requests.
    """
    if not isinstance(content, str):
        return None
    return content if content.isascii() else content.encode("utf-8", "replace").decode()


def ranking_rows(ranking: Ranking, *, texts: bool = False) -> list[dict[str, Any]]:
    """One row a document, best first; a missing number is NaN, which orjson writes as null."""
    columns: tuple[Iterable[Any], ...] = (
        ranking.doc_ids,
        range(1, len(ranking) + 1),
        ranking.scores.tolist(),
        ranking.raw_scores.tolist(),
        ranking.first_stage_ranks.tolist(),
        ranking.first_stage_scores.tolist(),
        certified(ranking).tolist(),
    )
    names: tuple[str, ...] = RANKING
    if texts:
        names, columns = (*RANKING, "text"), (*columns, map(written_text, ranking.documents or ()))
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def merge_row(ranking: Ranking) -> dict[str, Any]:
    """How the ranking was made and what it took; ``documents`` counts those in its requests, repeats included."""
    merge, cost = ranking.merge, ranking.cost
    median, largest = merge.drift or (None, None)
    return {
        "documents": cost.documents,
        "chunks": cost.chunks,
        "requests": cost.requests,
        "tokens": cost.tokens,
        "cost": cost.cost,
        "method": merge.method,
        "certified": merge.certified,
        "verdict": merge.verdict,
        "drift": median,
        "drift_max": largest,
        "agreement": None if merge.agreement is None else merge.agreement.share,
        "reused": cost.reused,
        "oldest": None if cost.oldest is None else datetime.fromtimestamp(cost.oldest, UTC),
    }


_GROUP_ROWS = 65_536
"""Rows held before they are written as a row group: large enough to compress well, small enough for memory."""
_GROUP_CHARACTERS = 16 * 2**20
"""Characters of texts held likewise, where texts are written: a list's memory is given back once it has been added."""

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
        pa.field("agreement", pa.float64()),
        pa.field("reused", pa.int64(), nullable=False),
        pa.field("oldest", pa.timestamp("s", tz="UTC")),
    ]
)


_TEXT, _QUERY = pa.field("text", pa.string()), pa.field("query", pa.string())
"""The columns that hold texts, null for images and videos: of a ranking's documents, and of the queries."""


class ParquetWriter:
    """Two files: one row a document, and one row a query.

    Args:
        files: the rankings' and the queries'.
        texts: whether the former have a column of documents' texts, and the latter one of queries' texts.
    """

    def __init__(self, files: tuple[BinaryIO, ...], *, texts: bool = False) -> None:
        rankings, queries = files
        self._texts = texts
        self._query_schema = _QUERIES.insert(1, _QUERY) if texts else _QUERIES
        self._rankings = _writer(rankings, _RANKING.append(_TEXT) if texts else _RANKING, ["query_id"])
        self._queries = _writer(queries, self._query_schema, ["method", "verdict"])
        self._held: list[Ranking] = []
        self._rows = self._characters = 0

    def add(self, ranking: Ranking) -> None:
        """Hold one ranking until a row group is full."""
        self._held.append(ranking)
        self._rows += len(ranking.scores)
        if self._texts:
            self._characters += sum(len(text) for text in ranking.documents or () if isinstance(text, str))
        # A query without a document counts too, so that no number of them is held.
        if self._rows + len(self._held) >= _GROUP_ROWS or self._characters >= _GROUP_CHARACTERS:
            self._flush()

    def finish(self) -> None:
        """Write what is held, and the footers."""
        self._flush()
        self._rankings.close()
        self._queries.close()

    def _flush(self) -> None:
        held, self._held, self._rows, self._characters = self._held, [], 0, 0
        if not held:
            return
        table = _ranking_table(held)
        rows = [{"query_id": ranking.query_id} | merge_row(ranking) for ranking in held]
        if self._texts:
            texts = [written_text(text) for ranking in held for text in ranking.documents or ()]
            table = table.append_column(_TEXT, pa.array(texts, pa.string()))
            rows = [{"query": written_text(one.query)} | row for one, row in zip(held, rows, strict=True)]
        self._rankings.write_table(table, row_group_size=2 * _GROUP_ROWS)
        self._queries.write_table(pa.Table.from_pylist(rows, schema=self._query_schema))


def _writer(file: BinaryIO, schema: Any, dictionary: list[str]) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=dictionary, write_page_checksum=True
    )


def _doc_ids(rankings: list[Ranking]) -> Any:
    """All their documents' ids: taken from what they were read from at one time, as each call takes longer than it."""
    sources, places, start = [], [], 0
    for ranking in rankings:
        ids = ranking.doc_ids
        array, order = ids.source if isinstance(ids, Strings) else (pa.array(ids, pa.string()), None)
        sources.append(array if array.type == pa.string() else array.cast(pa.string()))
        places.append(start + (np.arange(len(array)) if order is None else order))
        start += len(array)
    return pa.concat_arrays(sources).take(pa.array(np.concatenate(places)))


def _ranking_table(rankings: list[Ranking]) -> Any:
    counts = [len(ranking) for ranking in rankings]
    ids = pa.array([ranking.query_id for ranking in rankings], pa.string())
    ranks = np.concatenate([np.arange(1, n + 1, dtype=np.int32) for n in counts])

    def floats(name: str) -> Any:
        return pa.array(np.concatenate([getattr(ranking, name) for ranking in rankings]), from_pandas=True)

    columns = [
        ids.take(pa.array(np.repeat(np.arange(len(rankings)), counts))),
        _doc_ids(rankings),
        pa.array(ranks),
        floats("scores"),
        floats("raw_scores"),
        pa.array(np.concatenate([r.first_stage_ranks for r in rankings]).astype(np.int32)),
        floats("first_stage_scores"),
        pa.array(ranks <= np.repeat([ranking.merge.certified for ranking in rankings], counts)),
    ]
    return pa.Table.from_arrays(columns, schema=_RANKING)


_FAILURE = pa.struct([("cause", pa.string()), ("message", pa.string())])
_RESULTS = pa.schema([field.with_nullable(True) for field in _RANKING] + [pa.field("failure", _FAILURE)])


def result_table(results: Iterable[Ranking | Failure]) -> Any:
    """A table with one row a document, as in Parquet, and one row a dead letter: what ``failure`` holds of it."""
    tables = [_RESULTS.empty_table()]
    for kind, group in groupby(results, type):
        found: list[Any] = list(group)
        tables.append(_failure_table(found) if kind is Failure else _completed(_ranking_table(found)))
    return pa.concat_tables(tables).combine_chunks()


def _completed(table: Any) -> Any:
    columns = [*table.columns, pa.nulls(table.num_rows, _FAILURE)]
    return pa.Table.from_arrays(columns, schema=_RESULTS)


def _failure_table(failures: list[Failure]) -> Any:
    rows = [
        {"query_id": one.query_id, "failure": {"cause": one.cause, "message": one.message}}
        for one in failures
    ]
    return pa.Table.from_pylist(rows, schema=_RESULTS)


class JsonlWriter:
    """One line a query: its id, its ranking, and how that was made; with texts, if these are wanted."""

    def __init__(self, files: tuple[BinaryIO, ...], *, texts: bool = False) -> None:
        (self._file,) = files
        self._texts = texts

    def add(self, ranking: Ranking) -> None:
        """Write one line."""
        self._file.write(line(ranking, texts=self._texts))

    def finish(self) -> None:
        """Nothing is held back."""


def line(ranking: Ranking, *, texts: bool = False) -> bytes:
    """The line of one query, with its line end."""
    data: dict[str, Any] = {"query_id": ranking.query_id}
    data |= {"query": written_text(ranking.query)} if texts else {}
    data |= {"ranking": ranking_rows(ranking, texts=texts), "merge": merge_row(ranking)}
    return orjson.dumps(data, option=orjson.OPT_APPEND_NEWLINE)
