"""Measures by name, computed by ir-measures: each query's value, and their mean.

What would end the process inside trec_eval's C code is kept from it: judgements and ids are put into a form that it
can hold, measures that it can't compute are refused. Values are those of trec_eval wherever it gives any.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from batchrank.errors import InputError, JobError, MissingExtraError, install_line
from batchrank.evaluate.qrels import Qrels
from batchrank.evaluate.rankings import Run

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
