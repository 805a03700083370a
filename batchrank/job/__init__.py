"""The job: what one run does, frozen and validated; from a file, the environment and ``--set``."""

from batchrank.job.editors import job_schema
from batchrank.job.load import load_job
from batchrank.job.schema import Job
from batchrank.job.sections import (
    Budget,
    Columns,
    Endpoint,
    Gate,
    Input,
    Limits,
    Merge,
    Output,
    Rate,
    Retry,
)

__all__ = [
    "Budget",
    "Columns",
    "Endpoint",
    "Gate",
    "Input",
    "Job",
    "Limits",
    "Merge",
    "Output",
    "Rate",
    "Retry",
    "job_schema",
    "load_job",
]
