"""Runs a job from its files to its output, in this process or in several, as the job says."""

from batchrank.job.config import Job
from batchrank.pipeline.hooks import telling
from batchrank.pipeline.nights import going_on, latest
from batchrank.pipeline.report import Report
from batchrank.pipeline.run import Options, Run
from batchrank.pipeline.view import drawing


def make_run(job: Job, options: Options | None = None) -> Run:
    """A run of a job, in as many processes as it says; what that takes is imported only where there are several.

    Raises:
        JobError: the job lacks an input or an output.
    """
    note = None
    if isinstance(job, Job):
        job, note = _settled(job, options or Options())
    if isinstance(job, Job) and job.engine.several:
        from batchrank.cluster.run import CrewRun

        run: Run = CrewRun(job, options)
    else:
        run = Run(job, options)
    run.notices += [] if note is None else [note]
    return run


def _settled(job: Job, options: Options) -> tuple[Job, str | None]:
    """The job with the output that it writes to, where that depends on the day, and what to say of it."""
    if options.fresh:
        return job, None
    if options.only_failed:
        last = latest(job)
        return (
            last,
            None if last.output == job.output else f"mends the output of another day, {last.destination}",
        )
    return going_on(job)


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
        return await telling(one.job, one.execute())
