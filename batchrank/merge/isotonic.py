"""Isotonic regression by pooling adjacent violators.

scikit-learn and scipy have it too, but each weighs more than all other dependencies together.
"""

import numpy as np

from batchrank.arrays import Floats


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
