"""Measures by name, computed by ir-measures: each query's value, and their mean."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from batchrank.errors import JobError, MissingExtraError
from batchrank.evaluate.qrels import Qrels
from batchrank.evaluate.rankings import Run

DEFAULT = ("nDCG@10", "RR@10", "AP", "R@100")
Values: TypeAlias = Mapping[str, float]
"""Query id -> a measure's value."""


class Measures:
    """Some measures over some qrels.

    Raises:
        JobError: a measure is unknown, or needs a program that isn't there.
        MissingExtraError: ir-measures isn't installed.
    """

    def __init__(self, names: Sequence[str], qrels: Qrels) -> None:
        try:
            import ir_measures
        except ImportError:
            raise MissingExtraError("eval: ir-measures is needed: pip install 'batchrank[eval]'") from None
        self._library = ir_measures
        self._qrels = qrels
        self._measures = [self._parsed(name) for name in dict.fromkeys(names)]
        try:
            self._evaluator = ir_measures.evaluator(self._measures, qrels)
        except (ValueError, RuntimeError, ImportError) as error:
            raise JobError(f"eval: {error}; leave the measure out, or install what computes it") from None

    @property
    def names(self) -> list[str]:
        """The measures' full names."""
        return [str(measure) for measure in self._measures]

    def per_query(self, run: Run, queries: Iterable[str]) -> dict[str, Values]:
        """Each measure's value for each of the queries; a query that the run does not rank has what nothing has."""
        # Ranks become scores without a tie, so that every library behind ir-measures sorts alike.
        scores = {q: {d: float(len(docs) - i) for i, d in enumerate(docs)} for q, docs in run.items()}
        wanted = list(queries)
        values = {name: dict.fromkeys(wanted, 0.0) for name in self.names}
        try:
            for metric in self._evaluator.iter_calc(scores):
                if metric.query_id in values[str(metric.measure)]:
                    values[str(metric.measure)][metric.query_id] = float(metric.value)
        except (ValueError, RuntimeError, ImportError, OSError) as error:
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
            return self._library.parse_measure(name)
        except (ValueError, NameError, SyntaxError, KeyError, TypeError, AttributeError):
            known = "nDCG@10, RR@10, AP, AP@100, R@100, P@5, Rprec, Success@5, Bpref, RBP, ERR@20"
            raise JobError(f"eval: no measure is called {name!r}; some that are: {known}") from None
