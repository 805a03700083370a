"""Offline reranking over paid, rate-limited APIs.

Names are imported when first asked for: the command line has to tell Arrow how to allocate before anything imports it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    from batchrank.formats.memory import ArrowStream
    from batchrank.job import Budget, Columns, Endpoint, Gate, Job, Limits, Merge, Rate, Retry, load_job
    from batchrank.pipeline import Options, Report, rerank, rerank_sync, run
    from batchrank.read import Queries, Record
    from batchrank.records import Candidate, Failure, Query, Ranking
    from batchrank.version import __version__

__all__ = [
    # what runs
    "rerank",
    "rerank_sync",
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
_HOMES = ("version", "errors", "records", "job", "formats.memory", "read", "pipeline")


def __getattr__(name: str) -> object:
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"batchrank.{home}")
            if hasattr(module, name):
                return globals().setdefault(name, getattr(module, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
