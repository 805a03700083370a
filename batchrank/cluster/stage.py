"""Reads the input ahead of those who rank it, as the only process that does, and lays it out for them in parts.

Any input can be read by one reader only: compressed, joined with a corpus, from standard input. It reads several times
as fast as a process ranks. What it lays out is the items themselves, exactly as one process would have read them.
"""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import anyio.to_thread

from batchrank.cluster.channel import Channel
from batchrank.data import Query
from batchrank.job.sections import Input
from batchrank.outcomes import Failure
from batchrank.pipeline.parts import PartCutter, Spot
from batchrank.read.base import Gauge
from batchrank.read.reader import read

_BATCH_DOCUMENTS = 1_000
"""Documents that are written, and later read, at a time."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What is to be read.

    Attributes:
        input: the input.
        documents: documents of a part.
        part: the number of the first part that is to be laid out.
        position: items that come before it.
        folder: where to.
        level: from which level on log records are told.
    """

    input: Input
    documents: int
    part: int
    position: int
    folder: Path
    level: int


@dataclass(frozen=True, slots=True)
class StagedPart:
    """A part that has been laid out.

    Attributes:
        number: its number.
        position: the position of its first item.
        items: how many items it has.
        path: where they are.
    """

    number: int
    position: int
    items: int
    path: Path

    def read(self) -> Iterator[Query | Failure]:
        """Its items, in order."""
        left = self.items
        with self.path.open("rb") as file:
            while left:
                batch = pickle.load(file)  # noqa: S301 written by this run, to a folder of its own
                left -= len(batch)
                yield from batch


class StagedCutter(PartCutter):
    """Tells where the items of a staged part stand; the last one ends it, wherever the input ends."""

    def __init__(self, part: StagedPart) -> None:
        super().__init__(1, part=part.number)
        self._left = part.items

    def cut(self, item: Query | Failure) -> Spot:
        """Where the next item stands."""
        self._left -= 1
        spot = Spot(self.part, self._place, last=not self._left)
        self._place += 1
        self.part += spot.last
        return spot


async def stage(channel: Channel, layout: Layout) -> None:
    """Lay out the whole input, waiting while enough lies ahead.

    Raises:
        InputError: as ``read`` does.
    """
    gauge = Gauge()
    parts = _parts(layout, gauge)
    while (part := await anyio.to_thread.run_sync(next, parts, None)) is not None:
        await channel.call("staged", part, gauge.share)
    await channel.call("staged", None, 1.0)


def _parts(layout: Layout, gauge: Gauge) -> Iterator[StagedPart]:
    items = read(layout.input, gauge)
    position = sum(1 for _ in islice(items, layout.position))
    cutter = PartCutter(layout.documents, part=layout.part)
    while True:
        number = cutter.part
        path = layout.folder / f"part-{number:05d}"
        with path.open("wb") as file:
            count = _lay_out(items, cutter, file)
        if not count:
            path.unlink()
            return
        yield StagedPart(number, position, count, path)
        position += count
        if cutter.part == number:
            return  # the input has ended in the midst of it


def _lay_out(items: Iterator[Query | Failure], cutter: PartCutter, file: IO[bytes]) -> int:
    """Write one part; how many items it has."""
    count = documents = 0
    batch: list[Query | Failure] = []
    for item in items:
        spot = cutter.cut(item)
        batch.append(item)
        count += 1
        documents += len(item.documents) if isinstance(item, Query) else 1
        if spot.last or documents >= _BATCH_DOCUMENTS:
            pickle.dump(batch, file, pickle.HIGHEST_PROTOCOL)
            batch, documents = [], 0
        if spot.last:
            return count
    if batch:
        pickle.dump(batch, file, pickle.HIGHEST_PROTOCOL)
    return count
