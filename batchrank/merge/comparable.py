"""Measures whether scores of different requests can be compared, by documents that were in two of them."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Literal, TypeAlias

import numpy as np

from batchrank.data import Floats
from batchrank.merge.scale import FLAT, informative, natural
from batchrank.outcomes import Overlap

STRICT = 0.01
"""The largest difference that "equal" allows: so that the rounding of a server is no difference."""
ENOUGH = 4
"""Informative documents without which a probe says nothing: two fit any line, and the others have to confirm it."""
SHIFT = 0.03
"""The most that requests' shifts may deviate, pooled: it moves few documents past their neighbours."""
SLOPE = 0.03
"""The most that requests' slopes may deviate, pooled, over one interquartile range; as small as a shift."""
RESIDUAL = 0.25
"""The most that scores may scatter about those lines, pooled: more noise would hide shifts and slopes."""
PAIRS = 60
"""Documents without which nothing is said, pooled: with fewer the deviations above are mostly chance."""
SPREAD = 1.349
"""The interquartile range of a normal variable, in standard deviations."""

Finding: TypeAlias = Literal["equal", "different", "nothing"]


@dataclass(frozen=True, slots=True)
class Probe:
    """What one probe showed.

    Attributes:
        finding: whether the scores were equal within ``STRICT``; ``nothing`` if too few were informative.
        deviation: root mean square difference.
    """

    finding: Finding
    deviation: float

    @classmethod
    def of(cls, overlap: Overlap | None) -> "Probe":
        """Judge a probe; None, or too few informative documents, says nothing."""
        pairs = None if overlap is None else _standard(overlap)
        if overlap is None or pairs is None:
            return cls("nothing", 0.0)
        # Saturated scores say nothing where both are, and much where only one is.
        both = np.r_[overlap.first, overlap.second]
        inside = informative(both).reshape(2, -1)
        telling = inside.any(axis=0) | (overlap.first != overlap.second)
        if telling.sum() < ENOUGH:
            return cls("nothing", 0.0)
        differences = (pairs.second - pairs.first)[telling]
        finding: Finding = "equal" if np.abs(differences).max() <= STRICT else "different"
        return cls(finding, float(np.sqrt((differences**2).mean())))


@dataclass(frozen=True, slots=True)
class _Pairs:
    """An overlap in units of the interquartile range, 0 being the middle of the first pass."""

    first: Floats
    second: Floats


def _standard(overlap: Overlap) -> _Pairs | None:
    """None if the first pass has no spread to compare with."""
    link = natural(np.r_[overlap.first, overlap.second, overlap.quartiles])
    low, high = link.forward(np.array(overlap.quartiles))
    if high <= low:
        return None
    middle, spread = (low + high) / 2, high - low
    return _Pairs(
        (link.forward(overlap.first) - middle) / spread, (link.forward(overlap.second) - middle) / spread
    )


@dataclass(frozen=True, slots=True)
class HubSums:
    """What one query's hub adds to the pooled variance components.

    Attributes:
        groups: request pairs.
        pairs: informative documents in them.
        residual: sum of squared residuals about each request pair's own line.
        freedom: degrees of freedom of ``residual``.
        shift: sum over request pairs of the squared shift.
        shift_noise: what a residual variance of 1 adds to ``shift``.
        slope: sum over request pairs of the squared deviation of the slope from 1.
        slope_noise: what a residual variance of 1 adds to ``slope``.
    """

    groups: int = 0
    pairs: int = 0
    residual: float = 0.0
    freedom: int = 0
    shift: float = 0.0
    shift_noise: float = 0.0
    slope: float = 0.0
    slope_noise: float = 0.0

    @classmethod
    def of(cls, overlap: Overlap) -> "HubSums":
        """Sum up a hub's overlap; saturated documents, and request pairs with few others, are left out."""
        pairs = _standard(overlap)
        if pairs is None:
            return cls()
        use = informative(overlap.first) & informative(overlap.second)
        groups = [use & (overlap.pair == number) for number in np.unique(overlap.pair)]
        groups = [rows for rows in groups if rows.sum() >= ENOUGH and np.ptp(pairs.first[rows]) > FLAT]
        if not groups:
            return cls()
        lines = np.array([_line(pairs.first[rows], pairs.second[rows]) for rows in groups])
        count, middle, shift, slope, scatter, residual = lines.T
        freedom = int(count.sum()) - 2 * len(lines)
        # The hub's documents were chosen by noisy scores: on average they fall back towards the middle by the share of
        # noise in the variance of a score. As much of a common slope, and no more, is no property of requests.
        explained = residual.sum() / freedom / 2 * SPREAD**2
        fallback = float(np.clip(-slope.mean(), 0, explained))
        return cls(
            len(lines),
            int(count.sum()),
            float(residual.sum()),
            freedom,
            float(((shift + fallback * middle) ** 2).sum()),
            float((1 / count).sum()),
            float(((slope + fallback) ** 2).sum()),
            float((1 / scatter).sum()),
        )


def _line(x: Floats, y: Floats) -> tuple[float, float, float, float, float, float]:
    """Of y - x over x: count, mean of x, mean, slope, scatter of x, squared residuals."""
    difference, centred = y - x, x - x.mean()
    scatter = float(centred @ centred)
    slope = float(centred @ difference) / scatter
    residual = difference - difference.mean() - slope * centred
    return len(x), float(x.mean()), float(difference.mean()), slope, scatter, float(residual @ residual)


@dataclass(frozen=True, slots=True)
class Components:
    """Pooled variance components, as deviations.

    Attributes:
        pairs: documents that they rest on.
        shift: of the per-request shift.
        slope: of the per-request slope.
        residual: of what no line explains.
    """

    pairs: int
    shift: float
    slope: float
    residual: float

    @classmethod
    def of(cls, sums: Iterable[HubSums]) -> "Components":
        """Estimate by moments."""
        rows = np.array([astuple(one) for one in sums], dtype=np.float64).reshape(-1, 8)
        groups, pairs, residual, freedom, shift, shift_noise, slope, slope_noise = rows.sum(axis=0)
        if not freedom:
            return cls(int(pairs), 0.0, 0.0, 0.0)
        variance = residual / freedom
        return cls(
            int(pairs),
            float(np.sqrt(max(shift - variance * shift_noise, 0.0) / groups)),
            float(np.sqrt(max(slope - variance * slope_noise, 0.0) / groups)),
            float(np.sqrt(variance)),
        )

    @property
    def absolute(self) -> bool:
        """Whether scores of different requests differ by little more than noise."""
        return (
            self.pairs >= PAIRS and self.shift <= SHIFT and self.slope <= SLOPE and self.residual <= RESIDUAL
        )
