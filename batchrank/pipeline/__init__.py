"""The four stages in one run: backpressure, resume, drain, progress."""

from batchrank.pipeline.inventory import Inventory, compact_ledger, inventory
from batchrank.pipeline.plan import Plan, plan
from batchrank.pipeline.report import Report
from batchrank.pipeline.rerank import rerank
from batchrank.pipeline.run import Options, Run, run
from batchrank.pipeline.summary import Progress
from batchrank.pipeline.sync import rerank_sync

__all__ = [
    "Inventory",
    "Options",
    "Plan",
    "Progress",
    "Report",
    "Run",
    "compact_ledger",
    "inventory",
    "plan",
    "rerank",
    "rerank_sync",
    "run",
]
