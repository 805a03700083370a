"""Puts answers on one scale, the hub's, because scores of different requests can't be compared as they are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from batchrank.data import Floats, Positions
from batchrank.merge.agreement import agreement
from batchrank.merge.answers import Answer, FirstPass, Pool, drift, merged, overlap
from batchrank.outcomes import Merged, Verdict


def falling(values: Floats, weights: Floats | None = None) -> Floats:
    """The never increasing sequence nearest to ``values`` by weighted squares."""
    if len(values) < 2 or not (values[1:] > values[:-1]).any():
        return values
    levels: list[float] = []
    masses: list[float] = []
    counts: list[int] = []
    mass_of = np.ones(len(values)) if weights is None else weights
    for value, mass in zip(values.tolist(), mass_of.tolist(), strict=True):
        count = 1
        while levels and levels[-1] < value:
            value = (levels[-1] * masses[-1] + value * mass) / (masses[-1] + mass)
            mass += masses.pop()
            count += counts.pop()
            levels.pop()
        levels.append(value)
        masses.append(mass)
        counts.append(count)
    return np.repeat(levels, counts)


EXACT = 1e-9
"""The error, in places of a hub, up to which a model is taken without a look at others: it is that of rounding."""
TINY = 1e-15
"""Stands for 0, and 1 - TINY for 1, where a logarithm is taken; doubles near 1 are 1e-16 apart."""


@dataclass(frozen=True, slots=True)
class Link:
    """A strictly increasing function of scores.

    Attributes:
        name: ``identity``, ``logit`` or ``log``.
        forward: scores -> link scale; saturated scores come out finite.
        inverse: link scale -> scores.
    """

    name: str
    forward: Callable[[Floats], Floats]
    inverse: Callable[[Floats], Floats]


def _logit(scores: Floats) -> Floats:
    inside = np.clip(scores, TINY, 1 - TINY)
    return np.log(inside) - np.log1p(-inside)


def _logistic(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(values, -700, 700)))


IDENTITY = Link("identity", lambda scores: scores, lambda values: values)
LOGIT = Link("logit", _logit, _logistic)
LOG = Link(
    "log", lambda scores: np.log(np.maximum(scores, TINY)), lambda values: np.exp(np.minimum(values, 700))
)


def links(scores: Floats) -> list[Link]:
    """The links that these scores allow: probabilities take all, unbounded scores only the identity."""
    if not len(scores) or scores.min() < 0:
        return [IDENTITY]
    return [LOGIT, IDENTITY, LOG] if scores.max() <= 1 else [IDENTITY, LOG]


def natural(scores: Floats) -> Link:
    """The logit of probabilities, otherwise the identity."""
    return links(scores)[0] if len(scores) and scores.max() <= 1 else IDENTITY


def informative(scores: Floats) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Which scores carry a slope: a probability of exactly 0 or 1 is saturated and carries none."""
    if len(scores) and scores.min() >= 0 and scores.max() <= 1:
        return (scores > 0) & (scores < 1)
    return np.ones(len(scores), dtype=bool)


FLAT = 1e-6
"""Relative spread up to which scores count as all equal: a few roundings of 32-bit floats make as much."""


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """M documents, best first.

    Attributes:
        docs: document indices.
        values: scores on the base hub's scale, never increasing.
        better_counts: how many documents are better, as estimated; never decreasing.
    """

    docs: Positions
    values: Floats
    better_counts: Floats

    def __len__(self) -> int:
        return len(self.docs)


def scale(first: FirstPass, hubs: Sequence[Answer], earlier: Sequence[Answer] = ()) -> Scale:
    """Join hub answers on the scale of the longest; one that shares too little with it is left out.

    Those of earlier runs give way to those of this one.
    """
    base, *others = [*sorted(hubs, key=len, reverse=True), *sorted(earlier, key=len, reverse=True)]
    docs, values = [base.docs], [base.values]
    for other in others:
        moved = align(first, other, base)
        if moved is not None:
            new = ~np.isin(other.docs, np.concatenate(docs))
            docs.append(other.docs[new])
            values.append(moved[new])
    joined = Answer.of(np.concatenate(docs), np.concatenate(values))
    # Documents tied on the scale stand in the order of their quantiles.
    order = np.lexsort((first.tiebreak[joined.docs], -joined.values))
    joined = Answer(joined.docs[order], joined.values[order])
    return Scale(joined.docs, joined.values, better_counts(first, joined))


def better_counts(first: FirstPass, hub: Answer) -> Floats:
    """How many documents of the whole list are better than each of the hub's.

    Each answer is an evenly drawn sample, so a document's place in its answer is a first guess. The second guess adds
    up, over all answers, how many documents of the answer stand above a hub position. It interpolates between the
    answer's own hub documents, along the first guesses.
    """
    places = np.arange(len(hub), dtype=np.float64)
    guess = -falling(-first.quantile[hub.docs]) * len(first.scored) + 1e-6 * places
    source = first.answer_of[hub.docs]
    # Answers that the hub holds nothing of are taken to be like the others.
    share = len(first.scored) / sum(len(first.answers[number]) for number in np.unique(source))
    for _ in range(2):
        total = np.zeros(len(hub))
        for number in np.unique(source):
            own = np.flatnonzero(source == number)
            above = np.maximum.accumulate(first.place[hub.docs[own]]).astype(np.float64)
            # None of the answer is better than its best document; all of it is better than what ranks last.
            axis = np.r_[0.0, guess[own], len(first.scored)]
            total += np.interp(guess, axis, np.r_[0.0, above + 0.5, len(first.answers[number])])
            if above[0] == 0:
                total[: own[0]] -= np.interp(guess[: own[0]], axis[:2], [0.0, 0.5])
            total[own] -= 0.5
        guess = np.maximum.accumulate(total * share) + 1e-6 * places
    return guess


def align(first: FirstPass, other: Answer, base: Answer) -> Floats | None:
    """A second hub's scores on the base hub's scale; None where they share too little.

    Tried are a line in each link, and equal numbers of better documents; the least error on the shared documents
    (leaving each out in turn), in base positions, decides.
    """
    _, here, there = np.intersect1d(other.docs, base.docs, return_indices=True)
    if len(here) < 3:
        return None
    target = base.values[there]
    best, least = None, np.inf
    for moved, checked in _candidates(first, other, base, here, target):
        error = float(np.abs(_position(base, checked) - _position(base, target)).mean())
        if error < least:
            best, least = moved, error
        if error <= EXACT:
            break
    return best


def _candidates(
    first: FirstPass, other: Answer, base: Answer, here: Positions, target: Floats
) -> Iterator[tuple[Floats, Floats]]:
    """Pairs of all moved scores, and the shared documents' as if each had not been shared."""
    for link in links(np.r_[other.values, base.values]):
        use = informative(other.values[here]) & informative(target)
        x, y = link.forward(other.values[here]), link.forward(target)
        if use.sum() < 3 or np.ptp(x[use]) <= FLAT * np.abs(x[use]).max():
            continue
        design = np.stack([np.ones(use.sum()), x[use]])
        inverse = np.linalg.pinv(design @ design.T)
        intercept, slope = inverse @ design @ y[use]
        if slope <= 0:
            continue
        fitted = intercept + slope * x
        leverage = np.einsum("ij,ik,kj->j", design, inverse, design)
        checked = fitted.copy()
        checked[use] = y[use] - (y[use] - fitted[use]) / np.maximum(1 - leverage, 1e-3)
        yield link.inverse(intercept + slope * link.forward(other.values)), link.inverse(checked)
    counts = better_counts(first, base)
    moved = np.interp(better_counts(first, other), counts, base.values)
    yield moved, moved[here]


def _position(base: Answer, values: Floats) -> Floats:
    return np.interp(-values, -base.values, np.arange(len(base), dtype=np.float64))


def by_raw_score(pool: Pool, first: FirstPass, verdict: Verdict) -> Merged:
    """Sort by score. The order is certified only if the scores were found, or declared, absolute without noise."""
    order = first.by(first.raw)
    twice = overlap(first, first.probes)
    return merged(
        pool,
        first,
        order,
        first.raw[order],
        method="raw",
        certified=len(order) if verdict == "absolute" else 0,
        verdict=verdict,
        drift=None if twice is None else drift(twice.first, twice.second),
        agreement=agreement([*first.answers, *first.probes]),
    )


def by_standard_score(pool: Pool, first: FirstPass, verdict: Verdict) -> Merged:
    """Sort by the z-score of the logit within each answer: the best guess without any shared document."""
    link = natural(first.raw[first.scored])
    linked = np.full(len(first), np.nan)
    value = linked.copy()
    for answer in first.answers:
        linked[answer.docs] = link.forward(answer.values)
        inside = informative(answer.values)
        used = linked[answer.docs][inside] if inside.any() else linked[answer.docs]
        spread = used.std()
        value[answer.docs] = (linked[answer.docs] - used.mean()) / (spread if spread > 0 else 1.0)
    order = first.by(value)
    typical = linked[first.scored]
    scores = link.inverse(typical.mean() + value[order] * typical.std())
    return merged(pool, first, order, scores, method="hub (fallback)", verdict=verdict)
