"""The shape of rank_llm's results: one JSON line a query, ``{"query": {"qid"}, "candidates": [{"docid", "score"}]}``.

A ranking holds no texts, so none are written: read again as input, such a file takes them from ``input.corpus`` and
``input.queries``.
"""

from typing import BinaryIO

import orjson

from batchrank.formats.rows import merge_row
from batchrank.formats.trec import decreasing
from batchrank.records import Ranking


class RankLlmWriter:
    """One line a query, and beside it one JSON line of how its ranking was made."""

    def __init__(self, files: tuple[BinaryIO, ...]) -> None:
        self._results, self._queries = files

    def add(self, ranking: Ranking) -> None:
        """Write one query's line."""
        scores = [float(f"{score:.9g}") for score in decreasing(ranking.scores).tolist()]
        candidates = [
            {"docid": doc_id, "score": score} for doc_id, score in zip(ranking.doc_ids, scores, strict=True)
        ]
        result = {"query": {"qid": ranking.query_id}, "candidates": candidates}
        self._results.write(orjson.dumps(result, option=orjson.OPT_APPEND_NEWLINE))
        row = {"query_id": ranking.query_id} | merge_row(ranking)
        self._queries.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def finish(self) -> None:
        """Nothing is held back."""
