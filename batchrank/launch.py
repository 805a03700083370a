"""Runs a job from its files to its output, in this process or in several, as the job says."""

from batchrank.job.config import Job
from batchrank.pipeline.hooks import telling
from batchrank.pipeline.report import Report
from batchrank.pipeline.run import Options, Run
from batchrank.pipeline.view import drawing


def make_run(job: Job, options: Options | None = None) -> Run:
    """A run of a job, in as many processes as it says; what that takes is imported only where there are several.

    Raises:
        JobError: the job lacks an input or an output.
    """
    if isinstance(job, Job) and job.engine.several:
        from batchrank.cluster.run import CrewRun

        return CrewRun(job, options)
    return Run(job, options)


async def run(job: Job, options: Options | None = None, *, progress: bool | None = False) -> Report:
    """Run a job from its files to its output folder: what ``batchrank run`` does.

    Args:
        job: the job, from ``load_job`` or made in Python, with ``input`` and ``output``.
        options: how to run it.
        progress: whether to show progress bars on stderr, or in the notebook; None where that is a terminal or one.

    Returns:
        What came of it, with the exit code.

    Raises:
        BatchrankError: the run could not start, or its output could not be written.
    """
    one = make_run(job, options)
    async with drawing(one, progress):
        return await telling(job, one.execute())
