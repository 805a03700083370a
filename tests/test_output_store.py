"""Jobs whose output goes to a store: what is there is whole, last night's stays, and what is paid for is kept here."""

import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import commands
import orjson
import pytest
from against import World, world
from jobs import outputs, rows, write_jsonl
from stores import KEYS, Bucket, Wire, served

from batchrank.cli.eval import evaluate, report
from batchrank.cli.status import status
from batchrank.errors import (
    ExitCode,
    InputError,
    InterruptedRunError,
    JobError,
    LedgerError,
    OutputError,
    StoreAwayError,
)
from batchrank.io import objects
from batchrank.io.address import Address
from batchrank.job.config import Job
from batchrank.launch import make_run
from batchrank.observe.facts import gather
from batchrank.pipeline.report import Report
from batchrank.pipeline.workers import unwrap_exception_groups
from batchrank.planning.check import Finding, check_job, ending
from batchrank.quality.rankings import load
from batchrank.write.folder import NEXT, OutputFolder
from batchrank.write.switch import Claim

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def host() -> Iterator[tuple[str, int]]:
    with served() as at:
        yield at


@pytest.fixture
def bucket(host: tuple[str, int]) -> Bucket:
    return Bucket(*host, f"b{uuid.uuid4().hex}")


class Store:
    """A job whose output goes to a store, and the same one whose output stays here."""

    def __init__(self, w: World, bucket: Bucket) -> None:
        self.w, self.bucket = w, bucket

    def job(self, out: str = "out", **sections: Any) -> Job:
        output = {"path": self.bucket.address(out)} | sections.pop("output", {})
        return self.w.job(out, output=output, **sections)

    async def run(self, job: Job, **options: Any) -> Report:
        return await self.w.run(job, part_documents=60, **options)

    def output(self, out: str = "out") -> dict[str, bytes]:
        """All that a run writes for others to read."""
        found = self.bucket.objects(out)
        return {name: data for name, data in found.items() if "/" not in name and not name.startswith(".")}

    async def expected(self, name: str = "here", **sections: Any) -> dict[str, bytes]:
        """What a job writes to a folder here, without its summary."""
        job = self.w.job(name, **sections)
        assert (await self.w.run(job, part_documents=60)).exit_code == 0
        return outputs(job, names=("ranking-", "queries-", "failed"))


@asynccontextmanager
async def store(tmp_path: Path, bucket: Bucket, **switches: Any) -> AsyncIterator[Store]:
    async with world(tmp_path, queries=12, candidates=34, **switches) as w:
        yield Store(w, bucket)


@asynccontextmanager
async def hurried(tmp_path: Path, bucket: Bucket) -> AsyncIterator[Store]:
    """As ``store``, for tests on the real clock: no quota holds anything up."""
    unlimited = {"rpm": float("inf"), "tpm": float("inf"), "latency": 0.002}
    async with store(tmp_path, bucket, **unlimited) as s:
        s.w.sections["rate"] = {"rpm": 10**9, "tpm": 10**12}
        yield s


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def without_summary(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name != "summary.json"}


def tonight(w: World, queries: int = 12, candidates: int = 34) -> None:
    data = [{**row, "query": row["query"] + " tonight"} for row in rows(queries, candidates)]
    write_jsonl(w.data, data)


@pytest.mark.parametrize("format", ["parquet", "jsonl", "trec"])
async def test_the_bytes_are_those_of_an_output_here(tmp_path: Path, bucket: Bucket, format: str) -> None:
    """The ledger stays here and the summary is there; no file of the run holds a credential."""
    async with store(tmp_path, bucket) as s:
        job = s.job(output={"format": format})
        assert (await s.run(job)).exit_code == 0
        assert job.ledger_path == tmp_path / "out.ledger.sqlite" and job.ledger_path.is_file()
        assert without_summary(s.output()) == await s.expected(output={"format": format})
        assert orjson.loads(s.output()["summary.json"])["complete"] is True
        here = [path.read_bytes() for path in files(tmp_path)]
        for data in (*bucket.objects().values(), *here):
            assert not any(
                KEYS[name].encode() in data for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
            )
        assert [path.name for path in files(job.output_folder or Path())] == [".batchrank.lock"]


async def test_a_night_that_is_cut_short_takes_nothing_away(tmp_path: Path, bucket: Bucket) -> None:
    """Its own parts wait under ``.next/``, are not sent twice, and replace the others once all of them are there."""
    script: dict[int, str] = {}
    async with store(tmp_path, bucket, script=script) as s:
        job = s.job()
        assert (await s.run(job)).exit_code == 0
        before = s.output()
        tonight(s.w, 11)
        script[s.w.emulator.requests + 45] = "400-arrearage"
        stopped = await s.run(job)
        assert stopped.exit_code == 1
        assert s.output() == before
        assert any(f"{bucket.name}/out/{NEXT}" in notice for notice in stopped.data["notices"])
        waiting = bucket.objects(f"out/{NEXT}")
        assert waiting["ranking-00000.jsonl"] != before["ranking-00000.jsonl"]
        assert orjson.loads(waiting["summary.json"])["complete"] is False
        sent: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            put = objects.Store.put

            def told(to: objects.Store, name: str, data: Any) -> str | None:
                sent.append(name)
                return put(to, name, data)

            patch.setattr(objects.Store, "put", told)
            again = await s.run(job)
        assert again.exit_code == 0 and any("published parts" in n for n in again.data["notices"])
        assert "summary.json" in sent and "ranking-00000.jsonl" not in sent
        assert without_summary(s.output()) == await s.expected()
        assert not bucket.objects(f"out/{NEXT}")


@pytest.mark.parametrize("harm", ["changed", "lost"])
async def test_a_part_that_is_not_what_was_sent_is_made_anew(
    tmp_path: Path, bucket: Bucket, harm: str
) -> None:
    """From the ledger, and told; nothing is paid again."""
    script: dict[int, str] = {}
    async with store(tmp_path, bucket, script=script) as s:
        job = s.job()
        script[s.w.emulator.requests + 45] = "400-arrearage"
        assert (await s.run(job)).exit_code == 1
        whole = bucket.objects("out")["ranking-00000.jsonl"]
        if harm == "changed":
            bucket.put("out/ranking-00000.jsonl", whole[:-2] + b" \n")
        else:
            bucket.client.delete_object(Bucket=bucket.name, Key="out/ranking-00000.jsonl")
        again = await s.run(job)
        assert again.exit_code == 0
        assert any("ranking-00000.jsonl: lost or changed" in notice for notice in again.data["notices"])
        assert s.output()["ranking-00000.jsonl"] == whole
        assert without_summary(s.output()) == await s.expected()


@pytest.mark.slow
async def test_a_line_that_breaks_in_an_upload_loses_nothing(
    tmp_path: Path, bucket: Bucket, host: tuple[str, int]
) -> None:
    """The run stops, nothing half is in the store, and the next run ends with the same bytes and pays nothing twice."""
    wire = Wire(*host)
    options = f"?scheme=http&endpoint_override=127.0.0.1:{wire.port}"
    async with store(tmp_path, bucket) as s:
        job = s.job(output={"path": bucket.address("out", options)}, retry={"outage": 1})
        wire.limit = 20_000  # enough for all but a part
        stopped = await s.w.run(job, part_documents=200)
        assert stopped.exit_code == ExitCode.STOPPED
        assert "the output's store has failed for" in str(stopped.reason)
        assert "ranking-00000.jsonl" not in s.output()
        wire.limit = None
        assert (await s.w.run(job, part_documents=200)).exit_code == 0
        assert s.w.paid_twice == 0
        here = s.w.job("here", output={"part_documents": 200})
        await s.w.run(here)
        assert without_summary(s.output()) == outputs(here, names=("ranking-", "failed"))
    wire.close()


@pytest.mark.slow
@pytest.mark.real_clock
@pytest.mark.parametrize("processes", [1, 2])
async def test_a_store_that_is_overloaded_for_a_while_is_waited_for(
    tmp_path: Path, bucket: Bucket, host: tuple[str, int], processes: int
) -> None:
    """It says 503 SlowDown more often than its client tries: the run says what it waits for, and ends well.

    It says so too where only processes that rank have something to write.
    """
    wire = Wire(*host)
    options = f"?scheme=http&endpoint_override=127.0.0.1:{wire.port}"
    async with store(tmp_path, bucket) as s:
        job = s.job(output={"path": bucket.address("out", options), "part_documents": 60})
        job = job.model_copy(update={"engine": job.engine.model_copy(update={"processes": processes})})
        run, seen = make_run(job), set[str]()
        reports: list[Report] = []

        async def execute() -> None:
            reports.append(await run.execute())

        async with anyio.create_task_group() as group:
            group.start_soon(execute)
            while not bucket.objects("out").get("ranking-00000.jsonl"):  # noqa: ASYNC110 the server has threads of its own
                await anyio.sleep(0.005)
            wire.slow = 40 * processes
            while not reports:
                progress = run.progress()
                seen.update([progress.trouble] if progress and progress.trouble else [])
                await anyio.sleep(0.05)
        assert reports[0].exit_code == 0 and not wire.slow
        assert any("the output's store has failed for" in text and "waited for" in text for text in seen)
        assert s.w.paid_twice == 0
        assert without_summary(s.output()) == await s.expected(output={"part_documents": 60})
    wire.close()


@pytest.mark.slow
@pytest.mark.real_clock
@pytest.mark.parametrize("processes", [1, 2])
async def test_who_stops_the_run_need_not_wait_for_its_store(
    tmp_path: Path, bucket: Bucket, host: tuple[str, int], processes: int
) -> None:
    """Ctrl-C while the store is away: it ends within a minute, not within retry.outage; the next run goes on."""
    wire = Wire(*host)
    options = f"?scheme=http&endpoint_override=127.0.0.1:{wire.port}"
    async with store(tmp_path, bucket) as s:
        job = s.job(output={"path": bucket.address("out", options), "part_documents": 60})
        job = job.model_copy(update={"engine": job.engine.model_copy(update={"processes": processes})})
        run = make_run(job)
        with (
            anyio.fail_after(60),
            pytest.raises(StoreAwayError),
            unwrap_exception_groups(),
        ):
            async with anyio.create_task_group() as group:
                group.start_soon(run.execute)
                while not bucket.objects("out").get("ranking-00000.jsonl"):  # noqa: ASYNC110 the server has threads of its own
                    await anyio.sleep(0.005)
                wire.slow = 10**6
                while (progress := run.progress()) is None or not progress.trouble:  # noqa: ASYNC110 so have others
                    await anyio.sleep(0.05)
                run.stop(InterruptedRunError("interrupted by SIGINT", signal.SIGINT))
        wire.slow = 0
        assert (await make_run(job).execute()).exit_code == 0
        assert s.w.paid_twice == 0
        assert without_summary(s.output()) == await s.expected(output={"part_documents": 60})
    wire.close()


@pytest.mark.slow
async def test_a_store_that_stays_away_loses_nothing(
    tmp_path: Path, bucket: Bucket, host: tuple[str, int]
) -> None:
    """Not even its summary can be written: exit code 75, and the same command goes on once the store is back."""
    wire = Wire(*host)
    options = f"?scheme=http&endpoint_override=127.0.0.1:{wire.port}"
    async with store(tmp_path, bucket) as s:
        job = s.job(output={"path": bucket.address("out", options)}, retry={"outage": 1})
        put = objects.Store.put

        def away(to: objects.Store, name: str, data: Any) -> str | None:
            if name == "ranking-00001.jsonl":
                wire.slow = 10**6
            return put(to, name, data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(objects.Store, "put", away)
            with pytest.raises(
                StoreAwayError, match=r"retry\.outage: 1\).*503.*run the job again later"
            ) as told:
                await s.run(job)
        assert told.value.exit_code == ExitCode.STOPPED
        assert set(s.output()) == {"ranking-00000.jsonl"}
        wire.slow = 0
        assert (await s.run(job)).exit_code == 0
        assert s.w.paid_twice == 0
        assert without_summary(s.output()) == await s.expected()
    wire.close()


async def checked(job: Job) -> list[Finding]:
    return await anyio.to_thread.run_sync(lambda: list(check_job(job, limit=10, ask=False)))


async def test_check_tries_the_store_and_asks_nothing(tmp_path: Path, bucket: Bucket) -> None:
    """It ends as a run would: a bucket that isn't there is found before the first paid request."""
    async with store(tmp_path, bucket) as s:
        found = {finding.name: finding.text for finding in await checked(s.job())}
        assert "can be written (an object was put there, and removed)" in found["output"]
        assert bucket.objects() == {}
        missing = s.job(output={"path": f"s3://not-there/out{bucket.options}"})
        findings = await checked(missing)
        assert ending(findings) == 1
        assert any("create the bucket" in finding.text for finding in findings)
        with pytest.raises(OutputError, match="create the bucket"):
            await s.run(missing)
        assert s.w.emulator.requests == 0


async def test_a_lost_ledger_is_a_stop(tmp_path: Path, bucket: Bucket) -> None:
    """The summary in the store tells of it, also where another machine kept the ledger."""
    async with store(tmp_path, bucket) as s:
        job = s.job()
        await s.run(job)
        assert job.ledger_path is not None
        job.ledger_path.unlink()
        with pytest.raises(LedgerError, match=r"the ledger is gone, but summary\.json beside the output"):
            await s.run(job)
        (tmp_path / "elsewhere").mkdir()
        elsewhere = s.job(ledger=str(tmp_path / "elsewhere/out.ledger.sqlite"))
        with pytest.raises(LedgerError, match="the ledger is gone"):
            await s.run(elsewhere)


async def test_another_jobs_unfinished_output_is_left_alone(tmp_path: Path, bucket: Bucket) -> None:
    """It is told by what that job noted in the store; two processes of one job share the lock here."""
    script: dict[int, str] = {}
    async with store(tmp_path, bucket, script=script) as s:
        job = s.job()
        script[s.w.emulator.requests + 45] = "400-arrearage"
        await s.run(job)
        bucket.client.delete_object(Bucket=bucket.name, Key="out/summary.json")  # as if it still ran
        parts = s.output()
        (tmp_path / "other").mkdir()
        other = s.job(ledger=str(tmp_path / "other/other.sqlite"))
        with pytest.raises(OutputError, match="belong to another job, out, which isn't complete"):
            await s.run(other)
        assert s.output() == parts
        assert job.output_folder is not None
        claim = Claim(job.output_folder)
        with pytest.raises(OutputError, match="another batchrank process"):
            await s.run(job)
        claim.close()


async def test_an_output_in_a_store_is_judged_and_reported(
    tmp_path: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    """``eval``, ``report`` and the gate read it there; ``status`` names what to ask instead."""
    async with store(tmp_path, bucket) as s:
        job = s.job(output={"format": "parquet"}, gate={"depth": 5})
        first = await s.run(job)
        assert first.exit_code == 0, first.data["notices"]
        address = bucket.address("out")
        here = s.w.job("here", output={"format": "parquet"})
        await s.w.run(here)
        judged = {f"q{i}" for i in range(12)}
        assert load(address, judged) == load(str(tmp_path / "here"), judged)
        found = gather(Address(address))
        assert len(found.queries.documents) == 12 and found.plan is not None
        tonight(s.w)
        second = await s.run(job)
        assert second.data["gate"]["compared"] == 12
        against = s.w.job("compared", gate={"against": address, "min_rbo": 0.0})
        assert (await s.run(against)).data["gate"]["compared"] == 12
        qrels = tmp_path / "qrels.txt"
        qrels.write_text("".join(f"q{i} 0 d{i}-0 1\n" for i in range(12)))
        evaluate([address], [str(qrels)])
        assert "12 judged queries" in capsys.readouterr().out
        report(str(tmp_path / "out.yaml"))
        assert job.output_folder is not None and (job.output_folder / "report.html").is_file()
        with pytest.raises(JobError, match="say where with --output FILE"):
            report(address)
        with pytest.raises(JobError, match="name its job file"):
            status(address)
        with pytest.raises(InputError, match="no such file"):
            gather(Address(bucket.address("nothing")))


async def test_an_output_is_never_its_own_input(tmp_path: Path, bucket: Bucket) -> None:
    """Neither the address nor a pattern that matches what will be written there."""
    async with store(tmp_path, bucket) as s:
        for data in rows(2, 5):
            bucket.put("out/in.jsonl", orjson.dumps(data))
        for path in ("out", "out/*.jsonl"):
            with pytest.raises(JobError, match=r"output\.path: .* is where input\.path .* reads from"):
                await s.run(s.job(input={"path": bucket.address(path)}))


async def test_only_failed_reads_its_letters_in_the_store(tmp_path: Path, bucket: Bucket) -> None:
    """What failed last time is asked about, and nothing else."""
    poison = {"unlucky": "400-inspection"}
    async with store(tmp_path, bucket, poison=poison) as s:
        data = rows(12, 34)
        data[3]["query"] += " unlucky"
        write_jsonl(s.w.data, data)
        job = s.job()
        assert (await s.run(job)).exit_code == 3
        assert b'"q3"' in s.output()["failed.jsonl"]
        poison.clear()
        before = s.w.emulator.requests
        again = await s.run(job, only_failed=True)
        assert again.exit_code in (0, 3)
        assert s.w.emulator.requests - before < 15
        assert OutputFolder(Address(bucket.address("out"))).complete() is not None


@pytest.mark.slow
@pytest.mark.real_clock
async def test_processes_send_their_own_parts(tmp_path: Path, bucket: Bucket) -> None:
    """Several processes of one run publish in the store what one process writes to a folder here."""
    async with hurried(tmp_path, bucket) as s:
        job = s.job(output={"part_documents": 60})
        several = job.model_copy(update={"engine": job.engine.model_copy(update={"processes": 2})})
        assert (await make_run(several).execute()).exit_code == 0
        assert without_summary(s.output()) == await s.expected()
        assert orjson.loads(s.output()["summary.json"])["complete"] is True


_KILLER = """
import os, signal, sys
from batchrank.io import storage
_left = int(os.environ["KILL_AT"])

def _reached():
    global _left
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

class _Stream:
    def __init__(self, stream):
        self._stream = stream
    def write(self, data):
        _reached()
        self._stream.write(data)
        _reached()
    def close(self):
        self._stream.close()
        _reached()

class _Watched:
    def __init__(self, system):
        self._system = system
    def __getattr__(self, name):
        found = getattr(self._system, name)
        if name not in ("copy_file", "delete_file", "delete_dir"):
            return found
        def call(*arguments):
            _reached()
            found(*arguments)
            _reached()
        return call
    def open_output_stream(self, *arguments, **keywords):
        return _Stream(self._system.open_output_stream(*arguments, **keywords))
    def move(self, source, target):
        self.copy_file(source, target)
        self.delete_file(source)

_filesystem = storage.filesystem
def filesystem(path):
    system, inner = _filesystem(path)
    return (None if system is None else _Watched(system)), inner

import batchrank.io.objects
batchrank.io.objects.storage = type(sys)("storage")
batchrank.io.objects.storage.__dict__.update(vars(storage) | {"filesystem": filesystem})
import anyio
from batchrank.job.load import load_job
from batchrank.launch import run
code = anyio.run(run, load_job(sys.argv[1])).exit_code
print("steps", int(os.environ["KILL_AT"]) - _left, file=sys.stderr)
sys.exit(code)
"""


class Kills:
    """One nightly job in a store, run by processes that are killed at a step that changes something there."""

    def __init__(self, s: Store, bucket: Bucket, tmp_path: Path) -> None:
        self.s, self.bucket, self.folder = s, bucket, tmp_path

    async def run(self, name: str, kill_at: int = 0) -> tuple[int, str]:
        environ = {**os.environ, "KILL_AT": str(kill_at)}
        process = commands.Process(
            _KILLER, str(self.folder / f"{name}.yaml"), cwd=self.folder, environ=environ
        )
        _, said = await process.communicate()
        assert process.returncode in (0, -9), said.decode()
        return process.returncode, said.decode()

    async def night(self, name: str, at: int) -> bool:
        """Run the first night, and the second one with a kill at a step, then to its end; whether there was a kill."""
        self.s.job(name, output={"part_documents": 60})
        write_jsonl(self.s.w.data, rows(6, 24))
        await self.run(name)
        last = self.s.output(name)
        tonight(self.s.w, 5, 24)
        code, _ = await self.run(name, at)
        now = self.s.output(name)
        if "summary.json" in now and now != last:
            assert without_summary(now) == self.tonight
        if code == 0:
            return False
        if "summary.json" in now and now["summary.json"] == last["summary.json"]:
            assert now == last
        for file, data in now.items():
            assert file == "summary.json" or data in (last.get(file), self.tonight.get(file)), file
        await self.run(name)
        assert without_summary(self.s.output(name)) == self.tonight
        hidden = [key for key in self.bucket.objects(name) if "/" in key or key.endswith(".tmp")]
        assert not [key for key in hidden if "probe" not in key], hidden
        return True

    async def prepare(self) -> int:
        """Note what an uninterrupted second night writes; how many steps it takes."""
        self.s.job("reference", output={"part_documents": 60})
        write_jsonl(self.s.w.data, rows(6, 24))
        await self.run("reference")
        tonight(self.s.w, 5, 24)
        _, said = await self.run("reference")
        self.tonight = without_summary(self.s.output("reference"))
        return int(said.rpartition("steps ")[2])


@pytest.mark.real_clock
@pytest.mark.parametrize("every", [41, pytest.param(5, marks=pytest.mark.slow)])
async def test_a_process_killed_at_any_step_leaves_one_output_or_the_other(
    tmp_path: Path, bucket: Bucket, every: int
) -> None:
    """No file under its final name is half, the summary stands beside one night's files, and the next run ends with the
    bytes of an uninterrupted one.
    """
    async with hurried(tmp_path, bucket) as s:
        kills = Kills(s, bucket, tmp_path)
        steps = await kills.prepare()
        assert steps > 60
        for at in range(min(every, 30), steps, every):
            assert await kills.night(f"night{at}", at)
