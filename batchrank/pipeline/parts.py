"""Cuts the input into parts, by the input alone, so that each of them can be ranked and written apart from the others.

A part ends with the item that brings it to ``output.part_documents`` documents. What fails later, what is written of a
ranking and how often a run was interrupted change nothing, so a part's number, and with it the names of its files, is
known as soon as it is read.
"""

import sys
from typing import NamedTuple

from batchrank.data import Query
from batchrank.errors import JobError
from batchrank.job.config import Job
from batchrank.job.sections import PART_DOCUMENTS, Output
from batchrank.outcomes import Failure
from batchrank.write.formats import OUTPUTS


class Spot(NamedTuple):
    """Where an item of the input stands.

    Attributes:
        part: its part's number, from 0.
        place: its place in its part, from 0.
        last: whether its part is full, and ends with it; the last part ends where the input does.
    """

    part: int = 0
    place: int = 0
    last: bool = False


class PartCutter:
    """Tells where each item of an input stands, in the order in which they come.

    Args:
        documents: documents of a part, at least.
        part: the number of the part that begins with the first item.
    """

    def __init__(self, documents: int, *, part: int = 0) -> None:
        self._full = documents
        self._documents = 0
        self._place = 0
        self.part = part

    def cut(self, item: Query | Failure) -> Spot:
        """Where the next item stands; a record that can't be read counts as one document."""
        self._documents += len(item.documents) if isinstance(item, Query) else 1
        spot = Spot(self.part, self._place, self._documents >= self._full)
        if spot.last:
            self.part, self._place, self._documents = self.part + 1, 0, 0
        else:
            self._place += 1
        return spot


def part_documents(output: Output | None) -> int:
    """How many documents make a part; a format that is one file has one part."""
    if output is None:
        return PART_DOCUMENTS
    return sys.maxsize if OUTPUTS[output.format].single else output.part_documents


def refuse_undivided(job: Job) -> None:
    """Refuse several processes where the output can't be written in parts.

    Raises:
        JobError: it goes to standard output, or is one file.
    """
    output = job.output
    if output is None or not job.engine.several:
        return
    if output.path == "-":
        why = "standard output takes one ranking after the other; set output.path to a folder"
    elif OUTPUTS[output.format].single:
        why = f"{output.format} is one file; set output.format to parquet"
    else:
        return
    raise JobError(
        f"engine: several processes write one part of the output each, and {why}, or remove the key"
    )
