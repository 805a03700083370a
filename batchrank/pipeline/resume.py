"""Finds what an earlier process of the same run left, and notes in the ledger what this one leaves."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread

from batchrank.errors import LedgerError
from batchrank.io.address import Where
from batchrank.job.config import Job
from batchrank.ledger.ledger import Ledger
from batchrank.ledger.rows import DAY
from batchrank.ledger.state import next_epoch, wall
from batchrank.outcomes import Verdict
from batchrank.pipeline.checkpoint import Checkpoint, Start, standing
from batchrank.pipeline.earlier import INPUT, ITSELF, differences, identity
from batchrank.pipeline.shared import CHANGED, past_of
from batchrank.send.requests import Past

_PAST = ("horizon", "began", "floor")
"""What tells in a run's state which answers of earlier runs it may use."""
_MODEL = ("model", "endpoint")
"""What tells in a run's identity whether its verdict may still hold."""


class Resume:
    """The run's state in the ledger, apart from other jobs' that share it.

    Args:
        ledger: where the state is kept.
        job: the job.
        inputs: the input files' names, sizes and times; None when they can't be compared (standard input).
        tokenizer: what counts tokens, because chunks depend on it.
        written: the folder that parts go to, as those elsewhere are another run's; None for standard output.
        staging: where the dead letters are until they are published, by default there too.
    """

    def __init__(
        self,
        ledger: Ledger,
        job: Job,
        inputs: list[list[Any]] | None,
        tokenizer: str,
        written: Where | None,
        *,
        staging: Path | None = None,
    ) -> None:
        self._ledger = ledger
        self._scope = scope(job)
        self._folder = (written or Path()).absolute()
        self._staging = staging or Path(self._folder)
        self._identity = identity(job, tokenizer)
        self._inputs = inputs
        self._number = 0
        self._max_age = job.reuse.seconds

    async def begin(self, *, fresh: bool, replay: bool = False) -> Start:
        """Find out where to start, and note that the run has begun.

        Published parts stay if the run before was cut short and neither job nor input has changed since. Other
        settings or another input make a new run, with a cap of its own. Another version of batchrank does not, nor do
        files that only have another time, as when a workflow writes its input again at each try.

        Args:
            fresh: this is a new run, whatever was before.
            replay: make all parts anew even if this continues a run.

        Raises:
            LedgerError: the state there is of another kind than this version writes.
        """
        with self._usable():
            return await self._begin(fresh=fresh, replay=replay)

    async def foresee(self) -> tuple[Past, Verdict]:
        """Which answers of earlier runs a run could use that began now, and the last run's verdict; nothing is noted.

        Raises:
            LedgerError: as in ``begin``.
        """
        with self._usable():
            before, _, continued = await self._before(fresh=False)
            ledger, number = self._ledger, self._number
            ledger.run, ledger.epoch = number, await ledger.perform(lambda db: next_epoch(db, number))
            past = past_of(await self._horizon(before, again=continued), self._max_age)
            return past, self._verdict(before)

    def _verdict(self, last: dict[str, Any] | None) -> Verdict:
        """The last run's verdict, if it asked the same model at the same endpoint."""
        if last is None or any(last["identity"].get(key) != self._identity[key] for key in _MODEL):
            return "unknown"
        verdict: Verdict = last.get("verdict", "unknown")
        return verdict

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except (KeyError, TypeError, AttributeError) as error:
            raise LedgerError(
                f"{self._ledger.path}: what it tells of the last run can't be used ({error!r}), so nothing is sent; "
                "restore the ledger from a backup, use the batchrank that wrote it, or start anew with --fresh"
            ) from error

    async def _before(self, *, fresh: bool) -> tuple[dict[str, Any] | None, Sequence[str], bool]:
        """The state of the run before, what has changed since, whether it is gone on with; sets this one's number."""
        before = None if fresh else await self._ledger.load(f"run/{self._scope}")
        changed = differences(before, self._identity, self._inputs)
        continued = before is not None and not before["complete"] and self._same(before, changed)
        if before is not None and continued:
            self._number = before["number"]
        else:
            self._number = 1 + (await self._ledger.load("runs") or 0)
        return before, changed, continued

    async def _begin(self, *, fresh: bool, replay: bool) -> Start:
        before, changed, continued = await self._before(fresh=fresh)
        if not continued:
            await self._ledger.save("runs", self._number)
        last = await self._ledger.load(f"run/{self._scope}")
        spent = await self._ledger.begin(self._number)
        checkpoints: list[Checkpoint] = []
        damaged: list[str] = []
        same_place = before is not None and before["folder"] == str(self._folder)
        if continued and same_place and not changed and not replay and self._inputs is not None:
            checkpoints, damaged = await self._checkpoints()
        state = {
            "number": self._number,
            **await self._horizon(last, again=replay or continued),
            "complete": False,
            "day": before.get("day", _today()) if before is not None and continued else _today(),
            "identity": self._identity,
            "inputs": self._inputs,
            "folder": str(self._folder),
            "verdict": self._verdict(before),
        }
        # In this order: a run of these settings that is killed in between must not find parts of other ones.
        await self._ledger.save(f"part/{self._scope}/{len(checkpoints)}", None)
        await self._ledger.save(f"run/{self._scope}", state)
        start = Start(checkpoints, changed, spent, continued, damaged, past_of(state, self._max_age))
        start.totals, start.verdicts("relative")  # whether they can be made of what is there
        return start

    async def _horizon(self, last: dict[str, Any] | None, *, again: bool) -> dict[str, Any]:
        """Before which epoch, from which run on and at which time answers of earlier runs are looked for.

        A run that goes on decides as it began; and one of the same input and settings as the complete one before it
        decides as that did, so that it asks nothing and writes the same.
        """
        floor = await self._ledger.load(CHANGED) or 0
        if last is None or not all(name in last for name in _PAST):
            last = None  # of a batchrank that reused whole requests only, or damaged: --fresh must get on
        alike = self._inputs is not None and not differences(last, self._identity, self._inputs)
        if last is not None and (again or alike):
            known = {name: last[name] for name in _PAST}
            return known | {"floor": floor} if last["complete"] else known
        return {"horizon": self._ledger.epoch, "began": int(wall()), "floor": floor}

    def _same(self, before: dict[str, Any], changed: Sequence[str]) -> bool:
        """Whether the run before was of this input and these settings, so that its caps go on.

        Standard input, and files that have another time, may be tonight's just as well: they are taken to be the same
        on the day on which that run began, when a workflow tries again, and for another night's afterwards.
        """
        if not set(changed) <= {ITSELF, INPUT} or _sizes(before["inputs"]) != _sizes(self._inputs):
            return False
        certain = self._inputs is not None and INPUT not in changed
        return certain or before.get("day", _today()) == _today()

    async def _checkpoints(self) -> tuple[list[Checkpoint], list[str]]:
        """The checkpoints whose parts and dead letters are what was written, and the files that no longer are."""
        known: list[Checkpoint] = []
        while data := await self._ledger.load(f"part/{self._scope}/{len(known)}"):
            known.append(Checkpoint(**data))
        return await anyio.to_thread.run_sync(standing, self._folder, self._staging, known)

    async def published(self, checkpoint: Checkpoint) -> None:
        """Commit that a part stands; what an older run knew of later parts is void."""
        data = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
        await self._ledger.save(f"part/{self._scope}/{checkpoint.part + 1}", None)
        await self._ledger.save(f"part/{self._scope}/{checkpoint.part}", data)

    async def complete(self, verdict: Verdict | None = None) -> None:
        """Commit that the run has ended, and the verdict that most lists were merged by; the next one starts anew."""
        state = await self._ledger.load(f"run/{self._scope}")
        if state is not None:
            kept = {} if verdict is None else {"verdict": verdict}
            await self._ledger.save(f"run/{self._scope}", state | {"complete": True} | kept)


def scope(job: Job) -> str:
    """What tells a job's state from that of other jobs that share its ledger: where its output goes."""
    out = "" if job.output is None else str((job.destination or Path("-")).absolute())
    if job.output is not None and job.output.dated is not None:
        out = job.output.dated.template  # one job, whatever the day
    return hashlib.sha256(out.encode()).hexdigest()[:16]


def _today() -> int:
    """The day in UTC, counted from 1970."""
    return int(wall()) // DAY


def _sizes(files: list[list[Any]] | None) -> list[list[Any]] | None:
    return None if files is None else [file[:2] for file in files]
