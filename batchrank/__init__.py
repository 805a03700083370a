"""Reranks search results offline over paid, rate-limited APIs; the library's public names are exported here.

Each name is imported when it is first used, because the command line has to tell Arrow how to allocate memory before
anything imports Arrow.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchrank.data import Candidate, Query
    from batchrank.errors import (
        BatchrankError,
        InputError,
        JobError,
        LedgerError,
        OutputError,
        QueryError,
        RunStoppedError,
        StoppedError,
    )
    from batchrank.job.config import Job
    from batchrank.job.load import load_job
    from batchrank.job.running import Rate
    from batchrank.job.sections import Budget, Columns, Gate, Limits, Merge, Retry
    from batchrank.job.servers import Endpoint
    from batchrank.launch import run
    from batchrank.outcomes import Failure, Ranking
    from batchrank.pipeline.report import Report
    from batchrank.pipeline.rerank import rerank, rerank_sync
    from batchrank.pipeline.run import Options
    from batchrank.pipeline.tables import rerank_tables
    from batchrank.read.memory import ArrowStream, Queries, Record
    from batchrank.version import __version__

__all__ = [
    # what runs
    "rerank",
    "rerank_sync",
    "rerank_tables",
    "run",
    # what it takes
    "Candidate",
    "Query",
    "Record",
    "Queries",
    "ArrowStream",
    "Job",
    "Budget",
    "Columns",
    "Endpoint",
    "Gate",
    "Limits",
    "Merge",
    "Rate",
    "Retry",
    "Options",
    "load_job",
    # what comes of it
    "Failure",
    "Ranking",
    "Report",
    # what goes wrong
    "BatchrankError",
    "InputError",
    "JobError",
    "LedgerError",
    "OutputError",
    "QueryError",
    "RunStoppedError",
    "StoppedError",
    "__version__",
]  # fmt: skip
# Where they are, those first whose import brings little else.
_HOMES = (
    "version", "errors", "data", "outcomes", "job.sections", "job.config", "job.load", "read.memory",
    "pipeline.report", "pipeline.run", "pipeline.rerank", "pipeline.tables", "launch",
)  # fmt: skip


def __getattr__(name: str) -> object:
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"batchrank.{home}")
            if hasattr(module, name):
                return globals().setdefault(name, getattr(module, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
