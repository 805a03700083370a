"""Puts every document on the hub's scale, answer by answer, by the documents that an answer shares with the hub.

Several models are tried; the one with the least leave-one-out error, in hub positions, is taken:
1. ``line``: a line in link(score) for each link, shrunk towards the moment-matching line by its residual noise;
2. ``ranks``: the number of better documents, interpolated between the answer's hub documents;
3. ``isotonic``: monotone interpolation of scores, in the link whose lines did best.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from batchrank.data import Floats, Positions
from batchrank.merge.answers import FirstPass
from batchrank.merge.scale import EXACT, FLAT, Link, Scale, falling, informative, links

INFORMATIVE = 4
"""Pairs of scores that an answer's line needs, as two fit any line; with fewer the answer takes the rank model."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """All documents on one scale, higher is better.

    Attributes:
        model: which model it is.
        value: n values as predicted from the first pass; NaN without a score.
        hub: n values of the hub's documents as the hub answered; NaN for all others.
        left_out: n values of the hub's documents as predicted without their own hub score; NaN for all others.
        score: turns values into the hub's scores, never falling.
        error: mean leave-one-out error, hub positions.
    """

    model: str
    value: Floats
    hub: Floats
    left_out: Floats
    score: Callable[[Floats], Floats]
    error: float = np.inf


@dataclass(frozen=True, slots=True, eq=False)
class _Shared:
    """One answer and what it shares with the hub: its ``rows`` are ``spots`` of the scale, by rising row."""

    docs: Positions
    scores: Floats
    rows: Positions
    spots: Positions


def calibrate(first: FirstPass, scale: Scale) -> Estimate:
    """Choose a model and apply it."""
    answers = _shared(first, scale)
    ranks = _ranks(first, scale, answers)
    scores = np.r_[first.raw[first.scored], scale.values]
    checked = []
    for link in links(scores):
        checked.append(_checked(first, scale, answers, _lines(first, scale, answers, link, ranks)))
        if checked[-1].error <= EXACT:
            return checked[-1]
    best_link = links(scores)[int(np.argmin([estimate.error for estimate in checked]))]
    checked.append(_checked(first, scale, answers, ranks))
    checked.append(_checked(first, scale, answers, _isotonic(first, scale, answers, best_link, ranks)))
    return min(checked, key=lambda estimate: estimate.error)


def _shared(first: FirstPass, scale: Scale) -> list[_Shared]:
    spot = np.full(len(first), -1, dtype=np.intp)
    spot[scale.docs] = np.arange(len(scale))
    answers = []
    for answer in first.answers:
        spots = spot[answer.docs]
        rows = np.flatnonzero(spots >= 0)
        answers.append(_Shared(answer.docs, answer.values, rows, spots[rows]))
    return answers


def _checked(first: FirstPass, scale: Scale, answers: Sequence[_Shared], estimate: Estimate) -> Estimate:
    """Measure the error where every model can be measured: an answer's first and last shared document can't be.

    Each hub document counts for as many as it stands for: half of those between its neighbours in the hub.
    """
    inner = np.concatenate([answer.docs[answer.rows[1:-1]] for answer in answers])
    if not len(inner):
        return estimate
    weight = np.concatenate([answer.rows[2:] - answer.rows[:-2] for answer in answers])
    known, places = estimate.hub[scale.docs], np.arange(len(scale), dtype=np.float64)
    guessed = np.interp(-estimate.left_out[inner], -known, places)
    actual = np.interp(-estimate.hub[inner], -known, places)
    return replace(estimate, error=float(np.average(np.abs(guessed - actual), weights=weight)))


def _blank(first: FirstPass, scale: Scale, hub: Floats) -> tuple[Floats, Floats, Floats]:
    value, own, left_out = (np.full(len(first), np.nan) for _ in range(3))
    own[scale.docs] = hub
    return value, own, left_out


def _interpolate(answer: _Shared, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Monotone values of all rows and, leaving each out, of the shared ones.

    ``x`` rises along rows; ``y``, wanted to fall, is known for the shared documents.
    """
    knots, fitted = x[answer.rows], falling(y)
    value = np.interp(x, knots, fitted)
    left_out = y.copy()
    for i in range(1, len(knots) - 1):
        # Only where noise made values pool can leaving one out change its neighbours.
        before, after = (fitted if fitted is y else falling(np.delete(y, i)))[[i - 1, i + (fitted is y)]]
        width = knots[i + 1] - knots[i - 1]
        share = (knots[i] - knots[i - 1]) / width if width > 0 else 0.5
        left_out[i] = before + share * (after - before)
    return value, left_out


def _ranks(first: FirstPass, scale: Scale, answers: Sequence[_Shared]) -> Estimate:
    """The rank model: an answer's quantiles plus its residuals at the hub. Values are minus the better counts.

    Residuals of an evenly drawn sample are a Brownian bridge, which interpolates linearly. Where answers contradict
    each other they carry noise as well: then the bridge is fitted (kriged) instead.
    """
    value, own, left_out = _blank(first, scale, -scale.better_counts)
    total = len(first.scored)
    noise = _rank_noise(scale, answers, total)
    for answer in answers:
        length, docs = len(answer.docs), answer.docs[answer.rows]
        u = (answer.rows + 0.5) / length
        residual = scale.better_counts[answer.spots] - u * total
        bridge = (np.minimum(u[:, None], u) - u[:, None] * u) * total**2 / length
        doubt = noise * (total * u * (1 - u)) ** 2
        inverse = np.linalg.inv(bridge + np.diag(doubt + 1e-9 * np.diag(bridge)))
        weights = inverse @ residual
        left_out[docs] = -(scale.better_counts[answer.spots] - weights / np.diag(inverse))
        known = falling(-(u * total + residual - doubt * weights))
        rows = np.arange(length) + 0.5
        value[answer.docs] = np.interp(rows, np.r_[0, answer.rows + 0.5, length], np.r_[0.0, known, -total])
    return Estimate("ranks", value, own, left_out, _score_of_count(scale))


def _rank_noise(scale: Scale, answers: Sequence[_Shared], total: int) -> float:
    """Variance of noise in ranks, as a share of (u(1 - u))^2, from the differences of neighbouring residuals.

    Noise moves a document furthest where documents are densest, in the middle. Without any inversion there is none.
    """
    if all((np.diff(answer.spots) > 0).all() for answer in answers):
        return 0.0
    excess = shape = 0.0
    for answer in answers:
        u = (answer.rows + 0.5) / len(answer.docs)
        steps = np.diff(scale.better_counts[answer.spots] / total - u)
        excess += float((steps**2 - np.diff(u) / len(answer.docs)).sum())
        spread = (u * (1 - u)) ** 2
        shape += float((spread[1:] + spread[:-1]).sum())
    return max(excess, 0.0) / shape if shape else 0.0


def _score_of_count(scale: Scale) -> Callable[[Floats], Floats]:
    return lambda values: np.interp(-values, scale.better_counts, scale.values)


def _fill(value: Floats, left_out: Floats, ranks: Estimate, answer: _Shared, link: Link) -> None:
    """Give an answer that shares too few documents what the rank model says, on this link's scale."""
    value[answer.docs] = link.forward(ranks.score(ranks.value[answer.docs]))
    docs = answer.docs[answer.rows]
    left_out[docs] = link.forward(ranks.score(ranks.left_out[docs]))


def _lines(
    first: FirstPass, scale: Scale, answers: Sequence[_Shared], link: Link, ranks: Estimate
) -> Estimate:
    """Lines in one link.

    Each answer's scores are standardised by its own moments. If answers are exchangeable, one common line through all
    shared documents is then the moment-matching line. An answer's own line differs from it by the sampling error of
    the moments. That is the prior; the residual noise says how far to trust the answer's own pairs.
    """
    target = link.forward(scale.values)
    value, own, left_out = _blank(first, scale, target)
    fits = [_Standard.of(answer, link, scale, target) for answer in answers]
    usable = [fit for fit in fits if fit is not None]
    common = _common_line(usable)
    noise = _noise(usable)
    for answer, fit in zip(answers, fits, strict=True):
        line = None if fit is None or common is None else fit.shrunk(common, noise)
        if fit is None or line is None:
            _fill(value, left_out, ranks, answer, link)
            continue
        value[answer.docs] = line.intercept + line.slope * fit.all
        docs = answer.docs[answer.rows]
        left_out[docs] = value[docs]
        left_out[docs[fit.use]] = line.left_out
    return Estimate(f"line ({link.name})", value, own, left_out, link.inverse)


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    intercept: float
    slope: float
    left_out: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Standard:
    """One answer for a line: standardised scores of all documents, and x, y of the informative ones that it shares."""

    all: Floats
    use: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    x: Floats
    y: Floats
    length: int

    @classmethod
    def of(cls, answer: _Shared, link: Link, scale: Scale, target: Floats) -> "_Standard | None":
        inside = informative(answer.scores)
        use = inside[answer.rows] & informative(scale.values)[answer.spots]
        linked = link.forward(answer.scores)
        if use.sum() < INFORMATIVE:
            return None
        spread = linked[inside].std()
        if spread <= FLAT * np.abs(linked[inside]).max():
            return None
        standard = (linked - linked[inside].mean()) / spread
        if np.ptp(standard[answer.rows][use]) <= FLAT:
            return None
        return cls(standard, use, standard[answer.rows][use], target[answer.spots][use], int(inside.sum()))

    def own_residuals(self) -> float:
        """Sum of squares about the answer's own line."""
        x, y = self.x - self.x.mean(), self.y - self.y.mean()
        slope = x @ y / (x @ x)
        return float(((y - slope * x) ** 2).sum())

    def shrunk(self, common: tuple[float, float], noise: float) -> _Line | None:
        """The answer's line, or None where it would not rise."""
        a, b = common
        design = np.stack([np.ones(len(self.x)), self.x])
        # The mean of L standardised scores is off by 1/sqrt(L), their deviation by about as much.
        prior = max((noise**0.5 / b) ** 2, 1e-18) * self.length
        inverse = np.linalg.inv(design @ design.T + prior * np.eye(2))
        residual = self.y - a - b * self.x
        shift, tilt = inverse @ (design @ residual)
        if b + tilt <= 0:
            return None
        leverage = np.einsum("ij,ik,kj->j", design, inverse, design)
        error = (residual - shift - tilt * self.x) / np.maximum(1 - leverage, 1e-3)
        return _Line(a + shift, b + tilt, self.y - error)


def _common_line(fits: Sequence[_Standard]) -> tuple[float, float] | None:
    if not fits:
        return None
    x, y = np.concatenate([fit.x for fit in fits]), np.concatenate([fit.y for fit in fits])
    slope = float(((x - x.mean()) @ (y - y.mean())) / ((x - x.mean()) @ (x - x.mean())))
    return (float(y.mean()) - slope * float(x.mean()), slope) if slope > FLAT * np.abs(y).max() else None


def _noise(fits: Sequence[_Standard]) -> float:
    """Residual variance about the answers' own lines."""
    freedom = sum(len(fit.x) - 2 for fit in fits)
    return sum(fit.own_residuals() for fit in fits) / freedom if freedom else 0.0


def _isotonic(
    first: FirstPass, scale: Scale, answers: Sequence[_Shared], link: Link, ranks: Estimate
) -> Estimate:
    """Monotone interpolation in one link."""
    target = link.forward(scale.values)
    value, own, left_out = _blank(first, scale, target)
    for answer in answers:
        if len(answer.rows) < INFORMATIVE:
            _fill(value, left_out, ranks, answer, link)
            continue
        rising = -link.forward(answer.scores)
        value[answer.docs], left_out[answer.docs[answer.rows]] = _interpolate(
            answer, rising, target[answer.spots]
        )
    return Estimate("isotonic", value, own, left_out, link.inverse)
