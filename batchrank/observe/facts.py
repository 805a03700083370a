"""Reads what a job's output folder tells: how the job stands while it runs, and for the report all about its run.

``batchrank status`` needs nothing of a run, so what judging and planning take is imported where the report asks for it.
"""

import os
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from batchrank.errors import InputError, JobError, MissingExtraError
from batchrank.io.address import Where
from batchrank.write.folder import PARTIAL_LETTERS, STATUS, SUMMARY, OutputFolder, records

if TYPE_CHECKING:
    from batchrank.observe.moved import Moved
    from batchrank.planning.plan import Plan
    from batchrank.quality.judgements import Evaluation


_SILENT = 60.0
"""Seconds without a sign after which a process elsewhere is taken to be gone: it writes every second."""
State = Literal["running", "complete", "stopped", "failed", "killed"]


@dataclass(frozen=True, slots=True)
class Status:
    """How a job stands.

    Attributes:
        state: ``running``; ``complete``, perhaps with failed queries; ``stopped``, to be continued; ``failed``;
            ``killed``: its process is gone without a word.
        name: the job's name.
        pid: the process, on ``host``.
        started: when this process began, and ``updated`` when it last wrote this: ISO 8601, UTC.
        exit_code: None while it runs.
        reason: why it ended early.
        progress: the fields of ``Progress``; None before the first request could be sent.
        max_cost: the cap in the currency of the price, None without one.
        max_tokens: the cap in tokens.
        per: what the caps hold for: ``run``, ``day`` or ``total``.
    """

    state: State
    name: str
    pid: int
    host: str
    started: str
    updated: str
    exit_code: int | None = None
    reason: str | None = None
    progress: dict[str, Any] | None = None
    max_cost: float | None = None
    max_tokens: int | None = None
    per: str = "run"
    notices: list[str] = field(default_factory=list)

    @property
    def age(self) -> float:
        """Seconds since the last update."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.updated)).total_seconds()

    def data(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def read_status(folder: str | Path) -> Status:
    """Read how the job stands whose output goes to a folder; it may be running.

    Raises:
        InputError: there is no such file there, or it can't be read.
    """
    path = Path(folder) / STATUS
    try:
        data = OutputFolder(folder).status()
        status = Status(**{f.name: data[f.name] for f in fields(Status) if f.name in data})
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; name the output folder of a job that was started") from None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} can't be read: {error}") from None
    if status.state == "running" and _gone(status):
        return Status(**(asdict(status) | {"state": "killed"}))
    return status


def _gone(status: Status) -> bool:
    """Whether the process is no more: asked on its own machine; elsewhere, taken from its silence."""
    if status.host != socket.gethostname():
        return status.age > _SILENT
    try:
        os.kill(status.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


_MOST_SHOWN = 50
"""Dead letters that the page shows; their file has all of them."""
_COLUMNS = ("documents", "chunks", "requests", "tokens", "certified", "drift", "drift_max")


@dataclass(slots=True)
class Queries:
    """What the per-query records say, a list each, in input order.

    Attributes:
        documents: documents sent, repeats included.
        chunks: requests of the first pass.
        requests: answered requests.
        tokens: tokens billed.
        certified: the depth that is proven.
        drift: the median difference of a document's scores between requests; None where none was in two.
        drift_max: the largest one.
        methods: queries by method.
        verdicts: queries by verdict.
    """

    documents: list[int] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    certified: list[int] = field(default_factory=list)
    drift: list[float | None] = field(default_factory=list)
    drift_max: list[float | None] = field(default_factory=list)
    methods: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)

    def add(self, record: Mapping[str, Any]) -> None:
        """Take one query's record."""
        for name in _COLUMNS:
            getattr(self, name).append(record.get(name))
        self.methods[str(record.get("method"))] += 1
        self.verdicts[str(record.get("verdict"))] += 1


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a report is made of.

    Attributes:
        folder: where it was read.
        summary: ``summary.json``.
        queries: the per-query records.
        dead_letters: the first dead letters.
        failed: how many there are, by cause.
        evaluation: quality before and after, where judgements were given.
        plan: what the job was expected to take, where its input can still be read.
        moved: the queries whose first documents changed most.
        notes: why something is missing.
    """

    folder: Where
    summary: dict[str, Any]
    queries: Queries
    dead_letters: Sequence[Mapping[str, Any]]
    failed: Mapping[str, int]
    evaluation: "Evaluation | None"
    plan: "Plan | None"
    moved: "Sequence[Moved]"
    notes: Sequence[str]


def gather(folder: str | Where, *, qrels: Sequence[str] = (), with_plan: bool = True) -> Facts:
    """Read what a run left.

    Args:
        folder: a job's output folder, or its address.
        qrels: judgements, to tell the quality before and after.
        with_plan: read the job's input once more, to tell what was to be expected, and for texts.

    Raises:
        InputError: there is no summary, or a file of the run can't be read.
    """
    found = OutputFolder(folder)
    summary = _summary(found)
    dead_letters, failed = _dead_letters(found.letters())
    notes: list[str] = []
    queries = Queries()
    for record in found.queries():
        queries.add(record)
    evaluation = _evaluation(found.path, qrels, notes) if qrels else None
    known = _plan(summary, notes) if with_plan else None
    moved = _moved(found.path, notes, texts=with_plan)
    if (found.next.path / PARTIAL_LETTERS).exists():
        notes.append(
            f"a later run is not complete; what it has is in {found.next.path}, which can be reported on too"
        )
    return Facts(found.path, summary, queries, dead_letters, failed, evaluation, known, moved, notes)


def _summary(folder: OutputFolder) -> dict[str, Any]:
    path = folder.path / SUMMARY
    try:
        data = folder.summary()
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; name the output folder of a job that has ended (batchrank status tells)"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read: {error}") from None
    if "process" not in data:
        raise InputError(f"{path} is no summary of a run; name a job's output folder")
    return data


def _dead_letters(path: Where) -> tuple[list[dict[str, Any]], Counter[str]]:
    counts: Counter[str] = Counter()
    shown: list[dict[str, Any]] = []
    for letter in records(path) if path.exists() else ():
        counts[letter["cause"]] += 1
        if len(shown) < _MOST_SHOWN:
            shown.append(letter)
    return shown, counts


def _evaluation(folder: Where, qrels: Sequence[str], notes: list[str]) -> "Evaluation | None":
    from batchrank.quality.judgements import evaluate

    try:
        return evaluate(os.fspath(folder), qrels)
    except MissingExtraError as error:
        notes.append(str(error))
        return None


def _moved(folder: Where, notes: list[str], *, texts: bool) -> "Sequence[Moved]":
    from batchrank.look.source import origin
    from batchrank.observe.moved import most_moved

    if not OutputFolder(folder).parts():
        return ()
    return most_moved(folder, origin(folder) if texts else None, notes)


def _plan(summary: Mapping[str, Any], notes: list[str]) -> "Plan | None":
    from batchrank.job.config import Job
    from batchrank.planning.plan import plan

    try:
        job = Job.model_validate(_without_hidden(summary["job"]))
        return plan(job, net=False)
    except (InputError, JobError, ValueError) as error:
        first = next(islice(str(error).splitlines(), 1), "")
        notes.append(f"what the job was expected to take is not shown, as its input can't be read: {first}")
        return None


def _without_hidden(job: Mapping[str, Any]) -> dict[str, Any]:
    """The job without its endpoint, of which a summary may hide parts; a plan needs none."""
    return {key: value for key, value in job.items() if key not in ("endpoint", "ledger")} | {
        "endpoint": {key: job["endpoint"][key] for key in ("region", "wire")} | {"url": "emulator"}
    }
