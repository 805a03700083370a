"""Reads relevance judgements: TREC or BEIR qrels, JSON lines, Parquet, ranx's JSON, mteb's older shape."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeAlias

from batchrank.errors import InputError
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read import jsonl, runs, textfiles
from batchrank.read.base import COLUMNAR, Segment, Source, ended
from batchrank.read.columnar import names_in
from batchrank.read.detect import INPUTS
from batchrank.read.jsonl import Lines
from batchrank.read.jsonstream import Shape
from batchrank.read.names import CANDIDATES, IDS, LABELLED, TEXT
from batchrank.read.values import relevance

Qrels: TypeAlias = dict[str, dict[str, int]]
"""Query id -> document id -> relevance, 0 for not relevant."""

_NAMES = ("relevance", "rel", "label", "score")
_BEIR = {"query-id", "corpus-id", "score"}
_CANDIDATES = {
    *("query", "text", "rank", "raw_score", "first_stage_rank", "ranking"),
    *(name for tiers in (CANDIDATES, TEXT, IDS) for tier in tiers for name in tier),
}
_TEXT = ("tsv", "csv")
_GRADES = 5
"""So many different values of one query, none of which comes twice in the file, are scores and no grades."""


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
    first = _first_record(source)
    score = next((name for name in _NAMES if name in first), None)
    _refuse_candidates(source, first, score)
    told = score is not None and (score != "score" or set(first) == _BEIR)
    grades = _Grades(source)
    for entries in runs.read(replace(source, role="qrels"), Columns(score=score), _refuse):
        batch, _ = runs.with_documents(entries, source)
        columns = [batch.column(n).to_pylist() for n in ("query_id", "doc_id", "score", "judged")]
        for query, document, value, judged in zip(*columns, strict=True):
            if value is None or value != int(value) or (not judged and not first and source.format in _TEXT):
                raise _no_judgements(source, f"query {query!r}, document {document!r}")
            grades.add(query, int(value), judged=judged or told)
            yield query, document, int(value)
    grades.end()


class _Grades:
    """Tells scores from grades where a file's names don't: a query's many scores are all different, grades repeat."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._seen: dict[str, set[int]] = {}
        self._counts: Counter[str] = Counter()
        self._repeated = False

    def add(self, query: str, value: int, *, judged: bool) -> None:
        values = self._seen.setdefault(query, set())
        self._repeated = self._repeated or judged or value in values
        self._counts[query] += 1
        if not self._repeated:
            values.add(value)

    def end(self) -> None:
        """Refuse a file in which nothing repeats.

        Raises:
            InputError: its values are scores.
        """
        most = max(self._counts.values(), default=0)
        if not self._repeated and most >= _GRADES:
            query = max(self._counts, key=lambda name: self._counts[name])
            raise _no_judgements(
                self._source, f"all {most} values of query {query!r} are different, as scores are"
            )


def _refuse_candidates(source: Source, first: dict[str, Any], score: str | None) -> None:
    """Refuse a record that has what candidates have and judgements never do."""
    names = set(first) & _CANDIDATES
    if names and (score is None or score == "score"):
        raise _no_judgements(source, f"the first record has {', '.join(sorted(names))}, as candidates have")


def _no_judgements(source: Source, why: str) -> InputError:
    return InputError(
        f"{source.name}: these are no relevance judgements ({why}); give qrels: query 0 document relevance, or BEIR's "
        "query-id, corpus-id, score, or records of query_id, doc_id, relevance"
    )


def _labelled(source: Source) -> Iterator[tuple[str, str, int]]:
    for item in INPUTS[source.format].read(source, Columns()):
        if isinstance(item, Segment):
            for document in item.doc_ids or ():
                if document is not None:
                    yield item.query_id, document, relevance(document)


def _is_labelled(source: Source) -> bool:
    return set(LABELLED) <= set(_first_record(source))


def _first_record(source: Source) -> dict[str, Any]:
    """The first record, or one of the names that all have; empty where there are no names."""
    if source.format in COLUMNAR:
        return dict.fromkeys(names_in(source))
    if source.format in _TEXT:
        return dict.fromkeys(textfiles.names_in(source))
    try:
        lines = Lines(source)
        with lines.closing():
            lines.decompress()
            if lines.shape is Shape.RESULTS:
                return {}
            return next((record for _, record in jsonl.records(lines, source) if type(record) is dict), {})
    except OSError as error:
        raise ended(source, error) from error


def _refuse(failure: Failure) -> None:
    raise InputError(f"{failure.place}: {failure.message}")
