"""Writes rankings to parts in input order, or as JSON lines to a stream."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from batchrank.errors import OutputError
from batchrank.io.address import Where
from batchrank.io.atomic import Kept, PendingFile
from batchrank.job.sections import Output
from batchrank.outcomes import Failure, Ranking
from batchrank.write.destination import opened
from batchrank.write.folder import LETTERS, PARTIAL_LETTERS, part_number
from batchrank.write.formats import OUTPUTS, PartWriter
from batchrank.write.rows import line, top


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file in place: its size in bytes, its hash, and the tag that a store gave it."""

    name: str
    bytes: int
    sha256: str
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A part whose files are all in place and durable.

    Attributes:
        index: from 0.
        queries: rankings in this part.
        rows: documents in this part.
        files: its files; none where no query of it could be ranked.
    """

    index: int
    queries: int
    rows: int
    files: tuple[WrittenFile, ...]


class _OpenPart:
    def __init__(self, files: tuple[PendingFile, ...], writer: PartWriter) -> None:
        self.files, self.writer = files, writer
        self.queries = 0
        self.rows = 0


class Writer:
    """Writes rankings to an output folder, in the order given.

    Where a part ends it is told, as the input alone decides that. A part's files have temporary names until all of
    them are complete; a part without any ranking has none, and its number is used up all the same. What else is in the
    folder is left alone. One thread at a time.

    Args:
        output: folder, format and how many documents of each query to write.
        first_part: the index of the first part written; those before it are in place already.
        dataset: the subset and the split that are ranked, for formats that name them.
        staging: the folder here in which files are written before they are sent to an address.

    Raises:
        OutputError: here and from every method: the folder can't be used, or the system refuses a write.
    """

    def __init__(
        self,
        output: Output,
        *,
        first_part: int = 0,
        dataset: tuple[str | None, str | None] = (None, None),
        staging: Path | None = None,
    ) -> None:
        self._format = OUTPUTS[output.format]
        self._top_n = output.top_n
        self._next = first_part
        named: dict[str, Any] = {}
        if self._format.dataset:
            named |= zip(("subset", "split"), dataset, strict=True)
        if self._format.optional_texts:
            named["texts"] = output.texts
        self._make = partial(self._format.writer, **named)
        self._open: _OpenPart | None = None
        self._folder = opened(output.path, staging)

    def write(self, ranking: Ranking) -> None:
        """Write one ranking; it is in place once its part is."""
        if self._top_n is not None:
            ranking = top(ranking, self._top_n)
        part = self._open = self._open or self._start()
        part.writer.add(ranking)
        part.queries += 1
        part.rows += len(ranking.scores)

    def end(self) -> Part:
        """End the part at hand; it is in place now."""
        part = Part(self._next, 0, 0, ()) if self._open is None else self._publish(self._open)
        self._open = None
        self._next += 1
        return part

    def close(self) -> Part | None:
        """End the last part, if any is open, and return it."""
        part = self.end() if self._open else None
        self._folder.close()
        return part

    def abort(self) -> None:
        """Give up the part that is not complete; published parts stay. After ``close`` it does nothing."""
        part, self._open = self._open, None
        if part:
            for file in part.files:
                file.discard()
        self._folder.close()

    def sweep(self) -> tuple[str, ...]:
        """Remove what a former run left under names that we use: later parts, other formats, temporary files.

        Call it while no part is open: before the first ranking, or once the run is complete. Returns the removed names.
        """
        assert self._open is None
        removed = []
        for name in sorted(self._folder.names()):
            number = part_number(name)
            if number is not None and not (number < self._next and name in self._names(number)):
                self._folder.remove(name)
                removed.append(name)
        self._folder.sync()
        return tuple(removed)

    def withdraw(self) -> None:
        """Remove all parts that this run has published: they may be wrong, though none could know it then."""
        part, self._open = self._open, None
        for file in part.files if part else ():
            file.discard()
        self._next = 0
        self.sweep()

    def _names(self, index: int) -> tuple[str, ...]:
        return tuple(f"{stem}-{index:05d}{suffix}" for stem, suffix in self._format.kinds)

    def _start(self) -> _OpenPart:
        files: list[PendingFile] = []
        try:
            files.extend(self._folder.create(name) for name in self._names(self._next))
        except OutputError:
            for file in files:
                file.discard()
            raise
        return _OpenPart(tuple(files), self._make(cast(tuple[BinaryIO, ...], tuple(files))))

    def _publish(self, open_part: _OpenPart) -> Part:
        open_part.writer.finish()
        for file in open_part.files:
            file.publish()
        self._folder.sync()
        written = tuple(WrittenFile(file.name, file.bytes, file.sha256, file.tag) for file in open_part.files)
        return Part(self._next, open_part.queries, open_part.rows, written)


class StreamWriter:
    """Writes rankings as JSON lines to a stream, each one passed on at once.

    Raises:
        OutputError: from ``write``, when nobody reads the stream any more or it can't be written.
    """

    def __init__(self, output: Output, stream: BinaryIO) -> None:
        self._top_n = output.top_n
        self._texts = output.texts
        self._stream = stream

    def write(self, ranking: Ranking) -> None:
        """Write one line and flush it; there are no parts."""
        data = line(ranking if self._top_n is None else top(ranking, self._top_n), texts=self._texts)
        try:
            self._stream.write(data)
            self._stream.flush()
        except OSError as error:
            reason = (
                "its reader went away" if isinstance(error, BrokenPipeError) else error.strerror or str(error)
            )
            raise OutputError(
                f"standard output can't be written at query {ranking.query_id!r}: {reason}; set output.path to a folder"
            ) from error

    def end(self) -> None:
        """There are no parts."""

    def close(self) -> None:
        """Nothing is held back."""

    def withdraw(self) -> None:
        """What was written to a stream can't be taken back; the exit code tells."""

    def abort(self) -> None:
        """Nothing is held back."""


class FailureLog:
    """The dead letters, one JSON line each, in the order in which they come.

    While the run goes on they are in ``failed.partial.jsonl``, each passed on to the system at once, so that a killed
    run shows what failed so far; ``close`` makes them durable and gives the file its name, ``failed.jsonl``. So a file
    of that name is always a complete one, empty when nothing failed.

    Args:
        folder: where they go.
        kept: the beginning of an earlier process's partial file, which stays.
        staging: where the partial file is, if they go to an address.

    Raises:
        OutputError: here and from every method: the file can't be written.
    """

    def __init__(self, folder: str | Where, kept: Kept | None = None, *, staging: Path | None = None) -> None:
        self._folder = opened(folder, staging)
        names = LETTERS, PARTIAL_LETTERS
        self._file = self._folder.reopen(*names, kept) if kept else self._folder.create(*names)
        self.count = 0

    def write(self, failure: Failure) -> None:
        """Append one failure."""
        place = failure.place
        data = {
            "query_id": failure.query_id,
            "cause": failure.cause,
            "message": failure.message,
            "attempts": failure.attempts,
            "file": place.file,
            place.unit: place.number,
        }
        # Not orjson: an id that came from Python may hold half a surrogate pair, which only escapes can carry.
        self._file.write(json.dumps(data).encode() + b"\n")
        self._file.push()
        self.count += 1

    def mark(self) -> Kept:
        """What stands in the file so far; durable from now on."""
        return self._file.mark()

    def close(self) -> None:
        """Put the file in place."""
        self._file.publish()
        self._folder.sync()
        self._folder.close()

    def abort(self) -> None:
        """Leave the partial file as it is. After ``close`` it does nothing."""
        self._file.leave()
        self._folder.close()
