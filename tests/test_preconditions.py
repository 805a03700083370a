"""What a run refuses to start on, because it would overwrite its input or pay again for what was paid."""

import shutil
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from against import world
from jobs import make_job, outputs, rows, run, write_jsonl
from test_cli import batchrank, job_file

from batchrank.errors import JobError, LedgerError, OutputError
from batchrank.job.config import Job
from batchrank.write.switch import Claim

pytestmark = pytest.mark.anyio


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    "path", ["data", "data/", "data/*.jsonl", "data/../data", "data/ranking-*", "data/failed.jsonl"]
)
async def test_an_output_into_its_own_input_is_refused(tmp_path: Path, path: str) -> None:
    """The folder, a pattern that fits what will be written, or a file that would be replaced: nothing is touched."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("ranking-00000.jsonl", "failed.jsonl"):
        write_jsonl(data / name, rows(2, 3))
    before = files(data)
    job = make_job(tmp_path, data, out="data", input={"path": path})
    with pytest.raises(JobError, match=r"output\.path: .*set output\.path to another folder") as caught:
        await run(job)
    assert caught.value.exit_code == 2
    assert files(data) == before


async def test_a_corpus_in_the_output_folder_is_input_too(tmp_path: Path) -> None:
    """As are queries: all that a run reads."""
    corpus = tmp_path / "scifact"
    corpus.mkdir()
    write_jsonl(corpus / "corpus.jsonl", [{"_id": "d", "text": "a text"}])
    write_jsonl(corpus / "queries.jsonl", [{"_id": "q", "text": "a query"}])
    (tmp_path / "run.trec").write_text("q Q0 d 1 1.0 x\n")
    keys = {"path": str(tmp_path / "run.trec"), "corpus": str(corpus)}
    with pytest.raises(JobError, match=r"input\.corpus"):
        await run(make_job(tmp_path, tmp_path, out="scifact", input=keys))


async def test_an_input_beside_the_output_is_none_of_it(tmp_path: Path) -> None:
    """A file with a name of its own may stand in the output folder, as a pattern that fits nothing written may."""
    write_jsonl(tmp_path / "in.jsonl", rows(2, 3))
    for path in ("in.jsonl", "in*.jsonl"):
        assert (await run(make_job(tmp_path, tmp_path, out=".", input={"path": path}))).exit_code == 0
    again = make_job(tmp_path, tmp_path, out="again", input={"path": "in.jsonl"})
    assert (await run(again)).exit_code == 0


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("elsewhere", [True, False])
async def test_a_lost_ledger_is_a_stop(tmp_path: Path, complete: bool, elsewhere: bool) -> None:
    """The summary beside the output knows that there was one: nothing is asked again without --fresh."""
    script = {} if complete else {9: "400-arrearage"}
    async with world(tmp_path, script=script) as w:
        keys: dict[str, Any] = {"ledger": str(tmp_path / "kept.sqlite")} if elsewhere else {}
        job = w.job(**keys)
        await w.run(job, part_documents=30)
        before, asked = outputs(job), w.emulator.requests
        assert job.ledger_path is not None
        job.ledger_path.unlink()
        with pytest.raises(LedgerError, match=r"ledger is gone, but summary\.json .* run with --fresh"):
            await w.run(job)
        assert not job.ledger_path.exists()
        assert (outputs(job), w.emulator.requests) == (before, asked)
        assert (await w.run(job, fresh=True)).exit_code == 0
        assert (await w.run(job)).exit_code == 0


async def test_an_empty_ledger_in_its_place_is_a_stop(tmp_path: Path) -> None:
    """A file that somebody made anew holds no answer of the run that the summary tells of."""
    async with world(tmp_path) as w:
        job = w.job()
        await w.run(job)
        asked = w.emulator.requests
        (tmp_path / "out" / "ledger.sqlite").write_bytes(b"")
        with pytest.raises(LedgerError, match=r"holds nothing, but summary\.json .* run with --fresh"):
            await w.run(job)
        assert w.emulator.requests == asked


def kill(folder: Path, *, status: bool = False) -> None:
    """What a run that was killed has not written, or removed before."""
    for name in ("summary.json", *(() if status else ("status.json",))):
        (folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize("replaced", [True, False])
@pytest.mark.parametrize("left", ["parts", "letters", "status"])
async def test_whatever_a_killed_run_left_tells_of_its_ledger(
    tmp_path: Path, left: str, replaced: bool
) -> None:
    """Parts, dead letters, or the status of one that spent: without the ledger the cap would be forgotten."""
    async with world(tmp_path, queries=12, script={70: "400-arrearage"}) as w:
        job, out = w.job(), tmp_path / "out"
        await w.run(job, part_documents=60)
        if left == "status":
            (out / "status.json").write_text('{"progress": {"tokens": 1234}}')
        kill(out, status=left == "status")
        for path in out.iterdir():
            if {"ranking-": "parts", "failed.p": "letters"}.get(path.name[:8], left) != left:
                path.unlink()
        (out / "ledger.sqlite").unlink()
        if replaced:
            (out / "ledger.sqlite").write_bytes(b"")
        asked = w.emulator.requests
        with pytest.raises(
            LedgerError, match=r"the ledger (is gone|holds nothing), but .* shows? that a run .*--fresh"
        ):
            await w.run(job)
        assert w.emulator.requests == asked
        assert (await w.run(job, fresh=True)).exit_code == 0


@pytest.mark.parametrize("status", [True, False])
async def test_a_run_killed_before_its_first_answer_goes_on(tmp_path: Path, status: bool) -> None:
    """It left dead letters and a status, and its ledger, which knows of the run, has nothing in it yet."""
    async with world(tmp_path, script={1: "400-arrearage"}) as w:
        job, out = w.job(), tmp_path / "out"
        assert (await w.run(job)).exit_code == 1
        assert (out / "failed.partial.jsonl").exists()
        (out / "status.json").write_text('{"progress": {"tokens": 12}}')
        kill(out, status=status)
        assert (await w.run(job)).exit_code == 0


async def test_two_processes_never_write_to_one_folder(tmp_path: Path) -> None:
    """With ledgers of their own, too: the second one is told who has it."""
    async with world(tmp_path, queries=12, latency=1) as w:
        one, two = w.job(ledger=str(tmp_path / "one.sqlite")), w.job(ledger=str(tmp_path / "two.sqlite"))

        async def second() -> None:
            await anyio.sleep(2)
            with pytest.raises(
                OutputError, match=r"another batchrank process \(out, process \d+\) is writing"
            ):
                await w.run(two)

        async with anyio.create_task_group() as group:
            group.start_soon(second)
            assert (await w.run(one)).exit_code == 0
        report = await w.run(two)
        assert report.exit_code == 0
        assert any("is another job's (out); this one replaces it" in n for n in report.data["notices"])


async def test_another_jobs_unfinished_output_is_left_alone(tmp_path: Path) -> None:
    """Its parts would be mixed with, or taken down by, a job that keeps its answers elsewhere."""
    async with world(tmp_path, queries=12, script={70: "400-arrearage"}) as w:
        one, two = (w.job(ledger=str(tmp_path / f"{name}.sqlite")) for name in ("one", "two"))
        await w.run(one, part_documents=60)
        before = outputs(one)
        assert (await w.run(w.job("other", ledger=str(tmp_path / "two.sqlite")))).exit_code == 0
        with pytest.raises(OutputError, match=r"belong to another job, out, which .*one\.sqlite.*--fresh"):
            await w.run(two, part_documents=60)
        assert outputs(one) == before
        assert (await w.run(one, part_documents=60)).exit_code == 0


async def test_the_folders_lock_is_released_by_a_kill(tmp_path: Path) -> None:
    """A process that is gone locks nobody out."""
    code = "import sys, os, signal; from pathlib import Path; from batchrank.write.switch import Claim\n"
    code += "Claim(Path(sys.argv[1])).note({'job': 'killed'}); os.kill(os.getpid(), signal.SIGKILL)"
    await anyio.run_process([sys.executable, "-c", code, str(tmp_path)], check=False)
    claim = Claim(tmp_path)
    assert claim.record == {"job": "killed"}
    with pytest.raises(OutputError, match="another batchrank process"):
        Claim(tmp_path)
    claim.close()
    Claim(tmp_path).close()


async def test_another_ledger_or_a_moved_folder_is_no_loss(tmp_path: Path) -> None:
    """A job that names a new ledger means it; a folder that was moved has its ledger with it."""
    async with world(tmp_path) as w:
        await w.run(w.job())
        asked = w.emulator.requests
        shutil.move(tmp_path / "out", tmp_path / "moved")
        assert (await w.run(w.job("moved", reuse={"audit": 0}))).exit_code == 0
        assert w.emulator.requests == asked
        assert (await w.run(w.job("moved", ledger=str(tmp_path / "new.sqlite")))).exit_code == 0


async def test_a_run_that_asked_nothing_has_lost_nothing(tmp_path: Path) -> None:
    """All queries failed before anything was paid: the next run starts as any first one."""
    write_jsonl(tmp_path / "in.jsonl", [b"{broken"])
    job = make_job(tmp_path, tmp_path / "in.jsonl")
    assert (await run(job)).exit_code == 4
    (tmp_path / "out" / "ledger.sqlite").unlink()
    write_jsonl(tmp_path / "in.jsonl", rows(1, 3))
    assert (await run(job)).exit_code == 0


@pytest.mark.slow
def test_check_finds_what_a_run_would_refuse(tmp_path: Path) -> None:
    """Each with the exit code that the run ends with."""
    write_jsonl(tmp_path / "in.jsonl", rows(1, 3))
    job_file(tmp_path)
    assert batchrank("run", "job.yaml", cwd=tmp_path).returncode == 0
    (tmp_path / "out" / "ledger.sqlite").unlink()
    for command in ("check", "run"):
        done = batchrank(command, "job.yaml", cwd=tmp_path)
        assert done.returncode == 1 and b"ledger is gone" in done.stdout + done.stderr
    for command in ("check", "run"):
        done = batchrank(command, "job.yaml", "--set", "input.path=out", cwd=tmp_path)
        assert done.returncode == 2 and b"set output.path" in done.stdout + done.stderr
    write_jsonl(tmp_path / "in.jsonl", [b"{broken"])
    shutil.rmtree(tmp_path / "out")
    for command in ("check", "run"):
        assert batchrank(command, "job.yaml", cwd=tmp_path).returncode == 4


@pytest.mark.parametrize("job", [None, "job.yaml", {"model": "qwen3-rerank"}])
async def test_a_run_takes_a_job(job: Any) -> None:
    """Anything else is told at once, with what makes one."""
    from batchrank import run as library_run

    with pytest.raises(JobError, match=r"a run needs a batchrank\.Job, .*load_job"):
        await library_run(job)


def test_the_check_of_an_unnamed_output_is_none() -> None:
    """A job without an output folder has nothing to overwrite."""
    from batchrank.pipeline.preconditions import refuse_lost_ledger, refuse_own_input

    job = Job.model_validate({"model": "qwen3-rerank", "input": {"path": "x"}, "output": {"path": "-"}})
    refuse_own_input(job, [["x", 1, 1]])
    refuse_lost_ledger(job)
