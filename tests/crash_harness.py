"""Kills a job with SIGKILL at random moments and at chosen points, runs it again until it is complete, and checks.

The job runs in a process of its own, against an emulator with faults in this one. Chosen points are every commit of
the ledger, rename and fsync, before and after: code of the test's own, run before the job's, counts them and kills the
process at the n-th.

What must hold, after each kill:
1. a file under its final name is byte for byte the one of an uninterrupted run;
2. no request whose answer the ledger acknowledged is ever asked again;
3. the requests in flight at the kill are at most the concurrency, and all are known to the ledger;
and at the end:
4. the output is byte for byte that of an uninterrupted run;
5. every payment is accounted for: an answer, an unusable one, or an attempt counted as ambiguous.
"""

import asyncio
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import commands
import orjson

from batchrank.emulator.app import Emulator
from batchrank.emulator.settings import Settings
from batchrank.job.load import load_job

CONCURRENCY = 8
PATH = "/compatible-api/v1/reranks"
REFERENCE = "reference"
FAULTS = {
    "500": 0.04, "503": 0.02, "429-requests": 0.02, "answer-dropped": 0.03, "reset-mid-body": 0.03,
    "json-truncated": 0.02, "index-duplicate": 0.02, "stale-keep-alive": 0.02, "usage-missing": 0.05,
}  # fmt: skip
_WORDS = [
    "copy",
    "tree",
    "file",
    "random",
    "list",
    "regular",
    "socket",
    "thread",
    "lock",
    "queue",
    "event",
    "parse",
]

_RUNNER = """
import sys, anyio
from batchrank.job.load import load_job
from batchrank.launch import run
report = anyio.run(run, load_job(sys.argv[1]))
print(report.reason, file=sys.stderr)
sys.exit(report.exit_code)
"""
_KILLER = """
import os, signal, sqlite3
_event, _when, _at = os.environ.get("CRASH_AT", "none:before:0").split(":")
_left = int(_at)

def _reached(event, when):
    global _left
    if (event, when) == (_event, _when):
        _left -= 1
        if _left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

def _wrapped(event, function):
    def call(*args, **keywords):
        _reached(event, "before")
        result = function(*args, **keywords)
        _reached(event, "after")
        return result
    return call

os.rename = _wrapped("rename", os.rename)
os.fsync = _wrapped("fsync", os.fsync)
os.unlink = _wrapped("unlink", os.unlink)

class _Connection(sqlite3.Connection):
    def execute(self, sql, *args):
        if sql == "COMMIT":
            _reached("commit", "before")
        result = super().execute(sql, *args)
        if sql == "COMMIT":
            _reached("commit", "after")
        return result

_connect = sqlite3.connect
sqlite3.connect = lambda *args, **keywords: _connect(*args, factory=_Connection, **keywords)
"""


STARTED = "random"
"""Stands for the process that was started, killed at a random moment."""
POINTS = {"commit": 150, "rename": 4, "fsync": 6}
"""Where that is killed else: before or after one of so many commits, renames and fsyncs."""
ROLES = ("ranker", "ranker", "reader")
"""Processes of a job in several of them, besides the one that was started."""
_LONGEST = 180.0
"""Seconds after which a run is taken to hang, by far longer than any takes."""


def commands_of_children(parent: int) -> dict[int, list[bytes]]:
    """A process's children, each with its command line."""
    found: dict[int, list[bytes]] = {}
    for thread in Path(f"/proc/{parent}/task").iterdir():
        with suppress(OSError):  # it has ended
            for number in (thread / "children").read_text().split():
                with suppress(OSError):
                    found[int(number)] = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    return found


def children(parent: int) -> dict[int, str]:
    """A process's children that work on its job, by what each is for."""
    return {
        number: words[words.index(b"batchrank.cluster.child") + 1].decode()
        for number, words in commands_of_children(parent).items()
        if b"batchrank.cluster.child" in words
    }


@dataclass
class Figures:
    """What a series of kills amounted to."""

    jobs: int = 0
    requests: int = 0
    answers: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    in_flight: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    unusable: int = 0
    ambiguous: int = 0
    parts_skipped: int = 0


class Harness:
    """One emulator, one input, and as many jobs as it takes.

    Attributes:
        kinds: what is killed, and at which points; what stands twice is twice as probable.
        moment: seconds within which something is killed once enough was asked.
        beginning: the same where that is nothing.
    """

    kinds: Sequence[str] = (STARTED, STARTED, "commit", "commit", "rename", "fsync")
    moment = beginning = 0.03

    def __init__(
        self, folder: Path, emulator: Emulator, *, queries: int, seed: int, processes: int = 1
    ) -> None:
        self.folder, self.emulator = folder, emulator
        self.processes = processes
        if processes > 1:
            self.kinds = (STARTED, *ROLES)
        self.figures = Figures()
        self._rng = random.Random(seed)
        self._url = emulator.url + PATH
        self.input = folder / "in.jsonl"
        self._write_input(queries)
        (folder / "key").write_text("sk-test-key")
        job = load_job(self.job("scope"), environ={})
        self._scope = f"{job.answers_identity}\n{job.wire}\n".encode()

    def _write_input(self, queries: int) -> None:
        rng = random.Random(0)
        with self.input.open("wb") as file:
            for q in range(queries):
                candidates = [
                    {"id": f"d{q}-{d}", "text": " ".join(rng.choices(_WORDS, k=8)) + f" {q} {d}"}
                    for d in range(34 if q % 4 else 7)
                ]
                query = f"{rng.choice(_WORDS)} {rng.choice(_WORDS)} {q}"
                file.write(orjson.dumps({"query_id": f"q{q}", "query": query, "candidates": candidates}))
                file.write(b"\n")

    def job(self, name: str, **sections: dict[str, Any]) -> Path:
        """Write a job file; ``sections`` are added to those that all jobs share."""
        job: dict[str, Any] = {
            "input": {"path": "in.jsonl"},
            "model": "qwen3-rerank",
            "endpoint": {"url": self._url, "api_key_file": "key", "timeout": 5},
            "limits": {"documents": 10},
            "merge": {"top_k": 5},
            "tokenizer": "bytes",
            "rate": {"rpm": 600_000, "tpm": 10**12, "concurrency": CONCURRENCY},
            "retry": {"max_delay": 0.05},
            "output": {"path": name, "format": "jsonl", "part_documents": 100},
            "engine": {"processes": 1} if name == REFERENCE else self.engine(),
        }
        for section, keys in sections.items():
            job[section] = job.get(section, {}) | keys
        path = self.folder / f"{name}.yaml"
        path.write_bytes(orjson.dumps(job))
        return path

    def engine(self) -> dict[str, Any]:
        """Where jobs that are killed are ranked."""
        return {"processes": self.processes}

    async def run(
        self, job: Path, crash_at: str = "", kill_after: int | None = None, roles: Sequence[str] = (STARTED,)
    ) -> int:
        """Run a job once: to its end, to a chosen point, or for so many requests and a moment.

        Where another role is given, a process of that role is killed then, and the job goes on, but without its reader.
        """
        code, errors = await self.ended(await self.start(job, crash_at), kill_after, roles)
        assert code in (0, -9) or ("reader" in roles and code == 1 and "reads the input died" in errors), (
            errors
        )
        return code

    async def start(
        self, job: Path, crash_at: str = "", runner: str = _RUNNER, *more: str
    ) -> commands.Process:
        """Start a job in a process of its own."""
        environ = {**os.environ, **({"CRASH_AT": crash_at} if crash_at else {})}
        return commands.Process(_KILLER + runner, str(job), *more, cwd=self.folder, environ=environ)

    async def ended(
        self, process: commands.Process, kill_after: int | None = None, roles: Sequence[str] = (STARTED,)
    ) -> tuple[int, str]:
        """Wait for the end of a process, killed after so many requests; its code, and what it said on stderr.

        Of several roles that are to be killed, each is so many requests after the one before.
        """
        ended = asyncio.create_task(process.communicate())
        for role in roles if kill_after is not None else ():
            assert kill_after is not None
            await self.asked(kill_after, ended)
            await asyncio.sleep(self._rng.uniform(0, self.moment if kill_after else self.beginning))
            if not ended.done():
                self.figures.kills[role] += await self._kill(process, role, ended)
        done, _ = await asyncio.wait([ended], timeout=_LONGEST)
        if not done:
            process.send_signal(signal.SIGABRT)
        _, errors = await ended
        assert done, f"a run hangs: {errors.decode()}"
        assert process.returncode is not None
        return process.returncode, errors.decode()

    async def _kill(self, process: commands.Process, role: str, ended: asyncio.Task[Any]) -> bool:
        """Kill a process of a role, if there is one by now; whether there was."""
        if role == STARTED:
            process.kill()
            return True
        found = [pid for pid, what in children(process.pid).items() if what == role]
        if found:
            os.kill(self._rng.choice(found), signal.SIGKILL)
        return bool(found)

    async def asked(self, requests: int, ended: asyncio.Task[Any]) -> None:
        """Wait until so many more requests came in, or a process ended."""
        until = self.emulator.requests + requests
        while not ended.done() and self.emulator.requests < until:  # noqa: ASYNC110 another process
            await asyncio.sleep(0.001)

    async def reference(self) -> dict[str, bytes]:
        """What an uninterrupted run writes."""
        assert await self.run(self.job(REFERENCE)) == 0
        return _final(self.folder / REFERENCE)

    async def crash(self, kills: int) -> Figures:
        """Start jobs, and kill them until so many kills are done; the last job is run to its end too."""
        expected = await self.reference()
        while sum(self.figures.kills.values()) < kills:
            await self._one_job(f"job{self.figures.jobs}", expected, kills)
            self.figures.jobs += 1
        return self.figures

    async def _one_job(self, name: str, expected: dict[str, bytes], kills: int) -> None:
        job, folder, figures = self.job(name), self.folder / name, self.figures
        asked_before = len(self.emulator.received)
        billed_before = self.emulator.counts.billed.total()
        acknowledged: set[bytes] = set()
        pending: set[bytes] = set()
        while True:
            start = len(self.emulator.received)
            enough = sum(figures.kills.values()) >= kills
            kind, crash_at, after = ("", "", None) if enough else self._choose()
            code = await self.run(job, crash_at, after, kind.split("+"))
            asked = [self._key(r.body) for r in self.emulator.received[start:]]
            again = acknowledged & set(asked)
            assert not again, f"{len(again)} acknowledged answers were asked again"
            if figures.in_flight and pending is not None:
                figures.repeated.append(len(pending & set(asked)))
            for file, data in _final(folder).items():
                assert data == expected[file], f"{file} differs after {kind}"
            if crash_at:
                figures.kills[kind] += code != 0
            if code == 0:
                break
            acknowledged, pending = _ledger(folder / "ledger.sqlite")
            ever = {self._key(r.body) for r in self.emulator.received[asked_before:]}
            assert acknowledged <= ever, "the ledger holds answers to requests that were never asked"
            assert len(pending) <= CONCURRENCY
            figures.in_flight.append(len(pending))
        assert _final(folder) == expected
        self._account(folder, len(self.emulator.received) - asked_before, billed_before)
        shutil.rmtree(folder)

    def _choose(self) -> tuple[str, str, int | None]:
        """A kill: at random, or at the n-th commit, rename or fsync."""
        kind = self._rng.choice(self.kinds)
        when = self._rng.choice(["before", "after"])
        if kind not in POINTS:
            return kind, "", self._after()
        return f"{when} {kind}", f"{kind}:{when}:{self._rng.randint(1, POINTS[kind])}", None

    def _after(self) -> int:
        """After how many requests something is killed."""
        return self._rng.randint(0, 90)

    def _account(self, folder: Path, asked: int, billed_before: int) -> None:
        db = sqlite3.connect(folder / "ledger.sqlite")
        (answers,) = db.execute("SELECT COUNT(*) FROM answers").fetchone()
        kinds = dict(db.execute("SELECT kind, COUNT(*) FROM attempts GROUP BY kind").fetchall())
        db.close()
        unusable, ambiguous = kinds.get("malformed", 0), kinds.get("ambiguous", 0)
        billed = self.emulator.counts.billed.total() - billed_before
        known = f"{billed} billed, {answers} answers, {unusable} unusable, {ambiguous} ambiguous"
        assert answers <= billed <= answers + unusable + ambiguous, f"a payment is not accounted for: {known}"
        self.figures.requests += asked
        self.figures.answers += answers
        self.figures.unusable += unusable
        self.figures.ambiguous += ambiguous

    def _key(self, body: bytes) -> bytes:
        return hashlib.sha256(self._scope + body).digest()[:16]


def _final(folder: Path) -> dict[str, bytes]:
    """The files under their final names."""
    names = [*folder.glob("ranking-*"), *folder.glob("queries-*"), *folder.glob("failed.jsonl")]
    return {path.name: path.read_bytes() for path in names}


def _ledger(path: Path) -> tuple[set[bytes], set[bytes]]:
    """What a ledger acknowledged, and what was in flight; read from a copy, which leaves it as the kill did."""
    if not path.exists():
        return set(), set()
    with tempfile.TemporaryDirectory() as folder:
        for file in path.parent.glob(path.name + "*"):
            shutil.copy(file, folder)
        db = sqlite3.connect(Path(folder) / path.name)
        try:
            answers = {key for (key,) in db.execute("SELECT key FROM answers")}
            return answers, {key for (key,) in db.execute("SELECT key FROM sent")}
        except sqlite3.OperationalError as error:  # killed before the tables were made
            assert "no such table" in str(error)
            return set(), set()
        finally:
            db.close()


async def crash(
    folder: Path, *, kills: int, make: Callable[..., Harness] = Harness, **options: Any
) -> Figures:
    """Kill jobs so many times in an empty folder; raises AssertionError where a promise is broken.

    With several processes it is any of them that is killed; jobs whose ranking processes die go on to their end.

    Args:
        folder: the folder.
        kills: how many.
        make: makes the harness, with ``options``.
    """
    settings = Settings(
        tokenizer="bytes", scores="relative", latency=0.01, rpm=float("inf"), tpm=float("inf"), faults=FAULTS
    )
    async with Emulator(settings, keep=True) as emulator:
        return await make(folder, emulator, **options).crash(kills)
