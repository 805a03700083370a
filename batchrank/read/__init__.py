"""Stage 1: files -> queries, in order, in bounded memory."""

from batchrank.formats import Gauge
from batchrank.read.files import find
from batchrank.read.reader import read

__all__ = ["Gauge", "find", "read"]
