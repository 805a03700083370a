"""The rerank APIs on loopback: documented limits, quotas and errors, seeded faults, real relevance."""

from batchrank.emulator.app import Emulator, run_forever
from batchrank.emulator.counts import Counts, Received
from batchrank.emulator.endpoints import path
from batchrank.emulator.faults import FAULTS
from batchrank.emulator.relevance import relevance
from batchrank.emulator.settings import Settings, described

__all__ = [
    "FAULTS",
    "Counts",
    "Emulator",
    "Received",
    "Settings",
    "described",
    "path",
    "relevance",
    "run_forever",
]
