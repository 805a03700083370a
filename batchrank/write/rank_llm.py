"""rank_llm's requests and results: a JSON line a query, with texts, as rank_llm reads nothing without.

``{"query": {"text", "qid"}, "candidates": [{"docid", "score", "doc": {"text"}}]}``. Source: rank_llm's ``data.py``.
An image or a video has no place there: its text is empty.
"""

from typing import BinaryIO

import orjson

from batchrank.content import Content
from batchrank.outcomes import Ranking
from batchrank.write.formats import decreasing
from batchrank.write.rows_ import merge_row


class RankLlmWriter:
    """One line a query, and beside it one JSON line of how its ranking was made."""

    def __init__(self, files: tuple[BinaryIO, ...]) -> None:
        self._results, self._queries = files

    def add(self, ranking: Ranking) -> None:
        """Write one query's line."""
        scores = [float(f"{score:.9g}") for score in decreasing(ranking.scores).tolist()]
        texts = ranking.documents if ranking.documents is not None else [""] * len(ranking)
        candidates = [
            {"docid": doc_id, "score": score, "doc": {"text": _text(text)}}
            for doc_id, score, text in zip(ranking.doc_ids, scores, texts, strict=True)
        ]
        result = {"query": {"text": _text(ranking.query), "qid": ranking.query_id}, "candidates": candidates}
        self._results.write(orjson.dumps(result, option=orjson.OPT_APPEND_NEWLINE))
        row = {"query_id": ranking.query_id} | merge_row(ranking)
        self._queries.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def finish(self) -> None:
        """Nothing is held back."""


def _text(content: Content | None) -> str:
    """A lone surrogate, which no UTF-8 can hold, becomes a question mark, as it does in requests."""
    return content.encode("utf-8", "replace").decode() if isinstance(content, str) else ""
