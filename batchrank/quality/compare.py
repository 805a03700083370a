"""Compares rankings with judgements, and with the rankings that they were made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchrank.errors import InputError
from batchrank.io import storage
from batchrank.quality import qrels as judgements
from batchrank.quality import rankings
from batchrank.quality.measures import DEFAULT, Measures, Values, p_value
from batchrank.read import detect

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
    judged = judgements.load([detect.source(path) for path in qrels])
    found = rankings.load(target, judged)
    first = found.before if before is None else rankings.load(before, judged).after
    if not found.after:
        some = ", ".join(map(repr, list(judged)[:_SHOWN]))
        raise InputError(
            f"eval: none of the {found.queries:,} queries of {target} is judged by {', '.join(qrels)} (which judges "
            f"{some}, ...); correct --qrels"
        )
    queries = [query for query in judged if query in found.after or not ranked_only]
    computed = Measures(measures, judged)
    after = computed.per_query(found.after, queries)
    was = None if first is None else computed.per_query(first, queries)
    comparisons = [
        _comparison(computed, name, after[name], None if was is None else was[name]) for name in after
    ]
    notes = [*found.notes, *_notes(judged, found, queries, ranked_only=ranked_only)]
    return Evaluation(comparisons, queries, after, was, notes)


def _comparison(measures: Measures, name: str, after: Values, before: Values | None) -> Comparison:
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


def _notes(
    judged: judgements.Qrels, found: rankings.Rankings, queries: Sequence[str], *, ranked_only: bool
) -> list[str]:
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
