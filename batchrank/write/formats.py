"""The TREC run format: ``query Q0 document rank score tag``, one line a document.

trec_eval ignores the rank: it sorts by score, read as a 32-bit float in most versions, and breaks ties by document
id. So scores here are strictly decreasing as 32-bit floats: a tie, or a document without a score, takes the
nearest lower number that is still free.
"""

from typing import BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from batchrank.arrays import Floats
from batchrank.errors import OutputError
from batchrank.outcomes import Ranking
from batchrank.write.rows_ import merge_row

_TAG = "batchrank"
_LARGEST = 3e38
# Bits of the smallest normal 32-bit float: those below it are avoided, as not every reader keeps them.
_NORMAL = 0x0080_0000


class TrecWriter:
    """A run, and beside it one JSON line a query."""

    def __init__(self, files: tuple[BinaryIO, ...]) -> None:
        self._run, self._queries = files

    def add(self, ranking: Ranking) -> None:
        """Write one query's lines.

        Raises:
            OutputError: an id is empty or holds white space.
        """
        query = ranking.query_id
        refuse_spaces(query, f"query {query!r}: its id")
        scores = decreasing(ranking.scores).tolist()
        lines = []
        for rank, (document, score) in enumerate(zip(ranking.doc_ids, scores, strict=True), 1):
            refuse_spaces(document, f"query {query!r}, document {document!r}: the document's id")
            lines.append(f"{query} Q0 {document} {rank} {score:.9g} {_TAG}\n")
        self._run.write("".join(lines).encode())
        row = {"query_id": query} | merge_row(ranking)
        self._queries.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def finish(self) -> None:
        """Nothing is held back."""


def refuse_spaces(name: str, what: str) -> None:
    """Refuse an id that a run's columns can't hold.

    Raises:
        OutputError: it is empty or holds white space.
    """
    if name.split() != [name]:
        raise OutputError(
            f"{what} is empty or holds white space, which parts the columns of a run; choose output.format: "
            "parquet or jsonl (answers already paid for are kept), or change the id"
        )


def decreasing(scores: Floats) -> NDArray[np.float32]:
    """The nearest strictly decreasing 32-bit floats to scores that never increase; NaN only at the end."""
    known = int((~np.isnan(scores)).sum())
    values = np.clip(scores, -_LARGEST, _LARGEST)
    values[known:] = (values[known - 1] if known else 0.0) - 1.0 - np.arange(len(scores) - known)
    # As integers in the order of the floats, neighbours are one apart; so a running minimum over key + position
    # puts each at least one below its predecessor.
    positions = np.arange(len(scores))
    keys = np.minimum.accumulate(_keys(values.astype(np.float32)) + positions) - positions
    return _floats(keys)


def _keys(values: NDArray[np.float32]) -> NDArray[np.int64]:
    size = np.abs(values).view(np.int32).astype(np.int64)
    return np.sign(values).astype(np.int64) * np.maximum(size - (_NORMAL - 1), 0)


def _floats(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    size = np.where(keys == 0, 0, np.abs(keys) + (_NORMAL - 1)).astype(np.int32)
    values: NDArray[np.float32] = size.view(np.float32)
    return np.where(keys < 0, -values, values)
