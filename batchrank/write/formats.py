"""Writes the run formats of the field (TREC, MS MARCO, mteb, rank_llm), and lists all formats that can be written."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from batchrank.data import Floats
from batchrank.errors import OutputError, QueryError
from batchrank.job.sections import Output
from batchrank.outcomes import Ranking
from batchrank.version import __version__
from batchrank.write.folder import KINDS
from batchrank.write.rows import JsonlWriter, ParquetWriter, merge_row, written_text

_TAG = "batchrank"
_LARGEST = 3e38
"""Just below the largest 32-bit float, 3.4e38, so that there is room for smaller ones on both sides."""
# Bits of the smallest normal 32-bit float: those below it are avoided, as not every reader keeps them.
_NORMAL = 0x0080_0000


class _RunWriter:
    """A run, whose columns white space sets apart, and beside it one JSON line a query."""

    def __init__(self, files: tuple[BinaryIO, ...]) -> None:
        self._run, self._queries = files

    def add(self, ranking: Ranking) -> None:
        """Write one query's lines.

        Raises:
            OutputError: an id is empty or holds white space.
        """
        query = ranking.query_id
        refuse_spaces(query, f"query {query!r}: its id")
        for document in ranking.doc_ids:
            refuse_spaces(document, f"query {query!r}, document {document!r}: the document's id")
        self._run.write("".join(self._lines(ranking)).encode())
        row = {"query_id": query} | merge_row(ranking)
        self._queries.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def finish(self) -> None:
        """Nothing is held back."""

    def _lines(self, ranking: Ranking) -> Iterable[str]:
        raise NotImplementedError


class TrecWriter(_RunWriter):
    """The run as TREC has it: query, Q0, document, rank, score, tag."""

    def _lines(self, ranking: Ranking) -> Iterable[str]:
        found = zip(ranking.doc_ids, decreasing(ranking.scores).tolist(), strict=True)
        for rank, (document, score) in enumerate(found, 1):
            yield f"{ranking.query_id} Q0 {document} {rank} {score:.9g} {_TAG}\n"


class MsMarcoWriter(_RunWriter):
    """The run as MS MARCO has it: query, document, rank, with tabs between."""

    def _lines(self, ranking: Ranking) -> Iterable[str]:
        for rank, document in enumerate(ranking.doc_ids, 1):
            yield f"{ranking.query_id}\t{document}\t{rank}\n"


def refuse_spaces(name: str, what: str) -> None:
    """Refuse an id that a run's columns can't hold.

    Raises:
        OutputError: it is empty or holds white space.
    """
    if name.split() != [name]:
        raise OutputError(
            f"{what} is empty or holds white space, which separates the columns of a run; choose output.format: "
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


class RankLlmWriter:
    """One line a query, and beside it one JSON line of how its ranking was made."""

    def __init__(self, files: tuple[BinaryIO, ...]) -> None:
        self._results, self._queries = files

    def add(self, ranking: Ranking) -> None:
        """Write one query's line."""
        scores = [float(f"{score:.9g}") for score in decreasing(ranking.scores).tolist()]
        texts = ranking.documents if ranking.documents is not None else [""] * len(ranking)
        candidates = [
            {"docid": doc_id, "score": score, "doc": {"text": written_text(text) or ""}}
            for doc_id, score, text in zip(ranking.doc_ids, scores, texts, strict=True)
        ]
        query = {"text": written_text(ranking.query) or "", "qid": ranking.query_id}
        result = {"query": query, "candidates": candidates}
        self._results.write(orjson.dumps(result, option=orjson.OPT_APPEND_NEWLINE))
        row = {"query_id": ranking.query_id} | merge_row(ranking)
        self._queries.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def finish(self) -> None:
        """Nothing is held back."""


class PartWriter(Protocol):
    """Writes the files of one output part, in memory bounded whatever the part's size."""

    def add(self, ranking: Ranking) -> None:
        """Take the next ranking.

        Raises:
            OutputError: the format can't hold it.
        """

    def finish(self) -> None:
        """Write what is still held back; the files themselves stay open."""


MakeWriter: TypeAlias = Callable[..., PartWriter]


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """How rankings are written.

    Attributes:
        kinds: the files of one part, in the order in which ``writer`` takes them: (stem, suffix).
        single: all rankings go into one part, whatever its size.
        texts: whether it always holds the query and the documents themselves.
        optional_texts: whether ``writer`` takes by name whether it is to hold them.
        dataset: whether ``writer`` takes the dataset's ``subset`` and ``split`` by name.
        spaceless: whether ids must be free of white space, which sets columns apart.
    """

    kinds: tuple[tuple[str, str], ...]
    writer: MakeWriter
    single: bool = False
    texts: bool = False
    optional_texts: bool = False
    dataset: bool = False
    spaceless: bool = False


OUTPUTS: dict[str, OutputFormat] = {
    "parquet": OutputFormat(KINDS["parquet"], ParquetWriter, optional_texts=True),
    "jsonl": OutputFormat(KINDS["jsonl"], JsonlWriter, optional_texts=True),
    "trec": OutputFormat(KINDS["trec"], TrecWriter, spaceless=True),
    "rank_llm": OutputFormat(KINDS["rank_llm"], RankLlmWriter, texts=True),
    "mteb": OutputFormat(KINDS["mteb"], PredictionsWriter, single=True, dataset=True),
    "msmarco": OutputFormat(KINDS["msmarco"], MsMarcoWriter, spaceless=True),
}


def holds_texts(output: Output | None) -> bool:
    """Whether rankings that are to be written must hold the query and the documents themselves."""
    return output is not None and (output.texts or OUTPUTS[output.format].texts)


def needs_plain_ids(output: Output | None) -> bool:
    """Whether ids must be free of white space, as it sets the columns of the job's output apart."""
    return output is not None and output.path != "-" and OUTPUTS[output.format].spaceless


def refuse_ids(output: Output, query_id: str, doc_ids: Sequence[str]) -> None:
    """Refuse a query with an id that the output's columns can't hold; see ``needs_plain_ids``.

    Raises:
        QueryError: an id is empty or holds white space.
    """
    names = [query_id, *doc_ids]
    if " ".join(names).split() == names:
        return
    wrong = next(name for name in names if name.split() != [name])
    what = "the query's id" if query_id.split() != [query_id] else f"the id of document {wrong!r}"
    raise QueryError(
        "id-with-space",
        f"{what} is empty or holds white space, which separates the columns of a {output.format} file; choose "
        "output.format: parquet or jsonl, or change the id",
    )
