"""Finds out which job made an output, and reads single queries of its input again, for their texts."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from batchrank.data import Content, Query
from batchrank.errors import BatchrankError, InputError, JobError
from batchrank.io.address import Where
from batchrank.job.config import Job
from batchrank.job.endpoint import REDACTED
from batchrank.pipeline.earlier import input_fingerprint
from batchrank.pipeline.parts import PartCutter, Spot, part_documents
from batchrank.read.layout import facts
from batchrank.read.reader import read
from batchrank.write.folder import OutputFolder


@dataclass(frozen=True, slots=True)
class Origin:
    """The job that made an output, as far as that can be told.

    Attributes:
        job: the job; None where nothing tells it.
        note: why it is not known, or not wholly, for the user.
        hidden: whether a part of its requests is not shown in the summary, so that its answers can't be looked up.
        given: whether the user named the job file.
    """

    job: Job | None
    note: str | None = None
    hidden: bool = False
    given: bool = False

    @property
    def hint(self) -> str:
        """What may help where the input can't be read by the job in the summary."""
        stdin = self.job is not None and self.job.input is not None and "-" in self.job.input.path
        return "" if self.given or stdin else f"; or {_NAME_IT}, as its paths count from it"


_NAME_IT = "name the job file instead of the folder"


def origin(folder: Where) -> Origin:
    """The job of an output folder, by its summary, whose paths are absolute; the folder may have been moved."""
    try:
        data = OutputFolder(folder).summary()["job"]
    except FileNotFoundError:
        return Origin(None, f"{folder} has no summary.json yet, so the job isn't known: {_NAME_IT}")
    except (OSError, ValueError, KeyError) as error:
        return Origin(None, f"the summary in {folder} can't be read ({error}): {_NAME_IT}")
    try:
        here = data["output"] | {"path": str(folder.absolute())}  # wherever it was when the job ran
        job = Job.model_validate(data | {"output": here})
    except (ValidationError, JobError) as error:
        first = str(error).splitlines()[0]
        return Origin(None, f"the job in the summary of {folder} can't be used ({first}): {_NAME_IT}")
    return Origin(job, hidden=REDACTED in str(data["endpoint"]["body"]))


@dataclass(frozen=True, slots=True)
class Found:
    """A query of the input.

    Attributes:
        query: the query.
        position: its place among all that is read, from 0.
        spot: its place among the parts of the output.
    """

    query: Query
    position: int
    spot: Spot


def queries(job: Job, wanted: Collection[str], *, placed: bool = False) -> Iterator[Found]:
    """The queries of some ids; reads until all are found.

    Args:
        job: the job.
        wanted: the ids.
        placed: whether their places matter, which ``input.order`` decides once all is read.

    Raises:
        InputError: the input can't be read, or is standard input.
        MissingExtraError: joining it needs an extra that isn't installed.
    """
    if job.input is None or "-" in job.input.path:
        raise InputError("the input was standard input, which can't be read again")
    left = set(wanted)
    cutter = PartCutter(part_documents(job.output))
    for position, item in enumerate(read(job.input, as_it_comes=not placed)):
        spot = cutter.cut(item)
        if isinstance(item, Query) and item.id in left:
            left.discard(item.id)
            yield Found(item, position, spot)
            if not left:
                return


def input_facts(job: Job) -> list[list[object]] | None:
    """What tells whether the input is still what it was; None where that can't be told."""
    try:
        return None if job.input is None else facts(job.input)
    except (BatchrankError, OSError):
        return None


def input_changed(job: Job, folder: OutputFolder) -> bool:
    """Whether the input is no longer what the complete output was made of, as far as that can be told."""
    now = input_facts(job)
    told = (folder.complete() or {}).get("hashes", {}).get("input")
    return now is not None and told is not None and told != input_fingerprint(now)


def as_text(content: Content) -> str:
    """What is shown of a query or document."""
    if isinstance(content, str):
        return content
    value = content.value if isinstance(content.value, str) else f"{len(content.value):,} bytes"
    return f"[{content.kind}: {value}]"
