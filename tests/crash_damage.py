"""Kills jobs of the command line and harms what they left, or suspends them, and checks how they go on.

Half of the jobs are in an empty folder, half replace last night's output. What must hold:

1. ``damaged``, a bit flipped in one of the files left, with a cap: the output is byte for byte that of an uninterrupted
   run, or the run stops with exit code 1, a reason in one line and no traceback. A stop leaves each file under its
   final name as last night's or as tonight's, but for the one that was harmed. The bill stays within the cap;
   and with the cap raised, or ``--fresh`` where the reason names it, the output is the same, or, where the ledger is
   gone, that of a run to which it told nothing;
2. ``lost``, one of the files removed: the same output, or a stop whose reason names ``--fresh``;
3. ``suspended``, SIGSTOP for longer than a request may take, with connections lost meanwhile: the same output, no more
   paid without an answer than the ledger counts, and that is at most what was in flight then or met a fault.
"""

import asyncio
import math
import random
import re
import shutil
import signal
import sqlite3
import statistics
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from crash_harness import CONCURRENCY, Harness

from batchrank.emulator.app import Emulator
from batchrank.emulator.settings import Settings

JOB = "job"
CAPS = (1.0, 1.15, 1.5)
"""Shares of what an uninterrupted run is billed: what was in flight at the kill fits in, just so, or not at all."""
LATENCY, TIMEOUT = 0.05, 2.0
LOST_CONNECTIONS = {"answer-dropped": 0.03, "reset-mid-body": 0.03, "stale-keep-alive": 0.05}
_REASON = ("batchrank: ", "stopped: ")
_KINDS = {
    "ledger.sqlite-wal": "the ledger's -wal",
    "ledger.sqlite": "ledger",
    "ranking-": "part",
    ".ranking-": "part under way",
    "queries-": "part of the queries",
    ".queries-": "part of the queries under way",
    "failed": "dead letters",
}
_FAILED_QUERIES = 3
_OUTPUT = ("ranking-*", "queries-*", "failed.jsonl")
_COMMAND = """
import sys
from batchrank.__main__ import main
sys.argv[:] = ["batchrank", "run", "--quiet", *sys.argv[1:]]
main()
"""

Flip = tuple[int, int]


def flip(path: Path, rng: random.Random) -> Flip:
    """Flip one bit of a file that is not empty; which byte and which bit."""
    data = bytearray(path.read_bytes())
    at, bit = rng.randrange(len(data)), rng.randrange(8)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return at, bit


@dataclass
class Harm:
    """What came of a series.

    Attributes:
        cases: what was harmed or done, and what came of it: ``the same``, ``stopped``, ``at the cap``.
        reasons: the reasons of the stops, without what differs from one to the next.
        again: requests that were billed and of no use, of each job that ended.
        bills: what each job was billed, as a share of its cap.
        counted: attempts counted as possibly billed, of each suspended job.
        faults: faults that each suspended job met.
        heeded: stops after which the cap was raised, or ``--fresh`` said, and the output was the same.
        broken: promises that did not hold, with what tells the case.
    """

    cases: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    again: list[int] = field(default_factory=list)
    bills: list[float] = field(default_factory=list)
    counted: list[int] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)
    heeded: int = 0
    broken: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many cases there were."""
        return self.cases.total()

    def table(self) -> str:
        """How it went, as Markdown."""
        ends = [end for end in ("the same", "stopped", "at the cap") if any(end == e for _, e in self.cases)]
        harmed = sorted({what for what, _ in self.cases})
        rows = [(what, *(str(self.cases[what, end] or "-") for end in ends)) for what in harmed]
        rows.append(("all", *(str(sum(self.cases[w, end] for w in harmed)) for end in ends)))
        lines = ["| | " + " | ".join(ends) + " |", "|---" * (len(ends) + 1) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([*lines, "", *self._facts()])

    def _facts(self) -> list[str]:
        numbers = {
            "requests billed again": self.again,
            "attempts counted as possibly billed": self.counted,
            "faults": self.faults,
        }
        facts = [
            f"- {name}: {statistics.mean(found):.1f} a job, {max(found)} at most"
            for name, found in numbers.items()
            if found
        ]
        if self.bills:
            facts.append(f"- the largest bill: {max(self.bills):.1%} of its cap")
        facts += [f"- {count} x {reason}" for reason, count in self.reasons.most_common()]
        if self.heeded:
            facts.append(
                f"- stops heeded, by a higher cap or --fresh, with the same output then: {self.heeded}"
            )
        return [*facts, f"- promises broken: {len(self.broken)}", *(f"  - {text}" for text in self.broken)]


@dataclass(frozen=True)
class Night:
    """A state that a job starts from.

    Attributes:
        before: the folder as it is then; None for an empty one.
        data: the input.
        last: the output in it.
        tonight: the output of an uninterrupted run.
        anew: the same of one to which the ledger tells nothing.
        tokens: what that run is billed.
        requests: how many that are.
    """

    before: Path | None
    data: bytes
    last: dict[str, bytes]
    tonight: dict[str, bytes]
    anew: dict[str, bytes]
    tokens: int
    requests: int


class Harmed(Harness):
    """Jobs that are run by the command line, some queries of which can't be ranked."""

    def __init__(self, folder: Path, emulator: Emulator, *, queries: int, seed: int, format: str) -> None:
        self._format = format
        super().__init__(folder, emulator, queries=queries, seed=seed)
        self.seed, self.harm = seed, Harm()
        self.out = folder / JOB
        self._tokens = self._billed = self._faults = 0

    def job(self, name: str, **sections: dict[str, Any]) -> Path:
        """Write a job file."""
        output = {"path": name, "format": self._format, "part_documents": 60}
        return super().job(name, **{"output": output, **sections})

    async def prepare(self) -> None:
        """Run both nights without a kill, and note what they write and are billed."""
        rows = [orjson.loads(line) for line in self.input.read_bytes().splitlines()]
        for row in rows[2::5]:
            row["candidates"] = []
        first = await self._uninterrupted(None, rows, {})
        assert first.anew == first.tonight
        shutil.copytree(self.out, self.folder / "kept")
        for row in rows[1::2]:
            row["query"] += " tonight"
        for row in rows[::2]:  # ranked by what is known of the other documents
            for candidate in row["candidates"][:1]:
                candidate["text"] += " tonight"
        second = await self._uninterrupted(self.folder / "kept", rows[:-1], first.tonight)
        self.nights = [first, second]

    async def _uninterrupted(self, before: Path | None, rows: list[object], last: dict[str, bytes]) -> Night:
        data = b"".join(orjson.dumps(row) + b"\n" for row in rows)
        self.input.write_bytes(data)
        counts = self.emulator.counts
        tokens, requests = counts.tokens, counts.billed.total()
        code, errors = await self.ended(await self.start(self.job(JOB), runner=_COMMAND))
        assert code == _FAILED_QUERIES, errors
        tonight = _output(self.out)
        assert len(tonight) > 2 and tonight.keys() >= {"failed.jsonl"}
        taken = counts.tokens - tokens, counts.billed.total() - requests
        shutil.rmtree(self.out)
        code, errors = await self.ended(await self.start(self.job(JOB), runner=_COMMAND))
        assert code == _FAILED_QUERIES, errors
        return Night(before, data, last, tonight, _output(self.out), *taken)

    def _put_back(self, night: Night) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        if night.before is not None:
            shutil.copytree(night.before, self.out)
        self.input.write_bytes(night.data)
        counts = self.emulator.counts
        self._tokens, self._billed, self._faults = counts.tokens, counts.billed.total(), counts.faults.total()

    async def series(self, count: int, case: Callable[[Night], Awaitable[None]]) -> Harm:
        """So many cases; what a broken promise tells is kept, and the next case begins."""
        for number in range(count):
            self._rng = random.Random(f"{self.seed}/{number}")
            night = self.nights[number % 2]
            name = f"seed {self.seed}, case {number} ({'a second' if night.before else 'the first'} night)"
            try:
                await case(night)
            except AssertionError as error:
                self.harm.broken.append(f"{name}: {error}")
        return self.harm

    async def _killed(self, night: Night, job: Path) -> tuple[list[Path], str]:
        """Kill a job at some moment that leaves files; which ones, and how it was killed."""
        while True:
            self._put_back(night)
            kind, crash_at, after = self._choose()
            if after is not None:
                after = self._rng.randrange(night.requests)
            code, errors = await self.ended(await self.start(job, crash_at, _COMMAND), after)
            assert code in (-9, 1, _FAILED_QUERIES), errors  # 1: at its cap before it could be killed
            files = [path for path in self.out.rglob("*") if path.is_file() and path.stat().st_size]
            if code == -9 and files:
                return sorted(files), f"killed {kind} {crash_at or after}"

    def _pick(self, files: list[Path]) -> tuple[Path, str]:
        """A file and its kind; each kind is as probable as the others."""
        kinds = {path: _kind(path.relative_to(self.out)) for path in files}
        kind = self._rng.choice(sorted(set(kinds.values())))
        return self._rng.choice([path for path in files if kinds[path] == kind]), kind

    async def damaged(self, night: Night) -> None:
        """Kill, flip a bit, run on."""
        cap = math.ceil(night.tokens * self._rng.choice(CAPS))
        job = self.job(JOB, budget={"max_tokens": cap})
        files, told = await self._killed(night, job)
        path, kind = self._pick(files)
        at, bit = flip(path, self._rng)
        told = f"{told}; {path.relative_to(self.out)}, byte {at}, bit {bit}; cap {cap / night.tokens:.0%}"
        reason = await self._run_on(night, job, path, kind, told)
        billed = self.emulator.counts.tokens - self._tokens
        self.harm.bills.append(billed / cap)
        assert billed <= cap, f"{told}: {billed:,} tokens were billed, and the cap is {cap:,}"
        await self._heed(night, reason, told)

    async def lost(self, night: Night) -> None:
        """Kill, remove a file, run on."""
        job = self.job(JOB)
        files, told = await self._killed(night, job)
        path, kind = self._pick(files)
        path.unlink()
        told = f"{told}; {path.relative_to(self.out)}"
        reason = await self._run_on(night, job, path, kind, told)
        assert reason is None or "--fresh" in reason, f"{told}: the reason doesn't name --fresh: {reason}"
        await self._heed(night, reason, told)

    async def _run_on(self, night: Night, job: Path, harmed: Path, kind: str, told: str) -> str | None:
        """Run a job whose file was harmed; the reason if it stops."""
        code, errors = await self.ended(await self.start(job, runner=_COMMAND))
        assert "Traceback" not in errors, f"{told}: {errors}"
        found = _output(self.out)
        if code == _FAILED_QUERIES:
            self.harm.cases[kind, "the same"] += 1
            self.harm.again.append(self.emulator.counts.billed.total() - self._billed - night.requests)
            assert found == night.tonight, f"{told}: {_differing(found, night.tonight)} differ"
            return None
        assert code == 1, f"{told}: exit code {code}: {errors}"
        *before, reason = errors.splitlines() or [""]
        assert reason.startswith(_REASON) and not any(line.startswith(_REASON) for line in before), (
            f"{told}: no reason in one line: {errors}"
        )
        capped = "budget." in reason
        self.harm.cases[kind, "at the cap" if capped else "stopped"] += 1
        self.harm.reasons[self._without_particulars(reason)] += 1
        for name, data in found.items():
            whole = data in (night.last.get(name), night.tonight.get(name))
            assert whole or self.out / name == harmed, f"{told}: {name} is neither last night's nor tonight's"
        return reason

    async def _heed(self, night: Night, reason: str | None, told: str) -> None:
        """Do what the reason of a stop says; the output is the same then."""
        capped = reason is not None and "budget." in reason
        if reason is None or not (capped or "--fresh" in reason):
            return
        code, errors = await self.ended(
            await self.start(self.job(JOB), "", _COMMAND, *([] if capped else ["--fresh"]))
        )
        assert code == _FAILED_QUERIES, f"{told}; then, {reason}: exit code {code}: {errors}"
        found = _output(self.out)
        # A ledger that is gone tells nothing of last night.
        right = found == night.tonight or (not capped and found == night.anew)
        assert right, f"{told}; then, {reason}: {_differing(found, night.tonight)} differ"
        self.harm.heeded += 1

    def _without_particulars(self, reason: str) -> str:
        return re.sub(r"[0-9][0-9,.]*", "N", reason.replace(f"{self.folder}/", ""))[:140]

    async def suspended(self, night: Night) -> None:
        """Suspend a job up to three times, and let it end."""
        self._put_back(night)
        process = await self.start(self.job(JOB, endpoint={"timeout": TIMEOUT}), runner=_COMMAND)
        ended = asyncio.create_task(self.ended(process))
        stops = 0
        for _ in range(self._rng.randint(1, 3)):
            await self.asked(self._rng.randint(1, night.requests // 3), ended)
            await asyncio.sleep(self._rng.uniform(0, LATENCY))
            if ended.done():
                break
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(TIMEOUT * self._rng.uniform(1.2, 2))
            process.send_signal(signal.SIGCONT)
            stops += 1
        code, errors = await ended
        assert code == _FAILED_QUERIES, f"exit code {code}: {errors}"
        self.harm.cases[f"suspended {stops} x", "the same"] += 1
        found = _output(self.out)
        assert found == night.tonight, f"{_differing(found, night.tonight)} differ"
        counts, before = self.emulator.counts, night.before
        answers, counted = _ledger(self.out)
        if before is not None:
            answers, counted = answers - _ledger(before)[0], counted - _ledger(before)[1]
        again, faults = counts.billed.total() - self._billed - answers, counts.faults.total() - self._faults
        self.harm.again.append(again)
        self.harm.counted.append(counted)
        self.harm.faults.append(faults)
        assert 0 <= again <= counted <= stops * CONCURRENCY + faults, (
            f"suspended {stops} times, {faults} faults: {again} paid again, {counted} counted as possibly billed"
        )


def _ledger(folder: Path) -> tuple[int, int]:
    """How many answers a ledger holds, and how many attempts that may have been billed without one."""
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as db:
        answers: int = db.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
        kinds = dict(db.execute("SELECT kind, COUNT(*) FROM attempts GROUP BY kind").fetchall())
    return answers, kinds.get("ambiguous", 0) + kinds.get("malformed", 0)


def _kind(path: Path) -> str:
    """What the table calls a file."""
    for start, kind in _KINDS.items():
        if path.name.startswith(start):
            return f"{kind}, in .next" if path.parent.name == ".next" else kind
    return str(path)


def _output(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for pattern in _OUTPUT for path in folder.glob(pattern)}


def _differing(one: dict[str, bytes], other: dict[str, bytes]) -> str:
    """The names of files that differ; of JSON lines, the first that do, but for the ranking itself."""
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return ", ".join(f"{name}{_first_difference(one.get(name, b''), other.get(name, b''))}" for name in names)


def _first_difference(one: bytes, other: bytes) -> str:
    for pair in zip(one.splitlines(), other.splitlines(), strict=False):
        if pair[0] != pair[1]:
            try:
                found, wanted = ({**orjson.loads(line), "ranking": "..."} for line in pair)
            except orjson.JSONDecodeError:
                return ""
            return f" ({found} instead of {wanted})"
    return ""


async def harm(
    folder: Path, how: str, *, count: int, queries: int, seed: int = 0, format: str = "jsonl"
) -> Harm:
    """So many cases of one kind, ``damaged``, ``lost`` or ``suspended``, in an empty folder."""
    settings = Settings(
        tokenizer="bytes", scores="relative", latency=LATENCY, rpm=float("inf"), tpm=float("inf"),
        faults=LOST_CONNECTIONS if how == "suspended" else {},
    )  # fmt: skip
    async with Emulator(settings) as emulator:
        harmed = Harmed(folder, emulator, queries=queries, seed=seed, format=format)
        await harmed.prepare()
        cases = {"damaged": harmed.damaged, "lost": harmed.lost, "suspended": harmed.suspended}
        return await harmed.series(count, cases[how])
