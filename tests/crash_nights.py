"""Kills the second night's run of a job with SIGKILL at random moments and at chosen points, until it is complete.

The folder holds last night's complete output when the run starts. What must hold after each kill:

1. until the switch is decided, all files of last night's output are there under their names, byte for byte, and no
   other of an output's names is taken;
2. from then on, each file of tonight's is byte for byte that of an uninterrupted run, in its place or waiting;
and at the end:
3. the output is byte for byte that of an uninterrupted run, and nothing waits any more.
"""

import shutil
from pathlib import Path

import orjson
from crash_harness import FAULTS, Harness

from batchrank.emulator.app import Emulator
from batchrank.emulator.settings import Settings
from batchrank.write.folder import NEXT

JOB = "nightly"
NAMES = ("ranking-", "queries-", "failed", "summary")


class Nights(Harness):
    """One job, whose first night is put back after each series of kills."""

    async def prepare(self) -> None:
        """Run the first night, change the input, and note what an uninterrupted second night writes."""
        assert await self.run(self.job(JOB)) == 0
        self.last = _output(self.folder / JOB)
        shutil.copytree(self.folder / JOB, self.folder / "kept")
        rows = [orjson.loads(line) for line in (self.folder / "in.jsonl").read_bytes().splitlines()]
        for row in rows[::3]:
            row["query"] += " tonight"
        for row in rows[1::3]:  # ranked by what is known of the other documents
            row["candidates"][0]["text"] += " tonight"
        (self.folder / "in.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows[:-5]))
        assert await self.run(self.job(JOB)) == 0
        self.tonight = _output(self.folder / JOB)
        self.put_back()
        assert self.last.keys() > self.tonight.keys()  # what a part fewer leaves over must go

    def put_back(self) -> None:
        """Make it the end of the first night again."""
        shutil.rmtree(self.folder / JOB)
        shutil.copytree(self.folder / "kept", self.folder / JOB)

    async def night(self, kills: list[tuple[str, int | None]]) -> int:
        """Run the second night with these kills, and then to its end; how many of them came to pass."""
        job, folder, happened = self.job(JOB), self.folder / JOB, 0
        for crash_at, after in kills:
            if await self.run(job, crash_at, after) == 0:
                break
            happened += 1
            self._check(folder)
        assert await self.run(job) == 0
        assert _without_summary(_output(folder)) == _without_summary(self.tonight)
        assert orjson.loads((folder / "summary.json").read_bytes())["complete"]
        assert not (folder / NEXT).exists()
        return happened

    def _check(self, folder: Path) -> None:
        found = _output(folder)
        waiting = _output(folder / NEXT) if (folder / NEXT).exists() else {}
        if found == self.last:
            return
        for name, data in _without_summary(self.tonight).items():
            assert waiting.get(name, found.get(name)) == data, f"{name} is neither in place nor waiting"
        assert ("summary.json" in found) != ("summary.json" in waiting)
        if "summary.json" in found:
            assert _without_summary(found) == _without_summary(self.tonight)

    def choose(self) -> tuple[str, int | None]:
        """A kill: at random, or at the n-th commit, rename, fsync or removal."""
        _, crash_at, after = self._choose()
        return crash_at, after


def _output(folder: Path) -> dict[str, bytes]:
    names = [path for path in folder.iterdir() if path.name.startswith(NAMES)]
    return {path.name: path.read_bytes() for path in names if path.is_file()}


def _without_summary(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name != "summary.json"}


def emulator() -> Emulator:
    """An API with faults."""
    settings = Settings(
        tokenizer="bytes", scores="relative", latency=0.005, rpm=float("inf"), tpm=float("inf"), faults=FAULTS
    )
    return Emulator(settings, keep=True)
