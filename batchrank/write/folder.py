"""Knows every file of an output folder: its name, how it is read back, and how those beside the rankings are written.

Commands that look at a run's output (status, report, eval, bench, the gate, the next run) ask here, so that a name or a
shape is changed in one place.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from batchrank.io.address import Address, Where, located
from batchrank.io.storage import filesystem
from batchrank.ledger import LEDGER
from batchrank.write.destination import opened

SUMMARY = "summary.json"
"""Written last: what came of the run."""
LETTERS = "failed.jsonl"
"""The dead letters of a complete run."""
PARTIAL_LETTERS = "failed.partial.jsonl"
"""The dead letters so far."""
STATUS = "status.json"
METRICS = "metrics.prom"
MARKER = "gate-failed.json"
"""Marks a complete output that did not pass its gate."""
ACCEPTED = "gate-accepted.json"
"""What somebody accepted although it did not pass the gate; later runs are held to it."""
BASELINE = "baseline.sqlite"
"""The first documents of the last accepted run, for the gate."""
REPORT = "report.html"
LOCK = ".batchrank.lock"
"""Whose folder it is; locked while a run goes on."""
NEXT = ".next"
"""The folder of an output that is to replace the complete one beside it."""
DECIDED = "switch.json"
"""Which files of ``NEXT`` replace which; it is there while that is under way."""
RANKING, QUERIES = "ranking", "queries"
"""What the names of an output's parts begin with."""
KINDS = {
    "parquet": ((RANKING, ".parquet"), (QUERIES, ".parquet")),
    "jsonl": ((RANKING, ".jsonl"),),
    "trec": ((RANKING, ".trec"), (QUERIES, ".jsonl")),
    "rank_llm": ((RANKING, ".jsonl"), (QUERIES, ".jsonl")),
    "mteb": ((RANKING, ".json"), (QUERIES, ".jsonl")),
    "msmarco": ((RANKING, ".tsv"), (QUERIES, ".jsonl")),
}
"""The files of a part in each format, by what their names begin and end with."""
_SUFFIXES = sorted({suffix for files in KINDS.values() for _, suffix in files})
_PART = re.compile(rf"(?:{RANKING}|{QUERIES})-(\d{{5,}})(?:{'|'.join(map(re.escape, _SUFFIXES))})")
_OTHERS = (SUMMARY, LETTERS, PARTIAL_LETTERS, STATUS, METRICS, MARKER, ACCEPTED, BASELINE)


def part_number(name: str) -> int | None:
    """The number of the part that has a file of such a name, or a temporary one; None when no part has."""
    match = _PART.fullmatch(_final(name))
    return int(match[1]) if match else None


def is_part(name: str) -> bool:
    """Whether the published parts of an output have such a name."""
    return _PART.fullmatch(name) is not None


def is_output(name: str) -> bool:
    """Whether a complete output has a file of that name, which replaces an earlier output's."""
    return name in (SUMMARY, LETTERS, MARKER) or is_part(name)


def is_left(name: str) -> bool:
    """Whether an output, complete or not, leaves a file of that name: one of its own, or a temporary one."""
    final = _final(name)
    return is_output(final) or name == PARTIAL_LETTERS or (final == DECIDED and name != DECIDED)


def _final(name: str) -> str:
    """What a file will be called that has a temporary name; any other one's name."""
    return name[1:].removesuffix(".tmp") if name.startswith(".") and name.endswith(".tmp") else name


def is_written(name: str) -> bool:
    """Whether a run writes a file of that name, and so would replace an input that has it."""
    return name in _OTHERS or is_part(name) or name.startswith(LEDGER)


WRITTEN = (*_OTHERS, *(f"{stem}-00000{end}" for files in KINDS.values() for stem, end in files))
"""Names that a run may write, with the first part's."""


class OutputFolder:
    """What a job's output folder holds. It only reads, and there need not be anything.

    Args:
        path: the folder, or its address.
    """

    def __init__(self, path: str | Where) -> None:
        self.path = located(path)

    @property
    def next(self) -> "OutputFolder":
        """Where an output is that is to replace the complete one here."""
        return OutputFolder(self.path / NEXT)

    def newest(self, name: str) -> Where:
        """Where a file of the last complete output is, also while a switch to it is cut short."""
        waiting = self.path / NEXT / name
        return waiting if (self.path / NEXT / DECIDED).exists() and waiting.exists() else self.path / name

    def summary(self, *, links: bool = True) -> dict[str, Any]:
        """What came of the run.

        Args:
            links: whether the file may be a symbolic link; a run writes none.

        Raises:
            OSError: there is none, or it can't be read.
            ValueError: it is no JSON object.
        """
        return _object(self.path / SUMMARY, links=links)

    def complete(self) -> dict[str, Any] | None:
        """The summary of a run that is complete; None when there is none."""
        try:
            summary = self.summary()
        except (OSError, ValueError):
            return None
        return summary if summary.get("complete") is True else None

    def accepted(self) -> bool:
        """Whether there is a complete run that did not fail its gate, or whose marker was removed."""
        return self.complete() is not None and not (self.path / MARKER).exists()

    def spared(self) -> bool:
        """Whether what is here must not be taken down yet: rankings that are complete, or nobody can tell.

        A complete output without a ranking is nothing to keep.
        """
        try:
            summary = self.summary()
            return summary.get("complete") is True and summary.get("totals", {}).get("queries") != 0
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            return True

    def status(self, *, links: bool = True) -> dict[str, Any]:
        """How the run stands; raises what ``summary`` does."""
        return _object(self.path / STATUS, links=links)

    def letters(self) -> Where:
        """The file of dead letters, of a complete run where there is one."""
        final, partial = self.path / LETTERS, self.path / PARTIAL_LETTERS
        return partial if partial.exists() and not final.exists() else final

    def parts(self, stem: str = RANKING) -> list[Where]:
        """The files of rankings, or of per-query records, in order."""
        found = (path for path in self._files() if is_part(path.name) and path.name.startswith(stem))
        return sorted(found, key=str)

    def queries(self) -> Iterator[dict[str, Any]]:
        """The per-query records: in files of their own, or beside each ranking where the output is JSON lines."""
        for path in self.parts(QUERIES):
            if path.suffix == ".parquet":
                from pyarrow.parquet import ParquetFile

                system, inner = filesystem(os.fspath(path))
                with ParquetFile(inner, filesystem=system) as file:
                    for batch in file.iter_batches():
                        yield from batch.to_pylist()
            else:
                yield from records(path)
        if not self.parts(QUERIES):
            for path in self.parts(RANKING):
                if path.suffix == ".jsonl":
                    yield from (record["merge"] for record in records(path) if "merge" in record)

    def unfinished(self) -> list[str]:
        """A few names of files that only a run that is not complete leaves."""
        names = sorted(path.name for path in self._files() if not path.is_symlink())
        return [name for name in names if name == PARTIAL_LETTERS or is_part(name)][:3]

    def _files(self) -> Iterator[Where]:
        yield from self.path.iterdir() if self.path.is_dir() else ()

    def owner(self) -> dict[str, Any] | None:
        """What the last job that had the folder noted, without taking the lock; None when there is nothing."""
        try:
            return _object(self.path / LOCK, links=False)
        except (OSError, ValueError):
            return None


def records(path: Where) -> Iterator[dict[str, Any]]:
    """The lines of a file of dead letters, or of a part that is JSON lines.

    Raises:
        OSError: it can't be read.
        ValueError: a line is no JSON.
    """
    with path.open("rb") as lines:
        yield from map(orjson.loads, filter(None, map(bytes.strip, lines)))


def _object(path: Where, *, links: bool = True) -> dict[str, Any]:
    found = orjson.loads(path.read_bytes() if links or isinstance(path, Address) else _no_link(path))
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _no_link(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
        return file.read()


_OPTIONS = (
    orjson.OPT_INDENT_2
    | orjson.OPT_SORT_KEYS
    | orjson.OPT_NON_STR_KEYS
    | orjson.OPT_SERIALIZE_NUMPY
    | orjson.OPT_APPEND_NEWLINE
)


def write_text(path: str | Where, text: str) -> None:
    """Write a file in UTF-8, durably and as a whole, in place of an older one.

    Raises:
        OutputError: it can't be written.
    """
    # An id that came from Python may hold half a surrogate pair, which no file can.
    _write(located(path), text.encode("utf-8", "replace"))


def write_summary(path: str | Where, data: Mapping[str, Any]) -> None:
    """Write a JSON object, indented and with sorted keys, durably and as a whole; NaN becomes null.

    Raises:
        OutputError: the file can't be written.
    """
    _write(located(path), summary_bytes(data))


def summary_bytes(data: Mapping[str, Any]) -> bytes:
    """A JSON object as ``write_summary`` writes it."""
    return orjson.dumps(dict(data), option=_OPTIONS)


def _write(path: Where, data: bytes) -> None:
    folder = opened(path.parent)
    try:
        folder.put(path.name, data)
    finally:
        folder.close()
