"""How good rankings are: measures of the field, before and after reranking, with a test of the difference."""

from batchrank.evaluate.compare import Comparison, Evaluation, evaluate
from batchrank.evaluate.measures import DEFAULT

__all__ = ["DEFAULT", "Comparison", "Evaluation", "evaluate"]
