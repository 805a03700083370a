"""Offline reranking over paid, rate-limited APIs."""

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
from batchrank.job import Budget, Endpoint, Gate, Job, Limits, Merge, Rate, Retry, load_job
from batchrank.pipeline import Options, Report, rerank, run
from batchrank.records import Candidate, Failure, Query, Ranking
from batchrank.version import __version__

__all__ = [
    # what runs
    "rerank",
    "run",
    # what it takes
    "Candidate",
    "Query",
    "Job",
    "Budget",
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
