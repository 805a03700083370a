"""Measures rankings by ir-measures, tells whether a difference is chance, and how alike two rankings are."""

import bisect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from batchrank.errors import InputError, JobError, MissingExtraError, install_line
from batchrank.quality.rankings import Run

Qrels: TypeAlias = dict[str, dict[str, int]]
"""Query id -> document id -> relevance, 0 for not relevant."""

_EXACT = 16
"""Queries with a difference up to which all swaps are looked at: 2 ** 16."""
_SAMPLES = 20_000
"""Random swaps: a p-value of 0.05 is then hardly ever off by more than 0.003."""
_CHUNK = 2_000_000
"""Swaps x queries at a time, a byte each: bounds memory."""


def p_value(before: Sequence[float], after: Sequence[float]) -> float:
    """The probability of a mean difference at least this large if the two were the same.

    Args:
        before: one value a query.
        after: aligned with ``before``.

    Returns:
        1 where no query differs; at least 1 / 20,001 where a sample was taken.
    """
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    # Sums of the same numbers in another order differ in their last digits; that is no difference.
    seen = abs(differences.sum()) - 1e-9 * np.abs(differences).sum()
    if len(differences) <= _EXACT:
        signs = 1 - 2 * ((np.arange(2 ** len(differences))[:, None] >> np.arange(len(differences))) & 1)
        return float((np.abs(signs @ differences) >= seen).mean())
    random = np.random.default_rng(0)  # so that the same values always have the same p
    as_large, left, rows = 0, _SAMPLES, max(1, _CHUNK // len(differences))
    while left:
        signs = 1 - 2 * random.integers(0, 2, (min(rows, left), len(differences)), dtype=np.int8)
        as_large += int((np.abs(signs @ differences) >= seen).sum())
        left -= len(signs)
    return (as_large + 1) / (_SAMPLES + 1)


def rbo(first: Sequence[str], second: Sequence[str], p: float = 0.9) -> float:
    """Rank-biased overlap, extrapolated from what is seen: RBO_ext of Webber, Moffat and Zobel (2010), equation 32.

    A reader goes on from one rank to the next with probability ``p``: the top weighs most. The agreement at the last
    rank is taken to go on for ever.

    Args:
        first: document ids, best first, none twice.
        second: likewise; the lengths may differ.
        p: between 0 and 1; 0.9 puts 86% of the weight on the first ten ranks.

    Returns:
        0 for nothing in common, 1 for the same ranking.
    """
    short, long = sorted((first, second), key=len)
    s, n = len(short), len(long)
    if list(first) == list(second):
        return 1.0
    if not s:
        return 0.0
    overlap = _overlaps(short, long)
    total = sum(overlap[d] / d * p**d for d in range(1, n + 1))
    total += sum(overlap[s] * (d - s) / (s * d) * p**d for d in range(s + 1, n + 1))
    return (1 - p) / p * total + ((overlap[n] - overlap[s]) / n + overlap[s] / s) * p**n


def common_tau(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Kendall's tau over the documents that both rankings have; what only one of them has doesn't count.

    Args:
        first: document ids, best first, none twice.
        second: likewise.

    Returns:
        1 for the same order, -1 for the reverse; None where fewer than two documents are common.
    """
    at = {name: rank for rank, name in enumerate(first)}
    ranks = [at[name] for name in second if name in at]
    if len(ranks) < 2:
        return None
    before: list[int] = []
    inversions = 0
    for rank in ranks:  # a list of ten thousand takes a hundredth of a second, and pairs would take 100 MB
        place = bisect.bisect(before, rank)
        inversions += len(before) - place
        before.insert(place, rank)
    return 1 - 4 * inversions / (len(ranks) * (len(ranks) - 1))


def churn(first: Sequence[str], second: Sequence[str], k: int) -> float:
    """The share of the second ranking's first ``k`` documents that the first one's lack; 0 for the same ones.

    Of rankings that are shorter than ``k`` it is a share of what there is.
    """
    one, two = set(first[:k]), set(second[:k])
    longer = max(len(one), len(two))
    return 1 - len(one & two) / longer if longer else 0.0


def _overlaps(short: Sequence[str], long: Sequence[str]) -> list[int]:
    """How many documents the first d ranks have in common, for each d from 0."""
    found, seen = [0], set[str]()
    for d, name in enumerate(long):
        new = [name, short[d]] if d < len(short) else [name]
        count = found[-1]
        for other in new:
            count += other in seen
            seen.add(other)
        found.append(count)
    return found


def kendall_tau(first: Sequence[str], second: Sequence[str]) -> float:
    """Kendall's tau-b over the documents of both rankings; one that a ranking lacks is tied with others below its end.

    Args:
        first: document ids, best first, none twice.
        second: likewise.

    Returns:
        1 for the same ranking, -1 for the reverse; 0 where nothing can be told.
    """
    if list(first) == list(second):
        return 1.0
    names = list(dict.fromkeys([*first, *second]))
    ranks = []
    for ranking in (first, second):
        at = {name: rank for rank, name in enumerate(ranking)}
        ranks.append(np.array([at.get(name, len(ranking)) for name in names]))
    upper = np.triu_indices(len(names), 1)
    one, two = (np.sign(rank[:, None] - rank[None, :])[upper] for rank in ranks)
    ties = float(np.sqrt(np.count_nonzero(one) * float(np.count_nonzero(two))))
    return float(one @ two) / ties if ties else 0.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p-values of several tests by Holm's step-down method (1979), in their order.

    Whoever calls those significant that stay below 0.05 is wrong about any of them in at most 5% of the cases.
    """
    corrected = [0.0] * len(p_values)
    most = 0.0
    for done, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        most = max(most, min(1.0, (len(p_values) - done) * p_values[index]))
        corrected[index] = most
    return corrected


DEFAULT = ("nDCG@10", "RR@10", "AP", "R@100")
Values: TypeAlias = Mapping[str, float]
"""Query id -> a measure's value."""
_MOST_RELEVANT = 2**31 - 1
"""trec_eval keeps a relevance in a C int where it counts levels; a larger one overflows it, or its memory."""
_REFUSALS = (ValueError, TypeError, SystemError, RuntimeError, ImportError, OSError)


class Measures:
    """Some measures over some qrels.

    Raises:
        JobError: a measure is unknown, looks at no rank, or needs a program that isn't there.
        InputError: a relevance is larger than any measure can hold.
        MissingExtraError: ir-measures isn't installed.
    """

    def __init__(self, names: Sequence[str], qrels: Qrels) -> None:
        try:
            import ir_measures
        except ImportError:
            raise MissingExtraError(f"eval: ir-measures is needed: {install_line('eval')}") from None
        self._library = ir_measures
        self._measures = [self._parsed(name) for name in dict.fromkeys(names)]
        held = {_held(query): _held_judgements(query, judged) for query, judged in qrels.items()}
        try:
            self._evaluator = ir_measures.evaluator(self._measures, held)
        except _REFUSALS as error:
            raise JobError(f"eval: {error}; leave the measure out, or install what computes it") from None

    @property
    def names(self) -> list[str]:
        """The measures' full names."""
        return [str(measure) for measure in self._measures]

    def per_query(self, run: Run, queries: Iterable[str]) -> dict[str, Values]:
        """Each measure's value for each of the queries; a query that the run does not rank has what nothing has."""
        # Ranks become scores without a tie, so that every library behind ir-measures sorts alike.
        scores = {
            _held(q): {_held(d): float(len(docs) - i) for i, d in enumerate(docs)}
            for q, docs in run.items()
            if docs  # of none it would count what it never set
        }
        wanted = {_held(query): query for query in queries}
        values = {name: dict.fromkeys(wanted.values(), 0.0) for name in self.names}
        try:
            for metric in self._evaluator.iter_calc(scores):
                if metric.query_id in wanted:
                    values[str(metric.measure)][wanted[metric.query_id]] = float(metric.value)
        except _REFUSALS as error:
            raise JobError(f"eval: {error}; leave the measure out, or install what computes it") from None
        return dict(values)

    def mean(self, name: str, values: Values) -> float:
        """A measure over all queries: the mean for most, a sum for those that count."""
        measure = next(measure for measure in self._measures if str(measure) == name)
        total = measure.aggregator()
        for value in values.values():
            total.add(value)
        return float(total.result())

    def _parsed(self, name: str) -> Any:
        try:
            measure = self._library.parse_measure(name)
        except (ValueError, NameError, SyntaxError, KeyError, TypeError, AttributeError):
            known = "nDCG@10, RR@10, AP, AP@100, R@100, P@5, Rprec, Success@5, Bpref, RBP, ERR@20"
            raise JobError(f"eval: no measure is called {name!r}; some that are: {known}") from None
        if measure.params.get("cutoff", 1) < 1:
            raise JobError(f"eval: {name!r} looks at no rank; write a cutoff of 1 or more, as in nDCG@10")
        return measure


def _held(name: str) -> str:
    """An id as a C string can hold it: one with a NUL or half a surrogate pair as the digits of its bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        pass
    else:
        if "\0" not in name:
            return name
    return f"\x01{name.encode('utf-8', 'surrogatepass').hex()}"


def _held_judgements(query: str, judged: Mapping[str, int]) -> dict[str, int]:
    """One query's judgements as trec_eval can hold them.

    1. Negative means not relevant. Where all are, it would reserve less than no memory: they are 0 then, which no value
       depends on, as there is nothing to find.
    2. Beside others they stay as they are, because it takes them as not judged (Bpref).

    Raises:
        InputError: a relevance is too large.
    """
    most = max(judged.values(), default=0)
    if most > _MOST_RELEVANT:
        document = max(judged, key=lambda name: judged[name])
        raise InputError(
            f"qrels: query {query!r}, document {document!r}: a relevance of {most} is more than any measure can hold "
            f"(at most {_MOST_RELEVANT:,}); give small whole numbers, 0 for not relevant"
        )
    return {_held(name): 0 if most < 0 else max(value, -_MOST_RELEVANT) for name, value in judged.items()}
