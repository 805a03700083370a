"""mteb's predictions: one JSON object, ``{"mteb_model_meta": ..., subset: {split: {query: {document: score}}}}``.

Subset and split are those that the job reads, as mteb looks predictions up by them; ``default`` and ``test`` otherwise.

mteb sorts by score, and where scores are equal by a rule of its own; so they are strictly decreasing here, as in a
TREC run.
"""

from typing import BinaryIO

import orjson

from batchrank.outcomes import Ranking
from batchrank.version import __version__
from batchrank.write.formats import decreasing
from batchrank.write.rows_ import merge_row

_META = {"model_name": "batchrank", "revision": __version__}
_SUBSET, _SPLIT = "default", "test"
_END = b"\n}}}\n"


class PredictionsWriter:
    """One object, written query by query, and beside it one JSON line a query."""

    def __init__(
        self, files: tuple[BinaryIO, ...], *, subset: str | None = None, split: str | None = None
    ) -> None:
        self._predictions, self._queries = files
        names = (orjson.dumps(subset or _SUBSET), orjson.dumps(split or _SPLIT))
        self._start = b'{"mteb_model_meta": %b, %b: {%b: {\n' % (orjson.dumps(_META), *names)
        self._separator = self._start

    def add(self, ranking: Ranking) -> None:
        """Write one query's scores."""
        scores = [float(f"{score:.9g}") for score in decreasing(ranking.scores).tolist()]
        values = orjson.dumps(dict(zip(ranking.doc_ids, scores, strict=True)))
        self._predictions.write(self._separator + orjson.dumps(ranking.query_id) + b": " + values)
        self._separator = b",\n"
        row = {"query_id": ranking.query_id} | merge_row(ranking)
        self._queries.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def finish(self) -> None:
        """Close the object; one without a query is an object all the same."""
        self._predictions.write((self._start if self._separator == self._start else b"") + _END)
