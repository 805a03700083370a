"""Reads relevance judgements, and judges rankings by them: each measure after reranking, and before.

Judgements come as TREC or BEIR qrels, JSON lines, Parquet, ranx's JSON, or in mteb's older shape.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batchrank.errors import InputError
from batchrank.io import storage
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.quality import rankings
from batchrank.quality.measures import DEFAULT, Measures, Qrels, Values, p_value
from batchrank.read import detect, runs
from batchrank.read.base import Segment, Source
from batchrank.read.detect import INPUTS
from batchrank.read.names import CANDIDATES, IDS, LABELLED, TEXT
from batchrank.read.told import first_record
from batchrank.read.values import relevance

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
    first = first_record(source)
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
    return set(LABELLED) <= set(first_record(source))


def _refuse(failure: Failure) -> None:
    raise InputError(f"{failure.place}: {failure.message}")


_SHOWN = 3
"""Query ids that a message shows: enough to see that two files name queries differently."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measure.

    Attributes:
        measure: its name.
        after: over all queries, after reranking.
        before: over all queries, before; None where that isn't known.
        p_value: of the paired randomisation test; None where ``before`` is.
        better: queries that gained.
        worse: queries that lost.
    """

    measure: str
    after: float
    before: float | None = None
    p_value: float | None = None
    better: int | None = None
    worse: int | None = None

    @property
    def difference(self) -> float | None:
        """What reranking changed."""
        return None if self.before is None else self.after - self.before


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of it.

    Attributes:
        comparisons: one a measure.
        queries: the judged queries that count.
        after: measure -> query id -> value.
        before: likewise; None where the first stage isn't known.
        notes: what a reader of the figures should know.
    """

    comparisons: Sequence[Comparison]
    queries: Sequence[str]
    after: Mapping[str, Values]
    before: Mapping[str, Values] | None
    notes: Sequence[str]


def evaluate(
    target: str,
    qrels: Sequence[str],
    *,
    measures: Sequence[str] = DEFAULT,
    before: str | None = None,
    ranked_only: bool = False,
) -> Evaluation:
    """Judge rankings.

    Args:
        target: a job's output folder, or a run.
        qrels: files of judgements.
        measures: names as ir-measures has them.
        before: the rankings to compare with; by default the first stage's, where ``target`` tells them.
        ranked_only: leave judged queries without a ranking out; otherwise they score 0.

    Raises:
        InputError: a file is missing or holds something else, or nothing that is ranked is judged.
        JobError: a measure is unknown.
        MissingExtraError: ir-measures isn't installed.
    """
    for path in (target, *qrels, *([before] if before else [])):
        if not storage.exists(path):
            raise InputError(f"eval: {storage.shown(path)}: no such file or folder; correct the path")
    judged = load([detect.source(path) for path in qrels])
    found = rankings.load(target, judged)
    first = found.before if before is None else rankings.load(before, judged).after
    require_judged(target, found, judged, qrels)
    queries = [query for query in judged if query in found.after or not ranked_only]
    computed = Measures(measures, judged)
    after = computed.per_query(found.after, queries)
    was = None if first is None else computed.per_query(first, queries)
    comparisons = [compare(computed, name, after[name], None if was is None else was[name]) for name in after]
    notes = [*found.notes, *notes_on(judged, found, ranked_only=ranked_only)]
    return Evaluation(comparisons, queries, after, was, notes)


def require_judged(path: str, found: rankings.Rankings, judged: Qrels, qrels: Sequence[str]) -> None:
    """See that a run and the judgements are of the same queries.

    Raises:
        InputError: nothing that is ranked is judged.
    """
    if not found.after:
        some = ", ".join(map(repr, list(judged)[:_SHOWN]))
        raise InputError(
            f"eval: none of the {found.queries:,} queries of {path} is judged by {', '.join(qrels)} (which judges "
            f"{some}, ...); correct --qrels"
        )


def compare(measures: Measures, name: str, after: Values, before: Values | None) -> Comparison:
    """One measure over the queries of ``after``, compared with the values of ``before`` where there are any."""
    result = measures.mean(name, after)
    if before is None:
        return Comparison(name, result)
    pairs = [(before[query], after[query]) for query in after]
    return Comparison(
        name,
        result,
        measures.mean(name, before),
        p_value([b for b, _ in pairs], [a for _, a in pairs]),
        sum(a > b for b, a in pairs),
        sum(a < b for b, a in pairs),
    )


def notes_on(judged: Qrels, found: rankings.Rankings, *, ranked_only: bool) -> list[str]:
    """What a reader of a run's figures should know."""
    notes = []
    if unranked := len(judged) - len(found.after):
        count = "are left out" if ranked_only else "score 0 (--ranked-only leaves them out)"
        notes.append(f"{unranked:,} of {len(judged):,} judged queries have no ranking and {count}")
    if unjudged := found.queries - len(found.after):
        notes.append(f"{unjudged:,} ranked queries are not judged and don't count")
    known = sum(any(document in judged[query] for document in docs) for query, docs in found.after.items())
    if not known:
        notes.append("no ranked document of any query is judged: are these the right qrels?")
    return notes
