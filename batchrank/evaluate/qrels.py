"""Relevance judgements from files: TREC or BEIR qrels, JSON lines, Parquet, mteb's older shape."""

from collections.abc import Iterator
from typing import TypeAlias

import orjson

from batchrank.errors import InputError
from batchrank.formats import INPUTS, Segment, Source, runs
from batchrank.formats.labelled import relevance
from batchrank.formats.lines import Lines
from batchrank.formats.names import LABELLED
from batchrank.formats.parquet import opened
from batchrank.job.sections import Columns
from batchrank.records import Failure

Qrels: TypeAlias = dict[str, dict[str, int]]
"""Query id -> document id -> relevance, 0 for not relevant."""

_NAMES = ("relevance", "rel", "label", "score")


def load(sources: list[Source]) -> Qrels:
    """Read judgements.

    Raises:
        InputError: a file is no qrels, can't be read, or judges a document twice in different ways.
    """
    qrels: Qrels = {}
    for source in sources:
        for query, document, value in _labelled(source) if _is_labelled(source) else _judged(source):
            if qrels.setdefault(query, {}).setdefault(document, value) != value:
                raise InputError(
                    f"{source.name}: document {document!r} of query {query!r} is judged {qrels[query][document]} and "
                    f"{value}; keep one of them"
                )
    if not qrels:
        raise InputError(
            f"{', '.join(source.name for source in sources)}: no judgement in it; correct --qrels"
        )
    return qrels


def _judged(source: Source) -> Iterator[tuple[str, str, int]]:
    names = Columns(score=next((name for name in _NAMES if name in _first_names(source)), None))
    for batch in runs.read(source, names, _refuse):
        columns = [batch.column(n).to_pylist() for n in ("query_id", "doc_id", "score", "judged")]
        for query, document, value, judged in zip(*columns, strict=True):
            if value is None or value != int(value) or (source.format == "tsv" and not judged):
                raise InputError(
                    f"{source.name}: these are no relevance judgements (query {query!r}, document {document!r}); give "
                    "qrels: query 0 document relevance, or BEIR's query-id, corpus-id, score"
                )
            yield query, document, int(value)


def _labelled(source: Source) -> Iterator[tuple[str, str, int]]:
    for item in INPUTS[source.format].read(source, Columns()):
        if isinstance(item, Segment):
            for document in item.doc_ids or ():
                if document is not None:
                    yield item.query_id, document, relevance(document)


def _is_labelled(source: Source) -> bool:
    return set(LABELLED) <= _first_names(source)


def _first_names(source: Source) -> set[str]:
    """The names in the first record."""
    if source.format == "parquet":
        with opened(source) as file:
            return set(file.schema_arrow.names)
    if source.format != "jsonl":
        return set()
    lines = Lines(source)
    with lines.closing():
        lines.decompress()
        first = next((line for _, line in lines if line and not line.isspace()), b"null")
    try:
        record = orjson.loads(first)
    except orjson.JSONDecodeError:
        return set()
    return set(record) if isinstance(record, dict) else set()


def _refuse(failure: Failure) -> None:
    raise InputError(f"{failure.place}: {failure.message}")
