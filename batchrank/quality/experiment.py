"""Judges several runs at once, each against the first, with tests whose p-values are corrected for their number."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from batchrank.errors import InputError
from batchrank.io import storage
from batchrank.quality import rankings
from batchrank.quality.judgements import Comparison, compare, load, notes_on, require_judged
from batchrank.quality.measures import DEFAULT, Measures, Qrels, Values, holm
from batchrank.quality.rankings import Rankings
from batchrank.read import detect


@dataclass(frozen=True, slots=True)
class Judged:
    """One run.

    Attributes:
        path: where it is.
        comparisons: one a measure, in which ``before`` is the first run's value; the first run is compared with none.
        corrected: p-values by measure, corrected by Holm's method over all runs; empty for the first.
        values: measure -> query id -> value.
    """

    path: str
    comparisons: Sequence[Comparison]
    corrected: Mapping[str, float]
    values: Mapping[str, Values]


@dataclass(frozen=True, slots=True)
class Experiment:
    """What came of it.

    Attributes:
        runs: in the order in which they were given.
        queries: the judged queries that count, the same for all.
        notes: what a reader of the figures should know.
    """

    runs: Sequence[Judged]
    queries: Sequence[str]
    notes: Sequence[str]


def experiment(
    targets: Sequence[str],
    qrels: Sequence[str],
    *,
    measures: Sequence[str] = DEFAULT,
    ranked_only: bool = False,
) -> Experiment:
    """Judge runs, and test each of them against the first one.

    For each measure the runs after the first are as many tests; their p-values are corrected together.

    Args:
        targets: output folders of jobs, or runs; the first is what the others are compared with.
        qrels: files of judgements.
        measures: names as ir-measures has them.
        ranked_only: leave judged queries out that not all runs rank; otherwise a run scores 0 where it ranks nothing.

    Raises:
        InputError: a file is missing or holds something else, or a run ranks nothing that is judged.
        JobError: a measure is unknown.
        MissingExtraError: ir-measures isn't installed.
    """
    for path in (*targets, *qrels):
        if not storage.exists(path):
            raise InputError(f"eval: {storage.shown(path)}: no such file or folder; correct the path")
    judged = load([detect.source(path) for path in qrels])
    found = [rankings.load(path, judged) for path in targets]
    for path, one in zip(targets, found, strict=True):
        require_judged(path, one, judged, qrels)
    queries = [query for query in judged if not ranked_only or all(query in one.after for one in found)]
    if not queries:
        raise InputError(
            "eval: no judged query is ranked by all runs; leave --ranked-only out, or compare others"
        )
    computed = Measures(measures, judged)
    values = [computed.per_query(one.after, queries) for one in found]
    compared = [
        [compare(computed, name, own[name], values[0][name] if i else None) for name in own]
        for i, own in enumerate(values)
    ]
    corrected = _corrected(compared[1:])
    runs = [
        Judged(path, comparisons, fair, own)
        for path, comparisons, fair, own in zip(targets, compared, [{}, *corrected], values, strict=True)
    ]
    return Experiment(runs, queries, list(_notes(targets, found, judged, queries, ranked_only=ranked_only)))


def _corrected(compared: Sequence[Sequence[Comparison]]) -> list[dict[str, float]]:
    """Each run's p-values by measure, those of a measure corrected together."""
    found: list[dict[str, float]] = [{} for _ in compared]
    for tests in zip(*compared, strict=True):
        for own, one, p in zip(found, tests, holm([one.p_value or 0.0 for one in tests]), strict=True):
            own[one.measure] = p
    return found


def _notes(
    targets: Sequence[str],
    found: Sequence[Rankings],
    judged: Qrels,
    queries: Sequence[str],
    *,
    ranked_only: bool,
) -> Iterator[str]:
    for path, one in zip(targets, found, strict=True):
        for note in [*one.notes, *notes_on(judged, one, ranked_only=ranked_only)]:
            if "name it with --before" not in note:
                yield note if path in note else f"{path}: {note}"
    if ranked_only and len(queries) < len(judged):
        yield f"{len(queries):,} of {len(judged):,} judged queries are ranked by all runs; only they count"
