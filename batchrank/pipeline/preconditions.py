"""Refuses a run that would overwrite its own input, before anything is touched."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from batchrank.errors import JobError
from batchrank.io import storage
from batchrank.job.config import Job
from batchrank.pipeline.output import folder_of

_KEYS = ("path", "corpus", "queries")
_WRITTEN = ("ranking-00000", "queries-00000", "failed")
_SUFFIXES = (".jsonl", ".parquet", ".trec", ".tsv", ".json")
_OURS = re.compile(
    r"(ranking|queries)-\d{5,}\..*|failed(\.partial)?\.jsonl|summary\.json|status\.json|metrics\.prom|"
    r"gate-failed\.json|baseline\.sqlite|ledger\.sqlite.*"
)
_MAGIC = re.compile(r"[*?\[]")


def refuse_own_input(job: Job, files: Sequence[Sequence[Any]] | None) -> None:
    """Refuse an output folder that the job reads from.

    1. The folder itself is an input, or a pattern would match what is written: the next run would rank the output.
    2. An input file has a name that the run writes to, as when another job's output is reranked: it would be replaced.

    Args:
        job: the job.
        files: the input files as ``read.facts`` gives them.

    Raises:
        JobError: it does; the message says which key to change.
    """
    folder = folder_of(job)
    if folder is None or job.input is None:
        return
    advice = "set output.path to another folder"
    for key in _KEYS:
        for path in getattr(job.input, key) or ():
            if not storage.is_remote(path) and path != "-" and _reads(Path(path).expanduser(), folder):
                raise JobError(
                    f"output.path: {folder} is where input.{key} ({path}) reads from, so the next run would take the "
                    f"rankings, dead letters and all for input; {advice}"
                )
    for name, *_ in files or ():
        file = Path(name)
        if not storage.is_remote(name) and _OURS.fullmatch(file.name) and _same(file.parent, folder):
            raise JobError(
                f"output.path: the run would overwrite {file}, which is a part of its own input; {advice}, or move the "
                "input elsewhere"
            )


def _reads(path: Path, folder: Path) -> bool:
    """Whether a path of the input names the output folder, or what will be written to it."""
    if _same(path, folder):
        return not folder.is_file()  # which is no output folder, and told as such
    if not _MAGIC.search(path.name) or _MAGIC.search(str(path.parent)) or not _same(path.parent, folder):
        return False
    return any(fnmatchcase(stem + suffix, path.name) for stem in _WRITTEN for suffix in _SUFFIXES)


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
