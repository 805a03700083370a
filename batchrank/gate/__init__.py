"""The quality gate: a run's rankings against those of the last run that passed."""

from batchrank.gate.baseline import Baseline, accepted, keep
from batchrank.gate.compare import Judgement, Moved, judge
from batchrank.gate.similarity import kendall_tau, rbo

__all__ = ["Baseline", "Judgement", "Moved", "accepted", "judge", "keep", "kendall_tau", "rbo"]
