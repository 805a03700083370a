"""Estimates the room on disk that a job's output and ledger take, so that a full disk is told before the night."""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from batchrank.data import Content, Query
from batchrank.job.config import Job
from batchrank.pipeline.parts import part_documents
from batchrank.pipeline.prepare import Prepared
from batchrank.planning.survey import Survey
from batchrank.write.formats import holds_texts
from batchrank.write.switch import nearest

_OUTPUT_BYTES = {"parquet": 15, "jsonl": 150, "trec": 36, "rank_llm": 55, "mteb": 18, "msmarco": 10}
"""Bytes that a ranked document takes besides its id and text, measured over lists of 100 and of 3,000 documents."""
_TEXT_BYTES = {"parquet": 0.4, "jsonl": 1.0, "rank_llm": 1.0}
"""Bytes that a byte of text takes: JSON lines hold it as it is, Parquet compressed. Docstrings of Python packages, of
450 bytes each, come to 0.38."""
_TEXT_KEY_BYTES = {"jsonl": 10}
"""Bytes that a text takes besides, where each has a key before it."""
_SCORE_BYTES = 18
"""Bytes that a document of a request takes in the ledger, measured likewise, and those of the request itself."""
_REQUEST_BYTES = 600
_SENT = {"hub": 1.25, "full": 2.5}
"""Documents that a merge method sends for each one in a long list, at most as a rule."""
_LEAST = 4 * 2**20
"""Bytes that the smallest job needs: ledger, its log, locks, status and summary."""
_STAGED_BYTES = 15
"""Bytes that a document takes in a temporary file besides its id and text, where ``input.order`` puts queries in order,
measured likewise."""
_SURE = 0.7
"""The part of an estimate that is needed for certain, as compression and ids differ."""
_AMPLE = 1.5
"""How many times the estimate leaves no doubt."""


@dataclass(slots=True, kw_only=True)
class Sized(Survey):
    """A survey that also counts what the output will hold.

    Attributes:
        written: documents that the output will hold.
        id_bytes: characters of their ids, roughly.
        text_bytes: bytes of the texts that it will hold if it holds any.
        read_bytes: bytes of the ids and texts of all documents, whether the output will hold them or not.
    """

    top_n: int | None = None
    written: float = 0
    id_bytes: float = 0
    text_bytes: float = 0
    read_bytes: float = 0

    def add(self, query: Query, ready: Prepared) -> None:
        """Count one query, and what the output will hold of it."""
        Survey.add(self, query, ready)
        kept = min(len(query), self.top_n or len(query))
        part = kept / max(1, len(query))
        self.written += kept
        ids, texts = sum(map(len, query.doc_ids)), sum(map(_utf8, query.documents))
        self.id_bytes += part * ids
        self.text_bytes += part * texts + _utf8(query.text)
        self.read_bytes += ids + texts


def _utf8(content: Content) -> int:
    """Bytes of a text; none of an image or a video, which no output holds."""
    if not isinstance(content, str):
        return 0
    return len(content) if content.isascii() else len(content.encode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes that a job's output and ledger will take, and its temporary files while it runs."""

    output: float
    ledger: float
    temporary: float = 0


def needs(job: Job, found: Sized) -> Needs:
    """What a job will take on disk, by what was read of its input.

    Args:
        job: the job.
        found: what was read, perhaps only the beginning.
    """
    limit = None if job.input is None else job.input.limit
    whole = 1 / (found.share or 1)
    times = 1.0 if found.whole else whole
    if limit is not None and found.queries:
        times = min(times, limit / found.queries)
    form = "jsonl" if job.output is None else job.output.format
    output = found.written * _OUTPUT_BYTES.get(form, 150) + found.id_bytes
    if holds_texts(job.output):
        output += found.text_bytes * _TEXT_BYTES[form] + found.written * _TEXT_KEY_BYTES.get(form, 0)
    more = _SENT.get(job.merge.method, 1.0) if found.chunks > found.queries else 1.0
    ledger = more * (found.documents * _SCORE_BYTES + found.chunks * _REQUEST_BYTES)
    # All queries are put in order, however few of them are wanted then.
    ordered = job.input is not None and job.input.order is not None
    staged = whole * (found.read_bytes + found.documents * _STAGED_BYTES) if ordered else 0
    return Needs(times * output, times * ledger, staged)


def part_bytes(job: Job, found: Sized) -> float:
    """What a part of the input takes on the disk of a process that ranks it elsewhere: its texts, and its rankings."""
    documents = part_documents(job.output)
    documents = min(documents, found.documents) if found.whole else documents
    texts = (found.text_bytes + found.id_bytes) / max(1, found.written)
    form = "jsonl" if job.output is None else job.output.format
    return documents * (texts + _OUTPUT_BYTES.get(form, 150))


def free_bytes(path: Path) -> int:
    """What is free on the disk of a folder that may be still to be made."""
    return shutil.disk_usage(nearest(path)).free


def shortage(job: Job, needed: Needs, free: Callable[[Path], int] = free_bytes) -> tuple[bool, str] | None:
    """Whether the room is too small for certain, or perhaps, and what to do; None where there is enough.

    Args:
        job: the job.
        needed: what it will take.
        free: tells what is free on a folder's disk.
    """
    wanted: list[tuple[Path, float, bool]] = []
    if (folder := job.output_folder) is not None:
        wanted.append((folder, needed.output, True))
    if (path := job.ledger_path) is not None:
        # One that is there may know most of tonight's answers already.
        wanted.append((path.parent, needed.ledger, not path.exists()))
    if needed.temporary:
        wanted.append((Path(tempfile.gettempdir()), needed.temporary, True))
    disks: dict[int, list[tuple[Path, float, bool]]] = {}
    for one in wanted:
        disks.setdefault(os.stat(nearest(one[0])).st_dev, []).append(one)  # noqa: PTH116 the path may be one of several
    for parts in disks.values():
        place, left = parts[0][0], free(parts[0][0])
        all_of_it = sum(size for _, size, _ in parts)
        certain = max(_LEAST, _SURE * sum(size for _, size, sure in parts if sure))
        if left < max(certain, _LEAST) or left < _AMPLE * all_of_it:
            told = f"{_size(left)} are free on the disk of {place}, and output, ledger and temporary files there take "
            told += f"about {_size(max(all_of_it, _LEAST))}"
            return left < certain, f"{told}; make room, or set output.path, ledger, output.top_n or TMPDIR"
    return None


def _size(count: float) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count / 2**10:,.0f} KiB"
