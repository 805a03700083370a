"""What an earlier process of the same run left: which parts are published, and how the run stood after each."""

import dataclasses
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from batchrank.errors import Place
from batchrank.job import Job
from batchrank.ledger import Ledger, Spent
from batchrank.pipeline.identity import PROGRAM, identity
from batchrank.records import Failure, Query

_ITSELF = "batchrank itself"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How a run stood when a part had been published.

    Attributes:
        part: the part's number, from 0.
        files: its files' names and sizes in bytes.
        position: items of the input dealt with so far.
        ordinal: queries of more than one chunk among them.
        totals: the sums so far.
        verdicts: the run-wide verdict's state.
        failures: dead letters since the part before, as ``letter`` makes them; those of the reader are left out, as
            it finds them again.
        digests: SHA-256 of the part's files.
    """

    part: int
    files: dict[str, int]
    position: int
    ordinal: int
    totals: dict[str, Any]
    verdicts: dict[str, Any]
    failures: list[dict[str, Any]]
    digests: dict[str, str] = field(default_factory=dict)


def letter(position: int, failure: Failure) -> dict[str, Any]:
    """A dead letter as plain data, with the position in the input it belongs to."""
    return dataclasses.asdict(failure) | {"position": position}


def passed_over(
    items: Iterator[Query | Failure],
    checkpoints: Sequence[Checkpoint],
    write: Callable[[Failure], None],
) -> Iterator[Query | Failure]:
    """The input after the last checkpoint; dead letters of what was before are written again, in order."""
    letters = deque(_letters(checkpoints))
    for position, item in enumerate(islice(items, checkpoints[-1].position if checkpoints else 0)):
        while letters and letters[0][0] < position:
            write(letters.popleft()[1])
        if isinstance(item, Failure):
            write(item)
    for _, failure in letters:
        write(failure)
    yield from items


def _letters(checkpoints: Iterable[Checkpoint]) -> Iterator[tuple[int, Failure]]:
    for data in (data for checkpoint in checkpoints for data in checkpoint.failures):
        fields = data | {"place": Place(**data["place"])}
        yield fields.pop("position"), Failure(**fields)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run starts.

    Attributes:
        checkpoints: of the parts that stay as they are.
        changed: what differs from the run before, for the user.
        spent: what earlier processes of this run have spent.
        continued: whether this continues a run that was cut short.
    """

    checkpoints: Sequence[Checkpoint]
    changed: Sequence[str]
    spent: Spent
    continued: bool

    @property
    def notice(self) -> str | None:
        """What the user should know about where the run starts."""
        if self.checkpoints:
            return (
                f"continues an earlier run: {len(self.checkpoints)} published parts, "
                f"{self.checkpoints[-1].position:,} queries, stay as they are"
            )
        if self.changed:
            return (
                f"changed since the last run: {', '.join(self.changed)}; all rankings are made anew, and answers to "
                "requests that did not change are reused"
            )
        return (
            "continues an earlier run that was cut short; its answers are reused" if self.continued else None
        )


class Resume:
    """The run's state in the ledger, apart from other jobs' that share it.

    Args:
        ledger: where the state is kept.
        job: the job.
        inputs: the input files' names, sizes and times; None when they can't be compared (standard input).
        tokenizer: what counts tokens, because chunks depend on it.
        written: the folder that parts go to, as those elsewhere are another run's; None for standard output.
    """

    def __init__(
        self,
        ledger: Ledger,
        job: Job,
        inputs: list[list[Any]] | None,
        tokenizer: str,
        written: Path | None,
    ) -> None:
        self._ledger = ledger
        self._scope = scope(job)
        self._folder = Path("" if written is None else written).absolute()
        self._identity = identity(job, tokenizer)
        self._inputs = inputs
        self._number = 0

    async def begin(self, *, fresh: bool, replay: bool = False) -> Start:
        """Find out where to start, and note that the run has begun.

        Published parts stay if the run before was cut short and neither job nor input has changed since. Other
        settings or another input make a new run, with a cap of its own; another version of batchrank does not.

        Args:
            fresh: this is a new run, whatever was before.
            replay: make all parts anew even if this continues a run.
        """
        before = await self._ledger.load(f"run/{self._scope}")
        changed = _differences(before, self._identity, self._inputs)
        same = all(what == _ITSELF for what in changed)
        continued = before is not None and not before["complete"] and same and not fresh
        if continued:
            self._number = before["number"]
        else:
            self._number = 1 + (await self._ledger.load("runs") or 0)
            await self._ledger.save("runs", self._number)
        checkpoints: list[Checkpoint] = []
        same_place = before is not None and before["folder"] == str(self._folder)
        if continued and same_place and not changed and not replay and self._inputs is not None:
            checkpoints = await self._checkpoints()
        state = {
            "number": self._number,
            "complete": False,
            "identity": self._identity,
            "inputs": self._inputs,
            "folder": str(self._folder),
        }
        await self._ledger.save(f"run/{self._scope}", state)
        await self._ledger.save(f"part/{self._scope}/{len(checkpoints)}", None)
        spent = await self._ledger.begin(self._number)
        return Start(checkpoints, changed, spent, continued)

    async def _checkpoints(self) -> list[Checkpoint]:
        found: list[Checkpoint] = []
        while data := await self._ledger.load(f"part/{self._scope}/{len(found)}"):
            checkpoint = Checkpoint(**data)
            if not all(_size(self._folder / name) == size for name, size in checkpoint.files.items()):
                break
            found.append(checkpoint)
        return found

    async def published(self, checkpoint: Checkpoint) -> None:
        """Commit that a part stands; what an older run knew of later parts is void."""
        data = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
        await self._ledger.save(f"part/{self._scope}/{checkpoint.part + 1}", None)
        await self._ledger.save(f"part/{self._scope}/{checkpoint.part}", data)

    async def complete(self) -> None:
        """Commit that the run has ended; the next one starts anew."""
        state = await self._ledger.load(f"run/{self._scope}")
        if state is not None:
            await self._ledger.save(f"run/{self._scope}", state | {"complete": True})


def scope(job: Job) -> str:
    """What tells a job's state from that of other jobs that share its ledger: where its output goes."""
    out = "" if job.output is None else str(Path(job.output.path).absolute())
    return hashlib.sha256(out.encode()).hexdigest()[:16]


def _differences(before: Any, now: dict[str, Any], files: list[list[Any]] | None) -> list[str]:
    if before is None:
        return []
    known = before["identity"]
    if "limits.documents" not in known:  # noted by a batchrank that compared less
        changed = [_ITSELF]
    else:
        changed = [_said(key) for key in now if known.get(key) != now[key]]
    return changed + (["the input"] if before["inputs"] != files else [])


def _said(key: str) -> str:
    return _ITSELF if key == PROGRAM else f"the job ({key})"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
