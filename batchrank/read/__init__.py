"""Stage 1: files -> queries, in order, in bounded memory."""

from batchrank.formats import Gauge
from batchrank.read.layout import facts, find, notes, sources
from batchrank.read.memory import Queries, Record
from batchrank.read.reader import read

__all__ = ["Gauge", "Queries", "Record", "facts", "find", "notes", "read", "sources"]
