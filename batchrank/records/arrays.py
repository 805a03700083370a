"""The arrays that records are made of."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Positions: TypeAlias = NDArray[np.intp]
Floats: TypeAlias = NDArray[np.float64]
